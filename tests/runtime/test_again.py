"""A broken connection loses no answer and runs nothing twice: at least once on the wire, at most once in a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, AgentGone, Backpressure, Context, Denied, Request
from agentbus.protocol import exchanges
from agentbus.runtime import turns
from agentbus.runtime.inbound import BAD_FRAMES
from agentbus.runtime.node import Node
from agentbus.wire.header import Kind


class Done(BaseModel):
    times: int


class Work(Request[Done]):
    cut: int = 0


class Note(BaseModel):
    text: str


class Guarded(Request[Done]):
    pass


class Site:
    """An agent whose handlers count how often they ran, and can have the caller's connection cut before they answer."""

    def __init__(self) -> None:
        self.agent = Agent("site")
        self.ran = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.cut: Callable[[], Any] = lambda: None

        @self.agent.handler
        async def work(request: Work, ctx: Context) -> Done:
            self.ran += 1
            await self.gate.wait()
            if request.cut:
                self.cut()
            return Done(times=self.ran)

        @self.agent.handler
        async def note(request: Note, ctx: Context) -> None:
            self.ran += 1
            await self.gate.wait()

        @self.agent.handler(scopes=["never"])
        async def guarded(request: Guarded, ctx: Context) -> Done:
            raise AssertionError("nobody has this scope")


def asking(node: Node) -> set[Any]:
    """The connections over which this node waits for something."""
    return {exchange.route for exchange in node._engine.exchanges.asked}


def cut(town: Any) -> None:
    """Break every connection over which anybody waits for an answer."""
    for node in town.nodes:
        for connection in asking(node):
            connection.drop()


async def test_an_answer_that_is_still_being_made_comes_over_the_next_connection(town: Any) -> None:
    site = Site()
    site.gate.clear()
    async with town.serve(site.agent):
        alice = await town.user("alice", [])
        asked = asyncio.ensure_future(alice.request("site", Work()))
        await town.until(lambda: site.ran == 1)
        cut(town)
        await asyncio.sleep(0)
        site.gate.set()
        assert (await asked).times == 1
        assert site.ran == 1


async def test_an_answer_that_was_lost_on_the_way_is_given_again(town: Any) -> None:
    """The connection breaks right before the handler returns: the answer exists, and its way does not."""
    site = Site()
    site.cut = lambda: cut(town)
    async with town.serve(site.agent):
        alice = await town.user("alice", [])
        assert (await alice.request("site", Work(cut=1))).times == 1
        assert site.ran == 1


@pytest.mark.parametrize("ack", ["delivered", "handled"])
async def test_a_send_keeps_its_receipt(town: Any, ack: Any) -> None:
    site = Site()
    site.gate.clear()
    async with town.serve(site.agent):
        alice = await town.user("alice", [])
        sent = asyncio.ensure_future(alice.send("site", Note(text="x"), ack=ack))
        if ack == "handled":
            await town.until(lambda: site.ran == 1)
            cut(town)
        await asyncio.sleep(0)
        site.gate.set()
        assert (await sent).level == ack
        await town.until(lambda: site.ran == 1)


@pytest.mark.parametrize("runs", [True, False])
async def test_who_is_said_to_have_ended_has_to_give_a_sign_of_life(town: Any, runs: bool) -> None:
    """Another process may listen where it did, and drop what is not for it: nobody waits for that to the deadline."""
    site = Site()
    site.gate.clear()
    async with town.serve(site.agent):
        alice = await town.user("alice", [])
        asked = asyncio.ensure_future(alice.request("site", Work()))
        await town.until(lambda: site.ran == 1)
        (asker,) = [node for node in town.nodes if asking(node)]
        (exchange,) = asker._engine.exchanges.asked
        (callee,) = [node for node in town.nodes if node._engine.exchanges.serving]
        if not runs:
            callee.inbound.received = lambda *parts: None
        asker.again.left({exchange.party.instance})
        if runs:
            await town.until(lambda: not exchange.unheard)
            site.gate.set()
            assert (await asked).times == 1
        else:
            with pytest.raises(AgentGone) as caught:
                await asked
            assert caught.value.code == "agent.gone"
        assert site.ran == 1
        site.gate.set()


