"""The cast of the ZeroMQ tests: honest parties, processes that can be killed, and attackers on raw sockets.

Run as a program it is an honest process that echoes: ``zmq_peers.py listen|dial …`` with a JSON object of options. It
prints one JSON line for its endpoint, then one for each frame, and ends in good order when its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import zmq
from nacl.public import PrivateKey

from agentbus.testing.transports import PATIENCE, Party
from agentbus.transport.base import Connection
from agentbus.transport.zeromq import ZmqTransport
from agentbus.transport.zeromq import sockets as socket_options

RESULTS = {
    zmq.Event.HANDSHAKE_SUCCEEDED: "in",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "refused",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "failed",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "failed",
    zmq.Event.DISCONNECTED: "cut",
}


def secret(name: str) -> PrivateKey:
    """The CURVE key of ``name``, the same in every process."""
    return PrivateKey(sha256(name.encode()).digest())


def public(name: str) -> bytes:
    return bytes(secret(name).public_key)


@asynccontextmanager
async def zmq_party(name: str, **options: Any) -> AsyncIterator[Party]:
    """An honest party in this process."""
    transport = ZmqTransport(secret_key=bytes(secret(name)), public_key=public(name), **options)
    party = Party(transport, public(name))
    await transport.open(party.sink)
    try:
        yield party
    finally:
        await transport.aclose()


class Process:
    """An honest party in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self.key = public(name)
        self.endpoint = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def line(self) -> Any:
        """What it says next."""
        assert self._process.stdout is not None
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), PATIENCE))

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> int:
        """Its exit code, after it was asked to end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(BrokenPipeError, ConnectionResetError):
            await self._process.stdin.wait_closed()
        return await asyncio.wait_for(self._process.wait(), PATIENCE)

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self.end()


@asynccontextmanager
async def process(mode: str, name: str, **options: Any) -> AsyncIterator[Process]:
    """Start one; for ``listen``, its endpoint is known once this is entered."""
    root = Path(__file__).parents[2]
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        mode,
        json.dumps({"name": name, **options}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])},
    )
    peer = Process(started, name)
    try:
        if mode == "listen":
            peer.endpoint = await peer.line()
        yield peer
    finally:
        await peer.kill()


class Attacker:
    """A raw DEALER with any key, any routing id and no manners. It waits in a thread: the victim may be us."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._context = context
        self._sockets: list[zmq.Socket[bytes]] = []
        self._monitors: dict[zmq.Socket[bytes], zmq.Socket[bytes]] = {}

    def socket(self, name: str | None, server_key: bytes, *, routing_id: bytes | None = None) -> zmq.Socket[bytes]:
        """A DEALER under the key of ``name``; without encryption when that is None."""
        socket = self._context.socket(zmq.DEALER)
        self._sockets.append(socket)
        socket.linger = 0
        socket.setsockopt(zmq.RECONNECT_IVL, -1)
        if routing_id is not None:
            socket.setsockopt(zmq.ROUTING_ID, routing_id)
        if name is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, server_key)
            socket.setsockopt(zmq.CURVE_SECRETKEY, bytes(secret(name)))
            socket.setsockopt(zmq.CURVE_PUBLICKEY, public(name))
        monitor = self._context.socket(zmq.PAIR)
        self._sockets.append(monitor)
        address = f"inproc://attacker.{len(self._sockets)}"
        socket.monitor(address, sum(RESULTS))
        monitor.connect(address)
        self._monitors[socket] = monitor
        return socket

    def listener(self, name: str) -> tuple[zmq.Socket[bytes], int]:
        """A bare ROUTER under the key of ``name``, and its port."""
        socket = self._context.socket(zmq.ROUTER)
        self._sockets.append(socket)
        socket.linger = 0
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, bytes(secret(name)))
        return socket, socket.bind_to_random_port("tcp://127.0.0.1")

    async def attempt(self, socket: zmq.Socket[bytes], endpoint: str, *frames: bytes) -> str:
        """Connect with ``frames`` waiting; ``in``, ``refused`` or ``failed``."""
        socket.connect(endpoint)
        with suppress(zmq.Again):  # it may have been refused already
            for frame in frames:
                socket.send(frame, zmq.DONTWAIT)
        return await self.outcome(socket)

    async def outcome(self, socket: zmq.Socket[bytes]) -> str:
        """The next thing that happens to this socket's connection."""
        return await asyncio.to_thread(self._outcome, socket)

    async def receive(self, socket: zmq.Socket[bytes]) -> list[bytes]:
        """The next message."""
        assert await asyncio.to_thread(socket.poll, PATIENCE * 1000)
        return socket.recv_multipart(zmq.DONTWAIT)

    def hang_up(self, socket: zmq.Socket[bytes]) -> None:
        """Go without a word."""
        socket.monitor(None, 0)
        self._monitors.pop(socket)
        socket.close(0)

    def close(self) -> None:
        for socket in list(self._monitors):
            self.hang_up(socket)
        for socket in self._sockets:
            socket.close(0)

    def _outcome(self, socket: zmq.Socket[bytes]) -> str:
        monitor = self._monitors[socket]
        assert monitor.poll(PATIENCE * 1000)
        event = int.from_bytes(monitor.recv()[:2], sys.byteorder)
        monitor.recv()
        return RESULTS[zmq.Event(event)]


@contextmanager
def attacker() -> Iterator[Attacker]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    villain = Attacker(context)
    try:
        yield villain
    finally:
        villain.close()
        context.term()


class _Echo:
    def __init__(self, pause: float) -> None:
        self._pause = pause

    def received(self, connection: Connection, frame: bytes) -> None:
        if self._pause:
            time.sleep(self._pause)  # a handler that hogs its loop; libzmq's own thread lives on
            return
        print(json.dumps(frame.decode("latin-1")), flush=True)
        connection.offer(b"re: " + frame)

    def lost(self, connection: Connection, reason: str) -> None: ...

    async def admit(self, key: bytes) -> bool:
        return True


async def _main(mode: str, *, name: str, pause: float = 0, handshake: int = 0, **options: Any) -> None:
    socket_options.HANDSHAKE = handshake or socket_options.HANDSHAKE  # type: ignore[misc]
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(done.set)), daemon=True).start()
    listen = options.pop("listen", "tcp://127.0.0.1:*") if mode == "listen" else None
    target, key = options.pop("endpoint", ""), bytes.fromhex(options.pop("key", ""))
    transport = ZmqTransport(secret_key=bytes(secret(name)), public_key=public(name), listen=listen, **options)
    await transport.open(_Echo(pause))
    if mode == "listen":
        print(json.dumps(transport.endpoints[0]), flush=True)
    else:
        transport.dial(target, key).offer(b"hello")
    await done.wait()
    await transport.aclose()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], **json.loads(sys.argv[2])))
