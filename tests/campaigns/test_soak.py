"""Hours of ordinary days: buses come, ask, stream, are cut off, and go. What must not grow: descriptors, tasks,
threads.

Five seconds in every run of the suite, an hour in the campaign. Memory is a figure.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Bus, Context, Request, StreamRequest
from agentbus.bus.opening import connect_bus
from agentbus.host import DirectoryHost
from agentbus.identity import Identity
from agentbus.transport.zeromq import ZmqTransport
from agentbus.wire.ids import everyone

Figure = Callable[[str, float, str], None]
ASKERS = 8  # one principal may publish about a thousand instances an hour
A_DAY = 0.8  # seconds at least: a key may open four connections a second for ever, and a day opens up to three


class Done(BaseModel):
    n: int


class Ask(Request[Done]):
    n: int


class Count(StreamRequest[Done]):
    upto: int


agent = Agent("worker")


@agent.handler
async def ask(request: Ask, ctx: Context) -> Done:
    return Done(n=request.n)


@agent.handler
async def count(request: Count, ctx: Context) -> AsyncIterator[Done]:
    for n in range(request.upto):
        yield Done(n=n)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[DirectoryHost]:
    running = DirectoryHost(tmp_path / "directory", listen="tcp://127.0.0.1:*", domain="agents.example")
    await running.open()
    yield running
    await running.aclose()


def held() -> dict[str, int]:
    """What a leak would show in."""
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    ours = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]  # a small pool
    return {"descriptors": files, "threads": len(ours), "tasks": len(asyncio.all_tasks())}


def memory() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmRSS:\s*(\d+) kB", status)[0]) / 1024


async def a_day(host: DirectoryHost, identity: Identity, folder: Path, chance: random.Random) -> None:
    """One bus: asks, streams, leaves a stream half-way, is cut off in the middle, and goes."""
    bus: Bus
    folder = folder / identity.id.name
    async with await connect_bus(host.url, identity, listen=None, folder=folder) as bus:
        for n in range(chance.randrange(5, 20)):
            assert (await bus.request("worker", Ask(n=n))).n == n
        async with bus.stream("worker", Count(upto=20)) as items:
            stop = chance.randrange(1, 25)
            async for item in items:
                if item.n == stop:
                    break
        asked = asyncio.ensure_future(bus.request("worker", Ask(n=7)))
        await asyncio.sleep(0)
        transport = bus._node.transport
        assert isinstance(transport, ZmqTransport)
        for connection in list(transport._open):
            if connection.peer != host.core.keys.curve.public:
                connection.drop()
        try:
            assert (await asked).n == 7
        except AgentBusError as error:
            assert error.retryable
        await bus.discover()


async def soak(host: DirectoryHost, folder: Path, seconds: float, figure: Figure) -> None:
    talks: dict[str, Any] = {"may_talk_to": [everyone(host.core.domain)]}
    serving = host.enrol("worker", **talks)
    asking = cycle([host.enrol(f"asker-{n}", **talks) for n in range(ASKERS)])
    chance = random.Random(1)
    async with (
        await connect_bus(host.url, serving, listen="tcp://127.0.0.1:*", folder=folder / "worker") as bus,
        bus.serve(agent),
    ):
        for _ in range(5):
            await a_day(host, next(asking), folder, chance)
        await asyncio.sleep(0.5)
        before, began, weight, days = held(), time.monotonic(), memory(), 0
        while time.monotonic() - began < seconds or days < 5:
            evening = asyncio.get_running_loop().time() + A_DAY
            await a_day(host, next(asking), folder, chance)
            days += 1
            await asyncio.sleep(max(0.0, evening - asyncio.get_running_loop().time()))
        deadline = time.monotonic() + 20
        while held() != before and time.monotonic() < deadline:
            await asyncio.sleep(0.1)  # what the last one left is on its way out
        assert held() == before
        figure(f"after {days} buses that came and went the process grew by", memory() - weight, "MiB")


async def test_five_seconds_leave_nothing_behind(host: DirectoryHost, tmp_path: Path, figure: Figure) -> None:
    await soak(host, tmp_path, 5, figure)


@pytest.mark.campaign
async def test_an_hour_leaves_nothing_behind(host: DirectoryHost, tmp_path: Path, figure: Figure) -> None:
    await soak(host, tmp_path, 3600, figure)