async def test_a_line_that_breaks_for_ever_is_an_error(town: Any) -> None:
    """Each new connection is cut as soon as the message went over it again: after so many the caller is told."""
    site = Site()
    site.gate.clear()
    async with town.serve(site.agent):
        alice = await town.user("alice", [])
        asked = asyncio.ensure_future(alice.request("site", Work()))
        await town.until(lambda: site.ran == 1)
        for _ in range(exchanges.AGAIN + 1):
            old = set().union(*(asking(node) for node in town.nodes))
            cut(town)
            await town.until(lambda old=old: asked.done() or set().union(*(asking(n) for n in town.nodes)) - old)
        with pytest.raises(AgentGone) as caught:
            await asked
        assert caught.value.code == "agent.gone" and caught.value.retryable
        assert site.ran == 1
        site.gate.set()


async def test_a_message_that_was_lost_is_judged_when_it_comes(town: Any) -> None:
    """The connection breaks before the message arrived, or before its refusal did: either way it is judged again."""
    site = Site()
    async with town.serve(site.agent):
        alice = await town.user("alice", [])
        await alice.request("site", Work())
        asked = asyncio.ensure_future(alice.request("site", Guarded()))
        while not any(asking(node) for node in town.nodes):
            await asyncio.sleep(0)
        cut(town)
        with pytest.raises(Denied) as caught:
            await asked
        assert caught.value.code == "denied.scope"


async def test_only_so_many_questions_to_one_instance_are_open_at_once(
    town: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An honest node never has more under way than its peer lets wait."""
    assert exchanges.UNDER_WAY < turns.FRAMES
    monkeypatch.setattr(exchanges, "UNDER_WAY", 100)
    site = Site()
    site.gate.clear()
    async with town.serve(site.agent):
        alice = await town.user("alice", [])
        asked = [asyncio.ensure_future(alice.request("site", Work())) for _ in range(exchanges.UNDER_WAY + 5)]
        await town.until(lambda: sum(a.done() for a in asked) == 5)
        codes = {type(a.exception()): a.exception().code for a in asked if a.done()}
        assert codes == {Backpressure: "backpressure.peer"}
        site.gate.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(a, Done) for a in answers) == exchanges.UNDER_WAY
        assert (await alice.request("site", Work())).times == exchanges.UNDER_WAY + 1, "what ended makes room"


# ── attacks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_answer_is_repeated_to_nobody_but_the_node_that_asked(net: Any) -> None:
    """Mallory sends alice's frame again over her own connection: she must not be given alice's answer."""
    site = Site()
    async with net.serve(site.agent):
        alice = net.user("alice", scopes=[])
        await alice.request("site", Work())
        captured = net.attacker.capture("Work", kind=Kind.REQUEST)
        before = len(net.attacker.received)
        net.attacker.connection().offer(captured.frame)
        await net.settle()
        assert len(net.attacker.received) == before
        assert site.ran == 1
        assert net.verdicts()[-1] == "reject.replayed"


async def test_who_repeats_itself_for_ever_is_dropped(net: Any) -> None:
    """The answer is given a few times more; then every repetition is paid for, and nothing ever runs again."""
    site = Site()
    async with net.serve(site.agent):
        frame = net.attacker.forge("site", Work())
        assert await net.attacker.deliver(frame) == "ok"
        connection = net.attacker.connection()
        before = len(net.attacker.received)
        for _ in range(exchanges.REPEATS + BAD_FRAMES + 2):
            connection.offer(frame)
        await net.settle()
        assert len(net.attacker.received) - before <= exchanges.REPEATS
        assert connection.gone
        assert site.ran == 1
