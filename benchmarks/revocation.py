"""How long until everybody knows of a revocation, pushed to N agents: ``python benchmarks/revocation.py [N]``.

A directory in a process of its own, N enrolled agents connected to it over ZeroMQ under CURVE, each with its own key.
The clock starts right before the directory writes the revocation down and stops when the push has arrived at an agent;
one of them is a real node, which verifies it, too. Figures, never a gate.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import zmq

from agentbus.connect import BusUrl
from agentbus.crypto.keys import CurveKey
from agentbus.runtime.clock import SystemClock
from agentbus.runtime.trust_cache import TrustCache
from agentbus.transport.zeromq import ZmqTransport
from agentbus.transport.zeromq.sockets import Settings, dialling
from agentbus.wire.sync import decode_sync, encode_sync

ROUNDS = 20


async def directory(folder: Path, agents: int) -> None:
    """The child: enrols the agents, then revokes one of the spare ones for each line it reads."""
    from agentbus.host import DirectoryHost, make_operator

    host = DirectoryHost(folder, listen="tcp://127.0.0.1:*", domain="bench.example")
    await host.open()
    operator = make_operator(host.core, folder / "operator.json", now=host.clock.now())
    assert operator is not None
    keys = [host.enrol(f"agent-{n}").curve.secret.hex() for n in range(agents)]
    spare = [host.enrol(f"spare-{n}") for n in range(ROUNDS)]
    (folder / "curve.json").write_text(json.dumps(keys))
    print(host.url, flush=True)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        who = spare.pop().id
        began = time.monotonic_ns()
        host.core.revoke("principal", who.encode(), revoker=operator.id, reason="bench", now=host.clock.now())
        print(began, flush=True)
    await host.aclose()


class Agents:
    """N connections that have polled once, as a node does, and note when each push arrives."""

    def __init__(self, url: BusUrl, secrets: list[str]) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 16_384)
        self.sockets = []
        for secret in secrets:
            key = CurveKey(bytes.fromhex(secret))
            socket = dialling(self.context, Settings(key.secret, key.public), url.curve_key)
            socket.connect(url.endpoint)
            socket.send(encode_sync("poll", 1, 0, b"", b""))
            self.sockets.append(socket)
        self.poller = zmq.Poller()
        for socket in self.sockets:
            self.poller.register(socket, zmq.POLLIN)

    def wait_for(self, operation: str, entries: bool) -> list[int]:
        """When this operation arrived at each of them, monotonic nanoseconds."""
        waiting = set(self.sockets)
        arrived = []
        end = time.monotonic() + 60
        while waiting and time.monotonic() < end:
            for socket, _ in self.poller.poll(1000):
                at = time.monotonic_ns()
                got, _, parts = decode_sync(socket.recv())
                if got == operation and (not entries or parts[1]) and socket in waiting:
                    waiting.discard(socket)
                    arrived.append(at)
        return arrived

    def close(self) -> None:
        for socket in self.sockets:
            socket.close(0)
        self.context.term()


async def measure(agents: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="agentbus-bench-") as name:
        folder = Path(name) / "directory"
        child = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "directory", str(folder), str(agents),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert child.stdin is not None and child.stdout is not None
        try:
            url = BusUrl.parse((await child.stdout.readline()).decode().strip())
            secrets = json.loads((folder / "curve.json").read_text())
            node = CurveKey(bytes.fromhex(secrets.pop()))
            transport = ZmqTransport(secret_key=node.secret, public_key=node.public, listen=None)
            trust = TrustCache(transport, endpoint=url.endpoint, key=url.curve_key, root=url.root, clock=SystemClock())
            await transport.open(_Sink(trust))
            await trust.open()
            crowd = Agents(url, secrets)
            connected = len(await asyncio.to_thread(crowd.wait_for, "head", False))
            assert connected == len(secrets), f"{connected} of {len(secrets)} agents had an answer to their poll"
            seen: list[float] = []
            verified: asyncio.Queue[int] = asyncio.Queue()
            trust.changed.append(lambda: verified.put_nowait(time.monotonic_ns()))
            spent = []
            for _ in range(ROUNDS):
                while not verified.empty():
                    verified.get_nowait()
                child.stdin.write(b"revoke\n")
                arrived = await asyncio.to_thread(crowd.wait_for, "push", True)
                began = int((await child.stdout.readline()).decode())
                seen += [(at - began) / 1e6 for at in arrived]
                spent.append((await verified.get() - began) / 1e6)
                await asyncio.sleep(0.05)
            crowd.close()
            await trust.aclose()
            await transport.aclose()
        finally:
            child.stdin.close()
            await child.wait()
    p99 = quantiles(seen, n=100)[98]
    return {
        "agents": agents, "connected": connected + 1, "revocations": ROUNDS, "pushes": len(seen),
        "arrived_ms": {"p50": round(median(seen), 2), "p99": round(p99, 2), "max": round(max(seen), 2)},
        "verified_by_a_node_ms": {"p50": round(median(spent), 2), "max": round(max(spent), 2)},
    }  # fmt: skip


class _Sink:
    """What a node's transport reports to, where the node is nothing but its view of the directory."""

    def __init__(self, trust: TrustCache) -> None:
        self._trust = trust

    def received(self, connection: Any, frame: bytes) -> None:
        self._trust.received(frame)

    def lost(self, connection: Any, reason: str) -> None:
        self._trust.lost()

    async def admit(self, key: bytes) -> bool:
        return False


def main() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 65_536)), hard))
    if sys.argv[1:2] == ["directory"]:
        asyncio.run(directory(Path(sys.argv[2]), int(sys.argv[3])))
        return
    figures = asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
    print(json.dumps({**figures, "cores": os.cpu_count()}, indent=2))


if __name__ == "__main__":
    main()
