"""A log that holds redaction requests: each is judged again, and nothing is erased again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from agentbus import Agent, Context, Denied, Request
from agentbus.crypto.merkle import leaf_hash
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Sent
from agentbus.log.read import read_log
from agentbus.replay import ReplayReport
from agentbus.runtime.redaction import Redact
from agentbus.testing import Network
from agentbus.wire.header import decode_header
from agentbus.wire.ids import b64
from agentbus.wire.limits import LIMITS

from .stage import Taped, taped


class Kept(BaseModel):
    number: int


class Keep(Request[Kept]):
    secret: str


def keeper(erasure: Literal["owner", "parties"] = "owner") -> Agent[Any]:
    """An agent that has a state of its own, so that overlapping handlers of it say nothing."""
    agent, seen = Agent[Any]("keeper", erasure=erasure), [0]

    @agent.handler
    async def keep(request: Keep, ctx: Context) -> Kept:
        seen[0] += 1
        return Kept(number=seen[0])

    return agent


async def business(net: Network) -> None:
    """Alice orders twice; her first order is erased for the owner, after she herself was refused."""
    async with net.serve(keeper()):
        alice, owner = net.user("alice", scopes=[]), net.user("owner", scopes=[])
        net.directory_amend("keeper", owner=net._node.name_id("user/owner"))
        await alice.request("keeper", Keep(secret="hunter2"))
        sent = [e.header for e in map(decode_entry, net._node.recorder.log) if isinstance(e, Sent)]
        digest = next(leaf_hash(h) for h in sent if decode_header(h, LIMITS).action == "Keep")
        wanted = Redact(message=b64(digest), reason="gdpr-17")
        with suppress(Denied):
            await alice.request("keeper", wanted)
        assert (await owner.request("keeper", wanted)).erased == 1
        assert (await owner.request("keeper", wanted)).erased == 0
        assert (await owner.request("keeper", Redact(message=b64(bytes(32)), reason="x"))).erased == 0
        await alice.request("keeper", Keep(secret="swordfish"))


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Taped:
    return taped(business, tmp_path_factory.mktemp("redactions"))


def statuses(report: ReplayReport) -> list[tuple[str, str]]:
    return [(result.action.rpartition(".")[2], result.status) for result in report.results]


@pytest.mark.parametrize("mode", ["stub", "shadow", "live"])
def test_a_redaction_request_is_answered_as_it_was_and_erases_nothing(tape: Taped, mode: Any) -> None:
    before = read_log(tape.log).size
    report = tape.replay(keeper(), mode=mode)
    found = statuses(report)
    assert found[0] == ("Keep", "not replayable") and "its body is" in report.results[0].reason
    assert found[1:5] == [("Redact", "same")] * 4, report.lines()
    assert read_log(tape.log).size == before


def test_a_shadow_that_lets_others_erase_is_told_what_it_would_have_erased(tape: Taped) -> None:
    report = tape.replay(keeper("parties"), mode="shadow")
    first = report.first
    assert first is not None and first.sender == "user/alice" and first.divergence is not None
    assert first.status == "extra" and "erase" in first.divergence.what
    assert [result.status for result in report.results[2:5]] == ["same"] * 3


def test_a_redaction_beside_a_handler_keeps_neither_from_being_replayed(tmp_path: Path) -> None:
    """A handler of an agent with a state overlaps with what the node itself does: that touches nothing of it."""
    agent = Agent[Any]("keeper", erasure="parties")

    @agent.handler
    async def keep(request: Keep, ctx: Context) -> Kept:
        if request.secret == "while":
            await ctx.bus.request("keeper", Redact(message=b64(bytes(32)), reason="x"))
        return Kept(number=len(request.secret))

    async def work(net: Network) -> None:
        async with net.serve(agent):
            alice = net.user("alice", scopes=[])
            await alice.request("keeper", Keep(secret="while"))

    report = taped(work, tmp_path).replay(agent)
    assert statuses(report) == [("Keep", "same"), ("Redact", "same")], report.lines()
