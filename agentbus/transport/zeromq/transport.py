"""The ZeroMQ transport: one listener, one DEALER for each peer we dial, one context for all.

Rule 1: every socket is used from the loop the transport was opened on; libzmq's sockets are not thread-safe.
Rule 2: closing leaves nothing behind: no descriptor, task or thread.
"""

from __future__ import annotations

import asyncio
import resource
import threading
from contextlib import suppress
from typing import Final
from weakref import WeakValueDictionary

import zmq

from agentbus.errors import ConfigError, ProgrammingError, Unavailable
from agentbus.transport.base import Connection, Sink
from agentbus.transport.common import MAX_FRAME, check_key
from agentbus.transport.zeromq.dialled import Dialled
from agentbus.transport.zeromq.listener import Listener
from agentbus.transport.zeromq.sockets import LINGER, Settings, can_dial

CODES: Final = {
    "config.advertise": "Others must be told an address that they can dial: a host name or IPv4 address, and a port.",
}

EVERYWHERE: Final = ("tcp://0.0.0.0:", "tcp://*:", "tcp://[::]:")
MAX_SOCKETS: Final = 16_384  # libzmq's 1,023 would be about 340 dialled peers: each needs three


class ZmqTransport:
    """Frames over TCP, under CURVE.

    Args:
        secret_key: 32 raw bytes, X25519.
        public_key: Its public half, under which peers know this transport.
        listen: Where to listen; ``*`` finds a free port; None only dials.
        advertise: What to tell others instead, where they see another address; a ``*`` port is filled in.
        max_frame: Bytes; a peer that sends more is dropped.
        high_water: Frames that may wait for one peer, in each direction.
        connections: Inbound connections, half-open ones included; by default half of what the process may open.
    """

    def __init__(
        self,
        *,
        secret_key: bytes,
        public_key: bytes,
        listen: str | None = "tcp://127.0.0.1:*",
        advertise: str | None = None,
        max_frame: int = MAX_FRAME,
        high_water: int = 4096,
        connections: int | None = None,
    ) -> None:
        self._settings = Settings(secret_key, public_key, max_frame, high_water)
        self._listen = listen
        self._advertise = advertise
        self._connections = connections or _affordable_connections()
        self._endpoints: tuple[str, ...] = ()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._sink: Sink | None = None
        self._listener: Listener | None = None
        self._dialled: WeakValueDictionary[tuple[str, bytes], Dialled] = WeakValueDictionary()
        self._open: set[Dialled] = set()
        self._closing: asyncio.Future[None] | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where others can dial this transport, after :meth:`open`."""
        return self._endpoints

    @property
    def malformed(self) -> int:
        """Messages from peers that were not one frame within the limits; each cost its sender the connection."""
        return self._listener.malformed if self._listener is not None else 0

    async def open(self, sink: Sink) -> None:
        """Bind, if it listens, and begin to deliver.

        Raises:
            ConfigError: ``config.transport``: the address cannot be bound; ``config.advertise``.
        """
        if self._sink is not None or self._closing is not None:
            raise ProgrammingError("usage", "a transport is opened once")
        self._sink = sink
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        if self._listen is None:
            return
        self._listener = Listener(self._context, self._settings, sink, connections=self._connections)
        try:
            self._endpoints = (_advertised(self._listener.bind(self._listen), self._advertise),)
        except BaseException:
            await self.aclose()
            raise

    def dial(self, endpoint: str, key: bytes) -> Connection:
        """The live connection to ``key`` at ``endpoint``, or a new one."""
        if self._closing is not None:
            raise Unavailable("unavailable", "this transport is closed")
        if self._context is None or self._sink is None:
            raise ProgrammingError("usage", "open the transport before dialling")
        check_key(key)
        name = (endpoint, key)
        known = self._dialled.get(name)
        if known is not None and known.alive:
            return known
        connection = Dialled(
            self._context,
            self._settings,
            self._sink,
            endpoint=endpoint,
            peer=key,
            closed=self._open.discard,
        )
        self._dialled[name] = connection
        self._open.add(connection)
        return connection

    async def aclose(self) -> None:
        """Close everything. Accepted frames get a moment to leave; the sink hears nothing more."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for connection in list(self._open):
            connection.leave(LINGER)
        if self._listener is not None:
            await self._listener.aclose(LINGER)
        if self._context is not None:
            await _terminate(self._context)


async def _terminate(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """``term`` blocks until the last frame has left or lingered long enough: in a thread that ends with it."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def term() -> None:
        context.term()
        with suppress(RuntimeError):  # the loop did not wait for us
            loop.call_soon_threadsafe(done.set_result, None)

    thread = threading.Thread(target=term, name="agentbus-zmq-term", daemon=True)
    thread.start()
    await done
    thread.join()


def _advertised(bound: str, advertise: str | None) -> str:
    """What others are told to dial.

    Raises:
        ConfigError: ``config.advertise``.
    """
    found = advertise or bound
    if found.endswith(":*"):
        found = found.removesuffix("*") + bound.rsplit(":", 1)[1]
    if found.startswith(EVERYWHERE):
        todo = "the one to dial: --advertise HOST, AGENTBUS_ADVERTISE=tcp://HOST:PORT"
        raise ConfigError("config.advertise", f"{found} is every address here; advertise {todo}")
    if not can_dial(found):
        raise ConfigError("config.advertise", f"{found!r} cannot be dialled; write tcp://HOST:PORT or tcp://HOST:*")
    return found


def _affordable_connections() -> int:
    """Half of the descriptors this process may have: strangers must not be able to use up those of the log."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(16, min(4096, soft // 2))
