"""Stub replay: recorded results in, the same bytes out; and the first place where another version leaves the record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Context, Denied, Problem, Request, StreamRequest
from agentbus.testing import Network

from .stage import Taped, taped


class Got(BaseModel):
    text: str = ""


class Quote(Request[Got]):
    of: str


class Rate(Request[Got]):
    of: str


class Flow(StreamRequest[Got]):
    n: int = 3


class Note(BaseModel):
    text: str


class SoldOut(Problem):
    code = "shop.sold_out"


CALLS: list[str] = []


async def fetch(of: str) -> int:
    """What a replay must never do."""
    CALLS.append(of)
    return len(of) + len(CALLS)


async def ticks() -> AsyncIterator[int]:
    CALLS.append("ticks")
    for n in range(3):
        yield n + len(CALLS)


def rates() -> Agent[Any]:
    agent = Agent("rates", replayable=True)

    @agent.handler
    async def rate(request: Rate, ctx: Context) -> Got:
        return Got(text=f"{request.of} at {ctx.random().random()}")

    return agent


def shop(**changed: Any) -> Agent[Any]:
    """An agent whose every answer depends on something that no message says."""
    agent = Agent("shop", replayable=True)

    @agent.handler
    async def quote(request: Quote, ctx: Context) -> Got:
        if request.of == "gold":
            raise SoldOut("no more", until="tomorrow")
        if request.of == "lead":
            raise ValueError("not for sale")
        price = await ctx.step("fetch", lambda: fetch(request.of), type=int, given=changed.get("given", request.of))
        if request.of == changed.get("skips"):
            return Got(text="skipped")
        rate = await ctx.bus.request("rates", Rate(of=changed.get("asks", "") + request.of))
        try:
            ctx.require("shop:buy")
            may = "may buy"
        except Denied as error:
            may = error.code
        text = f"{ctx.user} {price} {rate.text} {may} {ctx.now()} {ctx.random().randint(0, 10**9)} {ctx.message_id}"
        return Got(text=changed.get("prefix", {}).get(request.of, "") + f"{text} {ctx.conversation} {ctx.deadline}")

    @agent.handler
    async def flow(request: Flow, ctx: Context) -> AsyncIterator[Got]:
        async for n in ctx.steps("ticks", ticks, type=int):
            yield Got(text=f"{n} {ctx.random().random()}")
            await asyncio.sleep(30)
        yield Got(text=changed.get("last", "end"))

    @agent.handler
    async def note(request: Note, ctx: Context) -> None:
        await ctx.step("keep", lambda: fetch(request.text), type=int)

    return agent


async def business(net: Network) -> None:
    async with net.serve(shop(), rates()):
        alice = net.user("alice", scopes=["shop:buy"])
        for of in ("tea", "cocoa", "gold", "lead", "milk"):
            with suppress(AgentBusError):
                await alice.request("shop", Quote(of=of))
            net.clock.advance(1)
        await alice.send("shop", Note(text="x"), ack="handled")
        await alice.send("shop", Note(text="y"), ack="delivered")
        await net.settle()


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Taped:
    return taped(business, tmp_path_factory.mktemp("tape"))


def test_every_message_gives_the_same_bytes_and_nothing_is_called(tape: Taped) -> None:
    before = list(CALLS)
    report = tape.replay(shop())
    assert [r.status for r in report.results] == ["same"] * 7, report.lines()
    assert report.ok and report.first is None and report.egress == "guard"
    assert before == CALLS
    assert tape.replay(rates()).counts["same"] == 3


def test_a_changed_line_is_found_at_the_first_message_it_touches(tape: Taped) -> None:
    report = tape.replay(shop(prefix={"cocoa": "!"}))
    assert [r.status for r in report.results] == ["same", "different", *["same"] * 5] and not report.ok
    first = report.first
    assert first is not None and first.divergence is not None and first.position == report.results[1].position
    assert first.divergence.what == "reply"
    assert first.divergence.expected and first.divergence.expected.startswith('{"text":"spiffe:')
    assert first.divergence.got and first.divergence.got.startswith('{"text":"!spiffe:')


@pytest.mark.parametrize(
    ("changed", "statuses", "what", "expected", "got"),
    [
        ({"asks": "?"}, ["different"] * 2, "request Rate to rates", '{"of":"tea"}', '{"of":"?tea"}'),
        ({"skips": "tea"}, ["missing", "same"], "request Rate to rates", "that it is asked for", None),
        ({"given": "a"}, ["different"] * 2, "step 'fetch' (1), what it is given", "a value of digest", '"a"'),
    ],
)
def test_what_a_handler_asks_for_is_compared_as_well(
    tape: Taped, changed: dict[str, Any], statuses: list[str], what: str, expected: str, got: str | None
) -> None:
    report = tape.replay(shop(**changed))
    assert [r.status for r in report.results[:2]] == statuses
    found = report.results[0].divergence
    assert found is not None and found.what == what and (found.expected or "").startswith(expected) and found.got == got


def test_a_step_that_is_not_on_the_record_is_not_called(tape: Taped) -> None:
    agent, before = Agent("shop", replayable=True), list(CALLS)

    @agent.handler
    async def quote(request: Quote, ctx: Context) -> Got:
        try:
            await ctx.step("other", lambda: fetch("x"), type=int)
        except Exception:  # whoever swallows everything does not swallow this
            return Got(text="went on")
        return Got()

    report = tape.replay(agent)
    assert [r.status for r in report.results[:5]] == ["extra"] * 5 and before == CALLS
    assert report.results[0].divergence is not None and report.results[0].divergence.what == "step 'other'"
    assert [r.status for r in report.results[5:]] == ["different"] * 2  # it has no handler for them any more


async def flows(net: Network) -> None:
    """A stream that ends, one that its caller leaves, one that its deadline ends, one that is revoked meanwhile."""
    gate = asyncio.Event()
    agent = Agent("shop", replayable=True)

    @agent.handler
    async def flow(request: Flow, ctx: Context) -> AsyncIterator[Got]:
        for n in range(request.n):
            yield Got(text=f"{n} {ctx.random().random()}")
        if request.n < 3:
            await ctx.step("wait", gate.wait, type=bool)
        yield Got(text="end")

    async with net.serve(agent):
        async with net.stream("shop", Flow(n=3)) as items:
            assert len([item async for item in items]) == 4
        async with net.stream("shop", Flow(n=10_000)) as items:
            for _ in range(100):
                await anext(items)
        await net.settle()
        async with net.stream("shop", Flow(n=1), timeout=5) as items:
            await anext(items)
            net.clock.advance(6)
            await net.settle()
        bob = net.user("bob", scopes=[])
        async with bob.stream("shop", Flow(n=2)) as items:
            await anext(items)
            await net.settle()
            await bob.revoke(bob.authority, reason="test")
            await net.settle()


def flow_agent(last: str = "end") -> Agent[Any]:
    agent = Agent("shop", replayable=True)

    @agent.handler
    async def flow(request: Flow, ctx: Context) -> AsyncIterator[Got]:
        for n in range(request.n):
            yield Got(text=f"{n} {ctx.random().random()}")
        if request.n < 3:
            await ctx.step("wait", asyncio.Event().wait, type=bool)
        yield Got(text=last)

    return agent


def test_streams_are_compared_item_by_item_up_to_where_they_were_stopped(tmp_path: Path) -> None:
    tape = taped(flows, tmp_path)
    report = tape.replay(flow_agent())
    assert [r.status for r in report.results] == ["same"] * 4, report.lines()
    changed = tape.replay(flow_agent("END"))
    assert [r.status for r in changed.results] == ["different", "same", "same", "same"]
    assert changed.results[0].divergence is not None and changed.results[0].divergence.what == "item 3"


async def together(net: Network) -> None:
    """Two handlers at the same time, then one alone."""
    agent, gate = counter(), asyncio.Event()
    GATES.append(gate)
    async with net.serve(agent):
        asking = [asyncio.create_task(net.request("shop", Quote(of=of))) for of in ("a", "b")]
        await net.settle()
        gate.set()
        await asyncio.gather(*asking)
        await net.request("shop", Quote(of="c"))


GATES: list[asyncio.Event] = []


def counter(**options: Any) -> Agent[Any]:
    """Keeps state that no context knows of."""
    agent, count = Agent("shop", **options), [0]

    @agent.handler
    async def quote(request: Quote, ctx: Context) -> Got:
        count[0] += 1
        await ctx.step("gate", GATES[0].wait, type=bool)
        return Got(text=f"{request.of}{count[0]}")

    return agent


def test_overlapping_handlers_are_never_the_same_unless_the_agent_says_that_it_keeps_no_state(tmp_path: Path) -> None:
    tape = taped(together, tmp_path)
    report = tape.replay(counter())
    assert [r.status for r in report.results] == ["not replayable", "not replayable", "same"]
    assert "overlapped" in report.results[0].reason and report.ok
    lying = tape.replay(counter(replayable=True))
    assert [r.status for r in lying.results] == ["different", "same", "same"]  # a2 was said, a1 comes: found out


async def racing(net: Network) -> None:
    """Answers in another order than questions; a timer that won, one that lost; a message that failed."""
    slow, fast = asyncio.Event(), asyncio.Event()
    agent, other = racer(), Agent("rates")

    @other.handler
    async def rate(request: Rate, ctx: Context) -> Got:
        await {"slow": slow, "fast": fast}.get(request.of, asyncio.Event()).wait()
        return Got(text=request.of)

    async with net.serve(agent, other):
        asking = asyncio.create_task(net.request("shop", Quote(of="race"), timeout=500))
        await net.settle()
        fast.set()
        await net.settle()
        slow.set()
        while not asking.done():
            await net.settle()
            await asyncio.sleep(0.01)
        assert (await asking).text == "['fast', 'slow'] AgentNotFound timer"


def racer() -> Agent[Any]:
    agent = Agent("shop", replayable=True)

    @agent.handler
    async def quote(request: Quote, ctx: Context) -> Got:
        order = []

        async def ask(of: str) -> None:
            order.append((await ctx.bus.request("rates", Rate(of=of), timeout=60)).text)

        await asyncio.gather(ask("slow"), ask("fast"))
        try:
            await ctx.bus.request("nobody", Rate(of="x"))
            failed = ""
        except AgentBusError as error:
            failed = type(error).__name__
        try:
            async with asyncio.timeout(0.2):
                await ask("never")
            won = "answer"
        except TimeoutError:
            won = "timer"
        return Got(text=f"{order} {failed} {won}")

    return agent


def test_answers_come_in_the_recorded_order_and_timers_win_where_they_won(tmp_path: Path) -> None:
    report = taped(racing, tmp_path).replay(racer())
    assert [r.status for r in report.results] == ["same"], report.lines()


def test_nobody_waits_for_a_handlers_sleeps(tmp_path: Path) -> None:
    """A replay of an hour's sleep that took an hour would hang this test."""
    agent, slept = Agent("shop", replayable=True), [False]

    @agent.handler
    async def quote(request: Quote, ctx: Context) -> Got:
        if slept[0]:
            await asyncio.sleep(300)
            assert await asyncio.to_thread(lambda: 7) == 7
        return Got(text="rested")

    async def rest(net: Network) -> None:
        async with net.serve(agent):
            await net.request("shop", Quote(of="x"))

    tape = taped(rest, tmp_path)
    slept[0] = True
    assert tape.replay(agent).ok


def test_a_handler_that_waits_for_what_is_not_recorded_ends_at_its_deadline(tmp_path: Path) -> None:
    agent, waits = Agent("shop", replayable=True), [False]

    @agent.handler
    async def quote(request: Quote, ctx: Context) -> Got:
        if waits[0]:
            await asyncio.Event().wait()
        return Got(text="done")

    async def ask(net: Network) -> None:
        async with net.serve(agent):
            await net.request("shop", Quote(of="x"))

    tape = taped(ask, tmp_path)
    waits[0] = True
    report = tape.replay(agent)
    assert [r.status for r in report.results] == ["missing"]
