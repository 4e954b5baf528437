"""Remembered verdicts: the same as judging every time, whatever changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.delegation import memory as module
from agentbus.delegation.chain import verify_chain
from agentbus.delegation.memory import Memory
from agentbus.errors import AgentBusError
from agentbus.testing.draw import chain_bytes, draw_chain, draw_world
from agentbus.wire.limits import SECOND

WORLD = draw_world("alice", "carol", "dave")
CHAIN = chain_bytes(draw_chain("alice -[docs:read]-> carol -[docs:read]-> dave", world=WORLD))


def verdict(trust: Any, now: int, cache: Any) -> str:
    try:
        return verify_chain(CHAIN, trust=trust, now=now, cache=cache).id
    except AgentBusError as error:
        return error.code


def suspended(who: str) -> Any:
    trust = WORLD.trust
    record = trust.principals[WORLD[who].id]
    return replace(trust, principals={**trust.principals, record.id: replace(record, state="suspended")})


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["good", "alice", "carol", "dave"]), st.integers(-120, 7200)), max_size=12))
def test_a_memory_changes_no_verdict(asked: list[tuple[str, int]]) -> None:
    """Whatever was asked before, under whichever snapshot and in whichever order of instants."""
    snapshots = {"good": WORLD.trust} | {who: suspended(who) for who in ("alice", "carol", "dave")}
    memory = Memory()
    for name, seconds in asked:
        now = WORLD.now + seconds * SECOND
        assert verdict(snapshots[name], now, memory) == verdict(snapshots[name], now, None)


@pytest.mark.parametrize("edge", [0, 1])
def test_a_chain_that_was_good_a_microsecond_ago_has_expired(edge: int) -> None:
    """Verdict caching: time of check is time of use."""
    memory = Memory()
    good = verify_chain(CHAIN, trust=WORLD.trust, now=WORLD.now, cache=memory)
    end = min(good.expires_at, *(i.not_after for i in WORLD.trust.instances.values()))
    assert verdict(WORLD.trust, end - 1, memory) == good.id
    assert verdict(WORLD.trust, end + edge, memory) in ("reject.grant_expired", "reject.key_expired")


def test_an_issuer_that_was_suspended_meanwhile_is_noticed_at_once() -> None:
    memory = Memory()
    assert verdict(WORLD.trust, WORLD.now, memory) == verify_chain(CHAIN, trust=WORLD.trust, now=WORLD.now).id
    assert verdict(suspended("carol"), WORLD.now, memory) == "reject.not_active"
    assert verdict(WORLD.trust, WORLD.now, memory) != "reject.not_active"


def test_a_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES", 10)
    memory = Memory()
    for n in range(1000):
        memory.remember(("chain", n), n, WORLD.trust, 0, 10)
        assert memory.recall(("chain", n), WORLD.trust, 5) == n
    assert len(memory._good) <= 10
