"""Whoever the directory cuts off again and again waits before each try: a revoked node is no flood of handshakes."""

from __future__ import annotations

import asyncio

import pytest

from agentbus.errors import Unavailable
from agentbus.replay.pace import PacedLoop
from agentbus.runtime.trust_cache import TrustCache
from agentbus.transport.base import Connection
from agentbus.transport.memory import MemoryHub, MemoryTransport

from .town import SkewedClock


class Listener:
    """Somebody at the directory's address who lets nobody in, and counts who knocks."""

    def __init__(self) -> None:
        self.knocks = 0
        self.enough = asyncio.Event()

    async def admit(self, key: bytes) -> bool:
        self.knocks += 1
        if self.knocks >= 1000:  # in no time at all: the clock would never get on
            self.enough.set()
        return False

    def received(self, connection: Connection, frame: bytes) -> None:
        raise AssertionError("nobody was let in")

    def lost(self, connection: Connection, reason: str) -> None:
        return None


class Refused:
    """A node's sink, as far as its trust cache is concerned."""

    source: TrustCache

    async def admit(self, key: bytes) -> bool:
        return False

    def received(self, connection: Connection, frame: bytes) -> None:
        self.source.received(frame)

    def lost(self, connection: Connection, reason: str) -> None:
        if self.source.owns(connection):
            self.source.cut(reason)


async def knock(seconds: float) -> int:
    hub, listener, sink = MemoryHub(), Listener(), Refused()
    theirs, mine = MemoryTransport(hub, key=b"d" * 32), MemoryTransport(hub, key=b"n" * 32)
    await theirs.open(listener)
    await mine.open(sink)
    source = sink.source = TrustCache(
        mine, endpoint=theirs.endpoints[0], key=theirs.key, root=bytes(32), clock=SkewedClock(0)
    )
    with pytest.raises(Unavailable):
        await source.open()
    source._loop = asyncio.get_running_loop().create_task(source._keep_fresh())
    try:
        async with asyncio.timeout(seconds):
            await listener.enough.wait()
    except TimeoutError:
        pass
    await source.aclose()
    await hub.aclose()
    await mine.aclose()
    return listener.knocks


def test_a_node_that_is_refused_knocks_twice_a_second_at_most() -> None:
    with asyncio.Runner(loop_factory=lambda: PacedLoop(None)) as runner:
        knocks = runner.run(knock(60))
    assert 10 < knocks <= 2 * 60 + 2, knocks
