"""Serving: registration, lifespans, limits, draining, and what a network for tests can do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import (
    Agent,
    AgentGone,
    Caller,
    Cancelled,
    Context,
    DeadlineExceeded,
    ProgrammingError,
    Request,
    StreamRequest,
    current_context,
)
from agentbus.testing import ManualClock


class Got(BaseModel):
    text: str = ""


class Note(BaseModel):
    text: str


class Do(Request[Got]):
    pass


class Gate(Request[Got]):
    pass


class Flow(StreamRequest[Got]):
    pass


def gated(name: str = "gate", **options: Any) -> tuple[Agent[Any], asyncio.Event, list[int]]:
    """An agent whose handler waits for an event, and how many of it run."""
    agent, gate, running = Agent(name), asyncio.Event(), [0, 0]

    @agent.handler(**options)
    async def wait(request: Gate, ctx: Context) -> Got:
        running[0] += 1
        running[1] = max(running)
        try:
            await gate.wait()
        finally:
            running[0] -= 1
        return Got(text="done")

    return agent, gate, running


async def test_a_lifespan_surrounds_serving_and_handlers_see_its_state(town: Any) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(bus: Caller) -> AsyncIterator[dict[str, str]]:
        events.append("in")
        yield {"greeting": "hello"}
        events.append("out")

    agent: Agent[dict[str, str]] = Agent("greeter", lifespan=lifespan)

    @agent.handler
    async def do(request: Do, ctx: Context[dict[str, str]]) -> Got:
        events.append("handled")
        return Got(text=ctx.state["greeting"])

    async with town.serve(agent):
        assert (await (await town.user("alice", [])).request("greeter", Do())).text == "hello"
    assert events == ["in", "handled", "out"]


async def test_a_lifespan_that_fails_leaves_nothing_behind(net: Any) -> None:
    @asynccontextmanager
    async def broken(bus: Caller) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    agent = Agent("greeter", lifespan=broken)
    before = len(net._node.voices)
    for _ in range(2):  # and not "served twice" the second time
        with pytest.raises(RuntimeError):
            async with net.serve(agent):
                pass
    assert len(net._node.voices) == before
    with pytest.raises(AgentGone):
        await net.user("alice", scopes=[]).request("greeter", Do())


async def test_only_so_many_run_at_once_and_the_others_wait_within_their_deadlines(town: Any) -> None:
    agent, gate, running = gated(concurrency=2)
    async with town.serve(agent):
        alice = await town.user("alice", [])
        asking = [asyncio.ensure_future(alice.request("gate", Gate(), timeout=30)) for _ in range(4)]
        late = asyncio.ensure_future(alice.request("gate", Gate(), timeout=5))
        await town.until(lambda: running[0] == 2)
        town.clock.advance(6)
        with pytest.raises(DeadlineExceeded):
            await late
        gate.set()
        assert [one.text for one in await asyncio.gather(*asking)] == ["done"] * 4
        assert running == [0, 2]


async def test_the_context_of_code_that_a_handler_calls(net: Any) -> None:
    agent = Agent("deep")

    def tool() -> str:
        return current_context().sender.short

    @agent.handler
    async def do(request: Do, ctx: Context) -> Got:
        assert current_context() is ctx
        return Got(text=await asyncio.create_task(asyncio.to_thread(tool)))

    async with net.serve(agent):
        assert (await net.user("alice", scopes=[]).request("deep", Do())).text == "user/alice"
    with pytest.raises(ProgrammingError) as caught:
        current_context()
    assert caught.value.code == "usage.no_context"


async def test_two_handlers_of_one_type(net: Any) -> None:
    agent, _, _ = gated()
    with pytest.raises(ProgrammingError) as caught:

        @agent.handler
        async def again(request: Gate, ctx: Context) -> Got:
            return Got()

    assert caught.value.code == "usage.handler_twice"


def _wrong() -> list[Any]:
    async def returns(request: Do, ctx: Context) -> str:
        return ""

    async def nothing(request: Do, ctx: Context) -> None:
        return None

    async def no_message(request: str, ctx: Context) -> None:
        return None

    async def no_context(request: Do) -> Got:
        return Got()

    def plain(request: Do, ctx: Context) -> Got:
        return Got()

    async def yields(request: Do, ctx: Context) -> AsyncIterator[Got]:
        yield Got()

    async def returns_stream(request: Flow, ctx: Context) -> Got:
        return Got()

    async def other_items(request: Flow, ctx: Context) -> AsyncIterator[str]:
        yield ""

    return [returns, nothing, no_message, no_context, plain, yields, returns_stream, other_items]


@pytest.mark.parametrize("function", _wrong(), ids=lambda f: f.__name__)
def test_a_handler_whose_annotations_do_not_fit(function: Any) -> None:
    with pytest.raises(ProgrammingError) as caught:
        Agent("wrong").handler(function)
    assert caught.value.code == "usage.handler"


def test_scopes_are_a_list() -> None:
    with pytest.raises(ProgrammingError) as caught:
        Agent("wrong").handler(scopes="docs:read")
    assert caught.value.code == "usage.scope"


async def test_an_agent_is_served_once(net: Any) -> None:
    agent, _, _ = gated()
    async with net.serve(agent):
        with pytest.raises(ProgrammingError) as caught:
            async with net.serve(agent):
                pass
        assert caught.value.code == "usage.served_twice"
    async with net.serve(agent):  # and again, one after the other
        pass


async def test_leaving_cancels_what_runs_and_says_so(town: Any) -> None:
    agent, _, running = gated()
    async with town.serve(agent):
        alice = await town.user("alice", [])
        asking = asyncio.ensure_future(alice.request("gate", Gate()))
        await town.until(lambda: running[0] == 1)
    with pytest.raises(Cancelled) as caught:
        await asking
    assert caught.value.code == "cancelled" and caught.value.retryable
    assert running[0] == 0


async def test_draining_finishes_what_runs_and_takes_nothing_new(net: Any) -> None:
    agent, gate, running = gated()
    alice = net.user("alice", scopes=[])
    serving = net._serve([agent], drain=30)
    await serving.__aenter__()
    asking = asyncio.ensure_future(alice.request("gate", Gate()))
    await net.settle()
    assert running[0] == 1
    leaving = asyncio.ensure_future(serving.__aexit__(None, None, None))
    await net.settle()
    with pytest.raises(Cancelled) as caught:  # not handler.missing: another instance has one
        await alice.request("gate", Gate())
    assert caught.value.code == "cancelled" and caught.value.retryable
    assert not leaving.done()
    gate.set()
    assert (await asking).text == "done"
    await leaving
    with pytest.raises(AgentGone):
        await alice.request("gate", Gate())


async def test_a_cancelled_task_that_never_began_is_answered(net: Any) -> None:
    """The block is left in the very tick the request came in: its task is cancelled before its first step."""
    agent, _, running = gated()
    alice = net.user("alice", scopes=[])
    async with net.serve(agent):
        service = next(s for s in net._services if s.agent is agent)
        asking = asyncio.ensure_future(alice.request("gate", Gate()))
        while not service._running:
            await asyncio.sleep(0)
    with pytest.raises(Cancelled):
        await asking
    assert running == [0, 0]
    assert service._running == {}


async def test_an_instance_that_leaves_while_it_renews_stays_gone(net: Any) -> None:
    agent, _, _ = gated()
    async with net.serve(agent):
        voice = next(v for v in net._node.voices if v.identity.id.name == "gate")
        renewing = asyncio.ensure_future(net._node.voices.renew(voice))
    await renewing
    assert net._node.finder.running(voice.identity.id) == []


async def test_closing_twice_is_harmless(net: Any) -> None:
    await net.aclose()
    await net.aclose()


def test_time_goes_forward() -> None:
    clock, told = ManualClock(), []
    clock.watch(lambda: told.append(clock.now()))
    start = clock.now()
    clock.advance(1.5)
    assert told == [start + 1_500_000] and clock.mono() == 1_500_000
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)


async def test_evidence_of_a_network_verifies(net: Any) -> None:
    """What the tests did can be audited: refusals and all."""
    agent, gate, _ = gated()
    gate.set()
    async with net.serve(agent):
        await net.user("alice", scopes=[]).request("gate", Gate())
        await net.attacker.replay(net.attacker.capture("Gate", kind=1))
        await net.attacker.deliver(net.attacker.forge("gate", Gate(), action="Nothing"))
        evidence = net.evidence("gate")
        report = evidence.verify()
        assert "AUTHENTIC=yes" in repr(report) and "INTACT=yes" in repr(report)
        codes = [m.code for m in evidence.messages(agent="gate") if m.accepted is not None]
        assert codes.count("handler.missing") == 1 and "ok" in codes
    with pytest.raises(ProgrammingError) as caught:
        net.evidence("nobody")
    assert caught.value.code == "usage.evidence"


async def test_two_networks_are_the_same_network() -> None:
    """Keys and ids come from a fixed seed, so a failure can be repeated."""
    from agentbus.testing import Network

    async with Network.open() as one, Network.open() as two:
        assert one._core.trust.root == two._core.trust.root
        assert one.attacker.voice.key.id == two.attacker.voice.key.id


@pytest.mark.parametrize("ack", ["sent", "delivered"])
async def test_a_send_handler_that_nobody_waits_for_has_a_deadline_all_the_same(town: Any, ack: Any) -> None:
    """Its sender was told "delivered" and went on; the handler is stopped when the message's time is over."""
    agent, ended = Agent("slow"), asyncio.Event()
    began = asyncio.Event()

    @agent.handler
    async def note(request: Note, ctx: Context) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with town.serve(agent):
        alice = await town.user("alice", [])
        await alice.send("slow", Note(text="x"), ack=ack, timeout=5)
        await began.wait()
        town.clock.advance(4)
        await asyncio.sleep(0)
        assert not ended.is_set()
        town.clock.advance(2)
        async with asyncio.timeout(10):
            await ended.wait()
        assert all(len(node.alarms) == 0 for node in town.nodes)
