"""One town, twice: everything in memory, and the same over ZeroMQ in one process; the clock stands still in both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentbus import Agent, Bus, Session
from agentbus.bus.opening import connect_bus
from agentbus.host import DirectoryHost
from agentbus.runtime.node import Node
from agentbus.testing import ManualClock, Network
from agentbus.testing.plugin import net

__all__ = ["net"]


@pytest.fixture(autouse=True)
async def watchdog() -> AsyncIterator[None]:
    """The clock of these tests stands still, so what would end at a deadline hangs: cancelled after half a minute."""
    loop = asyncio.get_running_loop()
    handle = loop.call_later(30, lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
    yield
    handle.cancel()


class Town:
    """Agents to serve and users to speak for, whatever carries their frames."""

    clock: ManualClock
    nodes: list[Node]

    @asynccontextmanager
    async def serve(self, *agents: Agent[Any]) -> AsyncIterator[list[Bus]]:
        raise NotImplementedError
        yield []

    async def user(self, name: str, scopes: Sequence[Any], **grant: Any) -> Session:
        raise NotImplementedError

    async def peer(self, name: str) -> Bus:
        """An agent that serves nothing."""
        raise NotImplementedError

    async def refresh(self) -> None:
        """Let everybody hear the directory."""

    async def until(self, so: Callable[[], Any], seconds: float = 10) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(seconds):
            while not so():
                await asyncio.sleep(0.001)


class MemoryTown(Town):
    def __init__(self, net: Network) -> None:
        self.net, self.clock, self.nodes = net, net.clock, [net._node]

    @asynccontextmanager
    async def serve(self, *agents: Agent[Any]) -> AsyncIterator[list[Bus]]:
        async with self.net.serve(*agents):
            yield [self.net for _ in agents]

    async def user(self, name: str, scopes: Sequence[Any], **grant: Any) -> Session:
        return self.net.user(name, scopes=scopes, **grant)

    async def peer(self, name: str) -> Bus:
        return self.net


class ZmqTown(Town):
    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.clock = ManualClock()
        self.nodes = []

    async def open(self) -> None:
        self.host = DirectoryHost(self.folder / "directory", listen="tcp://127.0.0.1:*", domain="agents.example")
        self.host.clock = self.clock
        await self.host.open()
        self.stack.push_async_callback(self.host.aclose)
        self.clock.drive(self.host.node)

    async def connect(self, name: str, **record: Any) -> Bus:
        everyone = ["spiffe://agents.example/group/all"]
        identity = self.host.enrol(name, may_talk_to=everyone, **record)
        bus = await connect_bus(
            self.host.url, identity, listen="tcp://127.0.0.1:*", folder=self.folder / name.replace("/", "-"),
            clock=self.clock,
        )  # fmt: skip
        self.stack.push_async_callback(bus.aclose)
        self.clock.drive(bus._node)
        self.nodes.append(bus._node)
        return bus

    @asynccontextmanager
    async def serve(self, *agents: Agent[Any]) -> AsyncIterator[list[Bus]]:
        declared = sorted({s for a in agents for h in a.handlers.values() for s in h.rule.scopes})
        async with AsyncExitStack() as stack:
            buses = []
            for agent in agents:
                bus = await self.connect(agent.name, ceiling=declared)
                await stack.enter_async_context(bus.serve(agent))
                buses.append(bus)
            yield buses

    async def user(self, name: str, scopes: Sequence[Any], **grant: Any) -> Session:
        return (await self.connect(f"user/{name}", rights=scopes)).as_user(scopes, **grant)

    async def peer(self, name: str) -> Bus:
        return await self.connect(name)

    async def refresh(self) -> None:
        for node in self.nodes:
            await node.source.refresh()


@pytest.fixture(params=["memory", "zeromq"])
async def town(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryTown(await stack.enter_async_context(Network.open()))
        else:
            made = ZmqTown(tmp_path, stack)
            await made.open()
            yield made
