"""What a handler takes through its context stands on the record: each kind of it, with its outcome and its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, AgentGone, Cancelled, Context, Denied, Problem, ProgrammingError, Request, StreamRequest
from agentbus.crypto.merkle import leaf_hash
from agentbus.errors import LogError
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Outcome, Received, Sent, Step, StepKind
from agentbus.runtime.faults import decode_fault, encode_fault
from agentbus.testing import Network
from agentbus.testing.plugin import net
from agentbus.wire.header import Header, Kind, decode_header
from agentbus.wire.limits import LIMITS

__all__ = ["net"]


class Got(BaseModel):
    text: str = ""


class Do(Request[Got]):
    n: int = 0


class Flow(StreamRequest[Got]):
    pass


class Note(BaseModel):
    text: str = "noted"


class Refused(Problem):
    code = "shop.refused"


def steps(net: Network) -> list[Step]:
    """The STEP entries, without ``require``'s of the directory's own handlers."""
    net._node.recorder.flush()
    return [e for e in map(decode_entry, net._node.recorder.log) if isinstance(e, Step)]


def frames(net: Network, kind: Kind, *, sent: bool) -> list[tuple[Any, Header]]:
    net._node.recorder.flush()
    entries = [e for e in map(decode_entry, net._node.recorder.log) if isinstance(e, Sent if sent else Received)]
    return [(e, h) for e in entries if (h := decode_header(e.header, LIMITS)).kind == kind]


def result(net: Network, step: Step) -> bytes | None:
    return net._node.recorder.log.box(step.result) if step.result is not None else None


async def test_each_result_is_recorded_with_its_name_number_and_what_it_depends_on(net: Network) -> None:
    agent = Agent("worker")

    async def price(of: str) -> int:
        return len(of)

    async def words() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    @agent.handler
    async def do(request: Do, ctx: Context) -> Got:
        first = await ctx.step("price", lambda: price("tea"), type=int, given="tea")
        second = await ctx.step("price", lambda: price("cocoa"), type=int, given="cocoa")
        said = [word async for word in ctx.steps("words", words, type=str)]
        return Got(text=f"{first} {second} {said} {ctx.now():%H:%M} {ctx.random().random():.3f} {ctx.random() is None}")

    async with net.serve(agent):
        text = (await net.request("worker", Do())).text
    assert text.startswith("3 5 ['a', 'b'] 12:00 0.") and text.endswith("False")
    digest = next(leaf_hash(e.header) for e, h in frames(net, Kind.REQUEST, sent=False) if h.action == "Do")
    kept = [(s.step, s.name, s.number, s.outcome) for s in steps(net) if s.digest == digest]
    assert kept == [
        (StepKind.CALL, "price", 1, Outcome.RESULT),
        (StepKind.CALL, "price", 2, Outcome.RESULT),
        (StepKind.ITEM, "words", 1, Outcome.RESULT),
        (StepKind.ITEM, "words", 1, Outcome.RESULT),
        (StepKind.ITEM, "words", 1, Outcome.EXHAUSTED),
        (StepKind.NOW, "now", 1, Outcome.RESULT),
        (StepKind.SEED, "random", 1, Outcome.RESULT),
    ]
    prices = [s for s in steps(net) if s.step == StepKind.CALL]
    assert [result(net, s) for s in prices] == [b"3", b"5"] and prices[0].given != prices[1].given
    reply = next(e for e, h in frames(net, Kind.REPLY, sent=True) if h.in_reply_to == digest)
    assert all(s.position < reply.position for s in steps(net) if s.digest == digest)


async def test_what_failed_is_recorded_as_it_failed(net: Network) -> None:
    agent = Agent("worker")
    gate = asyncio.Event()

    async def broken() -> int:
        raise TimeoutError("no answer from the shop")

    async def refused() -> int:
        raise Refused("sold out", left=0)

    async def forever() -> int:
        await gate.wait()
        return 1

    @agent.handler
    async def do(request: Do, ctx: Context) -> Got:
        for call in (broken, refused):
            with suppress(TimeoutError, Refused):
                await ctx.step("buy", call, type=int)
        for scope in ("docs:read", "docs:write"):
            with suppress(Denied):
                ctx.require(scope)
        await ctx.step("wait", forever, type=int)
        return Got()

    async with net.serve(agent):
        alice = net.user("alice", scopes=["docs:read"])
        asking = asyncio.create_task(alice.request("worker", Do()))
        await net.settle()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await net.settle()
    kept = [(s.step, s.name, s.outcome) for s in steps(net)]
    assert kept == [
        (StepKind.CALL, "buy", Outcome.ERROR),
        (StepKind.CALL, "buy", Outcome.ERROR),
        (StepKind.REQUIRE, "docs:read", Outcome.RESULT),
        (StepKind.REQUIRE, "docs:write", Outcome.ERROR),
        (StepKind.CALL, "wait", Outcome.CANCELLED),
        (StepKind.END, "cancelled", Outcome.CANCELLED),
    ]
    faults = [decode_fault(result(net, s) or b"") for s in steps(net) if s.outcome == Outcome.ERROR]
    assert isinstance(faults[0], TimeoutError) and str(faults[0]) == "no answer from the shop"
    assert isinstance(faults[1], Refused) and faults[1].details == {"left": 0}
    assert isinstance(faults[2], Denied)


async def test_messages_of_a_handler_name_it_as_their_cause_and_their_failures_are_recorded(net: Network) -> None:
    agent, other = Agent("worker"), Agent("other")
    gate = asyncio.Event()

    @other.handler
    async def hold(request: Do, ctx: Context) -> Got:
        if request.n:
            await gate.wait()
        return Got(text="held")

    @agent.handler
    async def flow(request: Flow, ctx: Context) -> AsyncIterator[Got]:
        yield await ctx.bus.request("other", Do())
        for name, n in (("nobody", 0), ("other", 1)):
            try:
                await ctx.bus.request(name, Do(n=n), timeout=5)
            except Exception as error:
                yield Got(text=type(error).__name__)
        held = await ctx.bus.delegate("other", [])
        yield Got(text=held.id)

    async with net.serve(agent, other), net.stream("worker", Flow()) as items:
        got = [(await anext(items)).text, (await anext(items)).text]
        await net.settle()
        net.clock.advance(6)
        got += [item.text async for item in items]
    assert got[:3] == ["held", "AgentNotFound", "DeadlineExceeded"]
    digest = next(leaf_hash(e.header) for e, h in frames(net, Kind.STREAM, sent=False))
    asked = [(e, h) for e, h in frames(net, Kind.REQUEST, sent=True) if h.cause == digest]
    stream = next(h for _, h in frames(net, Kind.STREAM, sent=False))
    assert len(asked) == 2 and {h.conversation for _, h in asked} == {stream.conversation}
    kept = {s.step: s for s in steps(net) if s.digest == digest}
    assert set(kept) == {StepKind.UNASKED, StepKind.LOST, StepKind.DELEGATE}
    assert kept[StepKind.LOST].given == leaf_hash(asked[1][0].header)


async def test_the_order_of_starts_is_the_order_of_arrival_unless_the_record_says_otherwise(net: Network) -> None:
    agent, gates, order = Agent("worker"), [asyncio.Event() for _ in range(3)], []

    @agent.handler(concurrency=1)
    async def do(request: Do, ctx: Context) -> Got:
        order.append(request.n)
        await gates[request.n].wait()
        return Got()

    async with net.serve(agent):
        asking = [asyncio.create_task(net.request("worker", Do(n=n))) for n in range(3)]
        for gate in gates:
            await net.settle()
            gate.set()
        await asyncio.gather(*asking)
    arrived = [leaf_hash(e.header) for e, h in frames(net, Kind.REQUEST, sent=False) if h.action == "Do"]
    started = [s.digest for s in steps(net) if s.step == StepKind.START]
    assert order == [0, 1, 2] and started == arrived[1:]  # the first did not wait


@pytest.mark.parametrize(("ack", "ends"), [("handled", []), ("delivered", ["returned"]), ("sent", ["returned"])])
async def test_an_end_that_no_frame_tells_is_recorded(net: Network, ack: Any, ends: list[str]) -> None:
    agent = Agent("worker")

    @agent.handler
    async def note(request: Note, ctx: Context) -> None:
        await asyncio.sleep(0)

    async with net.serve(agent):
        await net.send("worker", Note(), ack=ack)
        await net.settle()
    assert [s.name for s in steps(net) if s.step == StepKind.END] == ends


async def test_a_step_that_cannot_be_recorded_fails(net: Network) -> None:
    agent, codes = Agent("worker"), []

    async def one() -> Any:
        return object()

    @agent.handler
    async def do(request: Do, ctx: Context) -> Got:
        for name, given in (("", None), ("x" * 129, None), ("good", None), ("good", object())):
            try:
                await ctx.step(name, one, type=int, given=given)
            except ProgrammingError as error:
                codes.append(error.code)
        return Got()

    async with net.serve(agent):
        await net.request("worker", Do())
    assert codes == ["usage.step"] * 4


async def test_what_was_called_is_recorded_though_its_result_fits_no_type(net: Network) -> None:
    """A replay takes it from the record, as a failure, and does not come to a step that is not there."""
    agent = Agent("worker")

    async def one() -> Any:
        return "no number"

    async def many() -> AsyncIterator[Any]:
        yield 1
        yield "no number"

    @agent.handler
    async def do(request: Do, ctx: Context) -> Got:
        with suppress(ProgrammingError):
            await ctx.step("one", one, type=int)
        with suppress(ProgrammingError):
            async for _ in ctx.steps("many", many, type=int):
                pass
        return Got()

    async with net.serve(agent):
        await net.request("worker", Do())
    kept = [(s.step, s.name, s.outcome) for s in steps(net) if s.name in ("one", "many")]
    assert kept == [
        (StepKind.CALL, "one", Outcome.ERROR),
        (StepKind.ITEM, "many", Outcome.RESULT),
        (StepKind.ITEM, "many", Outcome.ERROR),
    ]
    codes = [decode_fault(result(net, s) or b"").code for s in steps(net) if s.outcome == Outcome.ERROR]  # type: ignore[attr-defined]
    assert codes == ["usage.step"] * 2


async def test_what_a_handler_leaves_early_is_ended(net: Network) -> None:
    agent, ended = Agent("worker"), asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            for n in range(10):
                yield n
        finally:
            ended.set()

    held = numbers()  # no garbage while the test runs, so nothing but an explicit end ends it

    @agent.handler
    async def do(request: Do, ctx: Context) -> Got:
        async for _ in ctx.steps("numbers", lambda: held, type=int):
            break
        await ended.wait()
        return Got(text="ended")

    async with net.serve(agent):
        async with asyncio.timeout(5):
            assert (await net.request("worker", Do())).text == "ended"


async def test_a_log_that_fails_under_a_step_is_told_and_not_raised_into_the_loop(net: Network) -> None:
    agent, stray = Agent("worker"), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: stray.append(context))

    async def one() -> int:
        return 1

    def full(entries: Any) -> None:
        raise LogError("log.write", "no space left")

    @agent.handler
    async def do(request: Do, ctx: Context) -> Got:
        net._node.recorder.log.append = full  # type: ignore[method-assign]
        await ctx.step("one", one, type=int)
        await asyncio.Event().wait()
        return Got()

    async with net.serve(agent):
        with pytest.raises(LogError) as caught:
            await net.request("worker", Do())
    assert caught.value.code == "log.write"
    assert stray == []


def test_an_error_is_read_back_as_the_class_that_is_loaded_and_never_imported() -> None:
    class Local(Exception):
        def __init__(self) -> None:
            raise AssertionError("a constructor ran because of a log")

    made = Local.__new__(Local)
    made.args = ("why",)
    assert type(decode_fault(encode_fault(made))) is Local
    unknown = decode_fault(b'{"class":"os.path.Evil","text":"x"}')
    assert type(unknown) is RuntimeError and "os.path.Evil" in str(unknown)
    assert isinstance(decode_fault(encode_fault(AgentGone("agent.gone", "died"))), AgentGone)
    assert isinstance(decode_fault(encode_fault(Cancelled("cancelled", "by the caller"))), Cancelled)
    assert isinstance(decode_fault(encode_fault(KeyError("k"))), KeyError)


def test_the_test_networks_clock_is_the_one_that_is_recorded(net: Network) -> None:
    assert datetime.fromtimestamp(net.clock.now() / 1e6, UTC).hour == 12
