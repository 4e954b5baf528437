"""Many messages at once, with everything a handler can take: a stub replay of all of them has no difference."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Context, Problem, Request, StreamRequest
from agentbus.testing import Network

from .stage import taped

SEED = 20260101


class Got(BaseModel):
    text: str


class Work(Request[Got]):
    n: int


class Flow(StreamRequest[Got]):
    n: int


class Rate(Request[Got]):
    n: int


class Enough(Problem):
    code = "shop.enough"


CHANCE = random.Random(SEED)


async def outside() -> float:
    for _ in range(CHANCE.randrange(4)):
        await asyncio.sleep(0)
    if CHANCE.random() < 0.1:
        raise ConnectionError("outside is away")
    return CHANCE.random()


async def counting() -> AsyncIterator[int]:
    for _ in range(CHANCE.randrange(5)):
        await asyncio.sleep(0)
        yield CHANCE.randrange(1000)


def worker(changed: int | None = None) -> Agent[Any]:
    agent = Agent("worker", replayable=True)

    @agent.handler(concurrency=16)
    async def work(request: Work, ctx: Context) -> Got:
        calls = [ctx.step("outside", outside, type=float) for _ in range(request.n % 3)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        if request.n % 7 == 3:
            rate = await ctx.request("rates", Rate(n=request.n))
            found.append(rate.text)
        if request.n % 11 == 5:
            raise Enough(f"no more of {request.n} at {ctx.now()}")
        sign = "!" if request.n == changed else ""
        return Got(text=f"{ctx.user} {found} {ctx.now()} {ctx.random().random()}{sign}")

    @agent.handler
    async def flow(request: Flow, ctx: Context) -> AsyncIterator[Got]:
        async for n in ctx.steps("counting", counting, type=int):
            yield Got(text=f"{n} {ctx.random().random()}")

    return agent


def rates() -> Agent[Any]:
    agent = Agent("rates", replayable=True)

    @agent.handler
    async def rate(request: Rate, ctx: Context) -> Got:
        return Got(text=str(ctx.random().random()))

    return agent


def show(count: int, folder: Path) -> None:
    """Work, replay everything, then find one changed line at the message it touches."""
    touched = count // 2 // 77 * 77  # neither refused nor answered by others

    async def business(net: Network) -> None:
        limit = asyncio.Semaphore(32)

        async def one(n: int) -> None:
            async with limit:
                try:
                    if n % 10 == 9:
                        async with alice.stream("worker", Flow(n=n)) as items:
                            async for _ in items:
                                pass
                    else:
                        await alice.request("worker", Work(n=n), delegate=["docs:read"])
                except AgentBusError:
                    pass

        async with net.serve(worker(), rates()):
            alice = net.user("alice", scopes=["docs:read"])
            for start in range(0, count, 500):
                await asyncio.gather(*(one(n) for n in range(start, min(count, start + 500))))
                net.clock.advance(20)

    tape = taped(business, folder)
    report = tape.replay(worker())
    assert report.ok and report.counts["same"] == len(report.results) == count, report.lines()
    if count > 300:  # the log is verified once more each time
        assert tape.replay(rates()).counts["same"] == sum(n % 10 != 9 and n % 7 == 3 for n in range(count))
    changed = tape.replay(worker(touched))
    assert changed.counts["different"] == 1 and changed.counts["same"] == count - 1
    first = changed.first
    assert first is not None and first.divergence is not None and first.divergence.what == "reply"
    assert first.divergence.got is not None and '!"' in first.divergence.got


def test_300_messages_replay_without_a_difference(tmp_path: Path) -> None:
    show(300, tmp_path)


@pytest.mark.campaign
def test_10_000_messages_replay_without_a_difference(tmp_path: Path) -> None:
    show(10_000, tmp_path)
