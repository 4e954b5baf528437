"""Who may do what on whose behalf, and what happens to work under way when that ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import (
    Agent,
    AgentBusError,
    AtMost,
    Authority,
    Context,
    Denied,
    Rejected,
    Request,
    Scope,
    StreamRequest,
    Unavailable,
)
from agentbus.delegation.statements import directory_id
from agentbus.runtime.caller import Session
from agentbus.testing import Network


class Done(BaseModel):
    by: str = ""
    user: str | None = None
    scopes: list[str] = []


class Work(Request[Done]):
    cents: int = 0


class Plan(Request[Done]):
    cents: int = 0


class Personal(Request[Done]):
    pass


class Wait(Request[Done]):
    pass


class Ticks(StreamRequest[Done]):
    pass


class Alone(Request[Done]):
    pass


class Office:
    """A worker whose work needs ``work``, and a planner that asks it with what it was handed."""

    def __init__(self) -> None:
        self.worker, self.planner = Agent("worker", description="Works"), Agent("planner")
        self.waiting, self.ticking, self.stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.held: Authority
        self.agents = (self.worker, self.planner)

        @self.worker.handler(scopes=["work"])
        async def work(request: Work, ctx: Context) -> Done:
            return Done(by=ctx.sender.short, user=ctx.user.short if ctx.user else None, scopes=list(ctx.caller.scopes))

        @self.worker.handler(requires_user=True)
        async def personal(request: Personal, ctx: Context) -> Done:
            ctx.require("pay:send", amount=150)
            return Done()

        @self.worker.handler
        async def wait(request: Wait, ctx: Context) -> Done:
            self.waiting.set()
            await asyncio.Event().wait()
            return Done()

        @self.worker.handler
        async def ticks(request: Ticks, ctx: Context) -> AsyncIterator[Done]:
            try:
                yield Done()
                self.ticking.set()
                await asyncio.Event().wait()
            finally:
                self.stopped.set()

        @self.planner.handler
        async def plan(request: Plan, ctx: Context) -> Done:
            self.held = ctx.authority
            return await ctx.request("worker", Work(cents=request.cents))

        @self.planner.handler
        async def alone(request: Alone, ctx: Context) -> Done:
            return await ctx.bus.request("worker", Work())


async def test_what_is_handed_over_is_used_on_her_behalf(town: Any) -> None:
    office = Office()
    async with town.serve(*office.agents):
        alice = await town.user("alice", ["work", "docs:read"])
        done = await alice.request("planner", Plan(), delegate=["work"])
        assert done == Done(by="planner", user="user/alice", scopes=["work"])
        assert office.held.subject.short == "user/alice" and office.held.holder.short == "planner"


async def test_nothing_flows_on_by_itself(town: Any) -> None:
    office = Office()
    async with town.serve(*office.agents):
        alice = await town.user("alice", ["work"])
        with pytest.raises(Denied) as caught:
            await alice.request("planner", Plan())
        assert caught.value.code == "denied.nothing_handed_over"
        assert "delegate=" in caught.value.message and "ctx.bus" in caught.value.message


async def test_an_agent_speaks_for_itself_by_saying_so(town: Any) -> None:
    office = Office()
    async with town.serve(*office.agents):
        alice = await town.user("alice", [])
        done = await alice.request("planner", Alone())
        assert (done.by, done.user) == ("planner", None)


async def test_a_scope_that_is_not_granted(town: Any) -> None:
    office = Office()
    async with town.serve(*office.agents):
        alice = await town.user("alice", ["docs:read"])
        with pytest.raises(Denied) as caught:
            await alice.request("worker", Work())
        assert caught.value.code == "denied.scope"
        assert caught.value.details["scope"] == "work"
        with pytest.raises(Denied) as caught:
            await alice.request("planner", Plan(), delegate=["work"])
        assert caught.value.code == "denied.not_held"


async def test_caveats_are_judged_by_the_handler(net: Any) -> None:
    office = Office()
    async with net.serve(*office.agents):
        rich = net.user("alice", scopes=[Scope("pay:send", amount=AtMost(200))])
        poor = net.user("bob", scopes=[Scope("pay:send", amount=AtMost(100))])
        assert await rich.request("worker", Personal()) == Done()
        with pytest.raises(Denied) as caught:
            await poor.request("worker", Personal())
        assert caught.value.code == "denied.scope"
        with pytest.raises(Denied) as caught:
            await net.request("worker", Personal())
        assert caught.value.code == "denied.user_required"


async def test_a_longer_authority_is_acted_under(town: Any) -> None:
    office = Office()
    async with town.serve(*office.agents) as buses:
        alice = await town.user("alice", ["work"])
        given = await alice.delegate("planner", ["work"], expires_in=500, depth=1, purpose="nightly")
        again = Authority.from_bytes(given.to_bytes())
        session = buses[1].acting(again)
        done = await session.request("worker", Work())
        assert (done.by, done.user) == ("planner", "user/alice")
        if buses[0] is not buses[1]:  # in memory one bus speaks for everybody
            with pytest.raises(Denied) as caught:
                buses[0].acting(given)
            assert caught.value.code == "denied.not_holder"


async def test_a_grant_is_revoked_while_it_is_used(town: Any) -> None:
    office = Office()
    async with town.serve(*office.agents) as buses:
        alice = await town.user("alice", ["work"])
        given = await alice.delegate("planner", ["work"], expires_in=500)
        session = buses[1].acting(given)
        asking = asyncio.ensure_future(session.request("worker", Wait()))
        await office.waiting.wait()
        async with session.stream("worker", Ticks()) as items:
            await anext(items)
            await office.ticking.wait()
            await alice.revoke(given, reason="stop")
            with pytest.raises(Rejected) as caught:
                await asyncio.wait_for(asking, 10)
            assert caught.value.code == "reject.revoked"
            with pytest.raises(Rejected) as caught:
                await asyncio.wait_for(anext(items), 10)
            assert caught.value.code == "reject.revoked"
        await asyncio.wait_for(office.stopped.wait(), 5)
        with pytest.raises(Rejected) as caught:
            await session.request("worker", Work())
        assert caught.value.code == "reject.revoked"


@pytest.mark.parametrize("whom", ["user/alice", "worker"])
async def test_a_principal_is_revoked_while_a_handler_and_a_stream_run(net: Any, whom: str) -> None:
    """Whoever asks or whoever is asked: the caller hears a typed error at once, and the handler is stopped."""
    office = Office()
    async with net.serve(*office.agents):
        alice = net.user("alice", scopes=["work"])
        asking = asyncio.ensure_future(alice.request("worker", Wait()))
        await office.waiting.wait()
        async with alice.stream("worker", Ticks()) as items:
            await anext(items)
            await office.ticking.wait()
            who = net._node.name_id(whom)
            by = directory_id(net._core.domain)
            net._core.revoke("principal", who.encode(), revoker=by, reason="stop", now=net.clock.now())
            await net.settle()
            assert asking.done()
            with pytest.raises(AgentBusError) as caught:
                await asking
            assert caught.value.code == "reject.revoked"
            with pytest.raises(AgentBusError) as caught:
                await anext(items)
            assert caught.value.code == "reject.revoked"
        await asyncio.wait_for(office.stopped.wait(), 5)


async def test_who_answers_what_is_discovered(town: Any) -> None:
    office = Office()
    async with town.serve(*office.agents):
        alice = await town.user("alice", [])
        (card,) = await alice.discover(message="Work")
        assert (card.id.short, card.description, card.running) == ("worker", "Works", 1)
        assert card.scopes == ("work",)
        assert [c.id.short for c in await alice.discover(scope="work")] == ["worker"]
        assert await alice.discover(message="Nothing") == []


async def test_a_renewal_refuses_nobody(town: Any) -> None:
    """Half an hour passes: requests before, during and after the change of instance keys are all answered."""
    office = Office()
    async with town.serve(*office.agents):
        node = town.nodes[0]
        voice = next(iter(node.voices))
        before = {v.key.id for n in town.nodes for v in n.voices}
        for _ in range(100):
            town.clock.advance(20)
            await town.refresh()
            session = Session(node, voice, voice.standing)
            replies = await asyncio.gather(*(session.request("planner", Alone()) for _ in range(3)))
            assert [r.by for r in replies] == ["planner"] * 3
        await town.until(lambda: not before & {v.key.id for n in town.nodes for v in n.voices})


async def test_a_directory_that_falls_silent_and_is_heard_again(net: Any) -> None:
    office = Office()
    async with net.serve(*office.agents):
        alice = net.user("alice", scopes=["work"])
        assert (await alice.request("worker", Work())).by == "user/alice"
        net.silence_directory()
        net.clock.advance(29)
        assert (await alice.request("worker", Work())).by == "user/alice"
        net.clock.advance(2)
        with pytest.raises(Unavailable) as caught:
            await alice.request("worker", Work())
        assert caught.value.code == "unavailable.directory_stale" and caught.value.retryable
        net.hear_directory()
        assert (await alice.request("worker", Work())).by == "user/alice"


async def test_a_stopped_directory_over_zeromq(town: Any) -> None:
    """Past max_directory_age new work is refused and retryable; nobody who was answered before is cut off meanwhile."""
    if hasattr(town, "net"):
        pytest.skip("in memory the directory is this process")
    office = Office()
    async with town.serve(*office.agents):
        alice = await town.user("alice", ["work"])
        assert (await alice.request("worker", Work())).by == "user/alice"
        endpoint = town.host.url.endpoint
        await town.host.aclose()
        assert (await alice.request("worker", Work())).by == "user/alice"
        town.clock.advance(31)
        with pytest.raises(Unavailable) as caught:
            await alice.request("worker", Work())
        assert caught.value.code == "unavailable.directory_stale" and caught.value.retryable
        again = type(town.host)(town.folder / "directory", listen=endpoint)
        again.clock = town.clock
        town.clock.advance(1)
        await again.open()
        town.stack.push_async_callback(again.aclose)
        await town.until(lambda: all(n.source.problem is None and n.source.age() < 30_000_000 for n in town.nodes))
        assert (await alice.request("worker", Work())).by == "user/alice"


async def test_a_handler_that_needs_a_user_says_so_to_whoever_asks_for_itself(net: Network) -> None:
    agent = Agent("helper")

    @agent.handler
    async def personal(request: Personal, ctx: Context) -> Done:
        return Done(by=ctx.require_user().short)

    async with net.serve(agent):
        with pytest.raises(Denied) as refused:
            await net.request("helper", Personal())
        assert refused.value.code == "denied.user_required"
        assert (await net.user("alice", scopes=["docs:read"]).request("helper", Personal())).by == "user/alice"
