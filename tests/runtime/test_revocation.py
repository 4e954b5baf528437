"""A revocation under load, at each depth of a chain: what the receiver has seen revoked, it accepts no more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Authority, Context, Rejected, Request
from agentbus.delegation.statements import directory_id
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Received
from agentbus.wire.header import Kind, decode_header
from agentbus.wire.limits import LIMITS

HOLDERS = ("first", "second", "third", "fourth")


class Done(BaseModel):
    pass


class Work(Request[Done]):
    pass


def judged(node: Any) -> list[tuple[str, int]]:
    """(verdict, revocation sequence it was judged under) of each request to work in a node's log, in order."""
    found = []
    for data in node.recorder.log:
        entry = decode_entry(data)
        if isinstance(entry, Received):
            header = decode_header(entry.header, LIMITS)
            if header.action == "Work" and header.kind == Kind.REQUEST:
                found.append((entry.code, entry.revocation_seq))
    return found


@pytest.mark.parametrize("depth", range(5))
async def test_nothing_is_accepted_after_the_receiver_saw_the_revocation(town: Any, depth: int) -> None:
    """alice → alice → first → second → third → fourth; one of the five links is revoked while the last one works."""
    agents, worker = [Agent(name) for name in HOLDERS], Agent("worker")

    @worker.handler(scopes=["work"])
    async def work(request: Work, ctx: Context) -> Done:
        await asyncio.sleep(0)
        return Done()

    async with town.serve(*agents, worker) as buses:
        alice = await town.user("alice", ["work"], depth=5)
        chain: list[tuple[Any, Authority]] = [(alice, alice.authority)]
        speaker: Any = alice
        for number, name in enumerate(HOLDERS):
            held = await speaker.delegate(name, ["work"], depth=4 - number)
            chain.append((speaker, held))
            speaker = buses[number].acting(held)
        assert len(chain[-1][1].links) == 5
        refused: list[AgentBusError] = []
        done = 0

        async def load() -> None:
            nonlocal done
            while not refused:
                try:
                    await speaker.request("worker", Work())
                    done += 1
                except Rejected as error:
                    refused.append(error)

        loaders = [asyncio.ensure_future(load()) for _ in range(8)]
        await town.until(lambda: done >= 24)
        issuer, revoked = chain[depth]
        assert revoked.links[-1].grant.n == depth
        await issuer.revoke(revoked, reason="enough")
        await asyncio.gather(*loaders)
        assert {error.code for error in refused} == {"reject.revoked"}
        node = buses[-1]._node
        number = node.source.trust.revocation_seq
        verdicts = judged(node)
        assert {code for code, seq in verdicts if seq < number} == {"ok"}
        assert {code for code, seq in verdicts if seq >= number} <= {"reject.revoked"}
        with pytest.raises(Rejected):
            await speaker.request("worker", Work())
        if depth > 0:  # what stands above the revoked link goes on
            above = chain[depth - 1]
            holder = alice if depth == 1 else buses[depth - 2].acting(above[1])
            assert await holder.request("worker", Work()) == Done()


async def test_what_was_never_signed_is_over_at_once_and_nothing_of_it_is_on_the_record(net: Any) -> None:
    """Laid out, and its sender revoked before it was signed: it counts for nothing, and no receipt names it later."""
    worker = Agent("worker")

    @worker.handler
    async def work(request: Work, ctx: Context) -> Done:
        return Done()

    async with net.serve(worker):
        await net.attacker.request("worker", Work())
        node, handle = net.attacker.node, net.attacker.voice.instance.handle
        before = node.recorder.log.size
        asking = asyncio.ensure_future(net.attacker.request("worker", Work(), timeout=5))
        await asyncio.sleep(0)
        net._core.revoke(
            "instance", handle, revoker=directory_id(net._core.domain), reason="x", now=net.clock.now()
        )  # fmt: skip
        with pytest.raises(Rejected) as caught:
            await asking
        assert caught.value.code == "reject.revoked"
        assert len(node._engine.exchanges) == 0
        await net.advance(6)
        assert node.recorder.log.size == before
