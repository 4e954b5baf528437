"""Closing: in any order, in the middle of anything, and when a part of it fails, nothing is left open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, Bus, Context, Request
from agentbus.errors import LogError
from agentbus.runtime.caller import Caller


class Said(BaseModel):
    text: str


class Say(Request[Said]):
    text: str


class Left(Exception):
    """What a lifespan failed with."""


def parrot(name: str, left: list[str] | None = None, *, fails: bool = False) -> Agent[Any]:
    @asynccontextmanager
    async def lifespan(caller: Caller) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if left is not None:
                left.append(name)
            if fails:
                raise Left(name)

    agent = Agent(name, lifespan=lifespan)

    @agent.handler
    async def say(request: Say, ctx: Context) -> Said:
        if request.text == "wait":
            await asyncio.Event().wait()
        return Said(text=request.text)

    return agent


def watch_log(bus: Bus) -> list[str]:
    """Filled once the bus's log is closed."""
    log, closed = bus._node.recorder.log, []
    close = log.close

    def noted() -> None:
        close()
        closed.append("log")

    log.close = noted  # type: ignore[method-assign]
    return closed


async def test_a_bus_is_closed_in_the_middle_of_serving() -> None:
    left: list[str] = []
    bus = await Bus.local()
    async with bus.serve(parrot("one", left), parrot("two", left)):
        await bus.aclose()
    assert left == ["two", "one"]
    assert bus._services == []


@pytest.mark.parametrize("close", [False, True])
async def test_a_lifespan_that_fails_keeps_nothing_else_open(close: bool) -> None:
    left: list[str] = []
    bus = await Bus.local()
    closed = watch_log(bus)
    with pytest.raises(Left):
        async with bus.serve(parrot("one", left), parrot("two", left, fails=True), parrot("three", left)):
            if close:
                await bus.aclose()
    assert left == ["three", "two", "one"]
    assert not [s for s in bus._services if s.agent.name in left]
    await bus.aclose()
    assert closed == ["log"]


async def test_a_log_that_takes_no_last_entry_is_let_go_of() -> None:
    bus = await Bus.local()
    closed, node = watch_log(bus), bus._node

    def full(now: int) -> None:
        raise LogError("log.write", "no space left")

    node.recorder.closed = full  # type: ignore[method-assign]
    with pytest.raises(LogError) as caught:
        await bus.aclose()
    assert caught.value.code == "log.write"
    assert closed == ["log"]


async def test_a_closing_that_is_cancelled_closes_all_the_same() -> None:
    left: list[str] = []
    bus = await Bus.local()
    closed = watch_log(bus)
    serving = bus.serve(parrot("one", left))
    await serving.__aenter__()
    asking = asyncio.ensure_future(bus.request("one", Say(text="wait")))
    service = next(s for s in bus._services if s.agent.name == "one")
    while not service._running:
        await asyncio.sleep(0)
    closing = asyncio.ensure_future(bus.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert left == ["one"]
    assert closed == ["log"]
    await asyncio.gather(asking, return_exceptions=True)
    await serving.__aexit__(None, None, None)


async def test_a_drain_that_is_cancelled_leaves_the_lifespan() -> None:
    left: list[str] = []
    async with Bus.local() as bus:
        serving = bus._serve([parrot("one", left)], drain=60.0)
        await serving.__aenter__()
        asking = asyncio.ensure_future(bus.request("one", Say(text="wait")))
        service = next(s for s in bus._services if s.agent.name == "one")
        while not service._running:
            await asyncio.sleep(0)
        stopping = asyncio.ensure_future(serving.__aexit__(None, None, None))
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert left == ["one"]
        assert service._running == {}
        await asyncio.gather(asking, return_exceptions=True)
