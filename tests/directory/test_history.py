"""Key history as of T and as known at K: random timelines, and an oracle that knows nothing of the fold."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.crypto.keys import SigningKey
from agentbus.delegation.statements import directory_id
from agentbus.delegation.trust import Trust
from agentbus.directory import life
from agentbus.errors import AgentBusError
from agentbus.host import register_here
from agentbus.identity import Identity
from agentbus.testing.draw import NOON
from agentbus.wire.limits import SECOND
from tests.directory.registry import Registry

# ── the oracle ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Fact(NamedTuple):
    """Something that became known: of a key (registered, dead) or of its owner (state, epoch)."""

    known: int
    about: Any
    what: str
    since: int
    value: Any = None


def oracle(facts: list[Fact], key: bytes, owner: str, at: int, known: int) -> str | None:
    """Why a signature of ``key`` at ``at`` does not count, by what was known at ``known``; None where it does."""
    past = [f for f in facts if f.known <= known and f.since <= at]
    epochs = [f.value for f in past if f.about == key and f.what == "usable"]
    if not any(f.about == key for f in past):
        return "reject.key_unknown"
    dead = {f.what for f in past if f.about == key}
    if dead & {"revoked", "stolen"}:
        return "reject.revoked"
    if "over" in dead or not epochs:
        return "reject.key_expired"
    state, epoch = "pending", 0
    for fact in past:
        if fact.about == owner:
            state = fact.value if fact.what == "state" else state
            epoch = fact.value if fact.what == "epoch" else epoch
    if state == "revoked":
        return "reject.revoked"
    if state != "active":
        return "reject.not_active"
    return None if epoch == epochs[0] else "reject.epoch"


# ── timelines ────────────────────────────────────────────────────────────────────────────────────────────────────────

OPERATIONS = ("rotate", "prepare", "taint", "compromise", "one stolen", "lose", "enrol", "suspend", "resume", "revoke",
              "revoke key", "retire", "time")  # fmt: skip


class Timeline:
    """A directory to which random things happen, and the facts that whoever watches would write down."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.facts: list[Fact] = []
        self.identities: list[Identity] = []
        self.prepared: SigningKey | None = None
        self.who = self.registry.identity("planner").id
        self.registry.core.add_principal(self.who, now=self.now, owner="")
        self.fact(self.who, "state", "pending")
        self.enrol(0)

    @property
    def now(self) -> int:
        return self.registry.now

    @property
    def instant(self) -> int:
        return self.registry.core.trust.last_instant

    def fact(self, about: Any, what: str, value: Any = None, since: int | None = None) -> None:
        self.facts.append(Fact(self.instant, about, what, self.instant if since is None else since, value))

    def happen(self, what: str, number: int) -> None:
        before = self.registry.core.trust.size
        try:
            getattr(self, what.replace(" ", "_"))(number)
        except AgentBusError:
            assert self.registry.core.trust.size == before, "a refusal changes nothing"

    def enrol(self, number: int) -> None:
        made = self.registry.identity("planner")
        register_here(self.registry.core, made, now=self.now)
        record = self.registry.core.trust.principals[self.who]
        self.identities.append(made)
        self.fact(made.key.id, "usable", record.epoch)
        self.fact(self.who, "epoch", record.epoch)
        if sum(f.what == "usable" for f in self.facts) == 1:
            self.fact(self.who, "state", "active")

    def rotate(self, number: int) -> None:
        old, new = self.identities[-1], self.prepared or SigningKey(self.registry.entropy(32))
        overlap = number % 100 * SECOND
        payload = self.registry.rotation(old, new, overlap=overlap).proven_by(old.key, new)
        life.rotate(self.registry.core, list(payload), now=self.now)
        self.prepared = None
        self.identities.append(Identity(old.id, new, old.curve))
        self.fact(old.key.id, "over", since=self.instant + overlap)
        self.fact(new.id, "usable", self.registry.core.trust.keys[new.id].epoch)

    def prepare(self, number: int) -> None:
        old, new = self.identities[-1], self.prepared or SigningKey(self.registry.entropy(32))
        payload = self.registry.rotation(old, new, step="prepare").proven_by(old.key, new)
        life.rotate(self.registry.core, list(payload), now=self.now)
        self.prepared = new
        self.fact(new.id, "announced")

    def taint(self, number: int) -> None:
        life.taint(self.registry.core, self.who, now=self.now)

    def compromise(self, number: int) -> None:
        self.stolen(number, None)

    def one_stolen(self, number: int) -> None:
        self.stolen(number, self.identities[number % len(self.identities)].key.id)

    def stolen(self, number: int, key: bytes | None) -> None:
        since = self.now - number % 300 * SECOND
        epoch = self.registry.core.trust.principals[self.who].epoch
        for one in life.compromise(self.registry.core, self.who, since=since, now=self.now, key=key):
            self.fact(one, "stolen", since=since)
        self.grown(epoch)

    def lose(self, number: int) -> None:
        epoch = self.registry.core.trust.principals[self.who].epoch
        life.lose_key(self.registry.core, self.who, now=self.now)
        self.grown(epoch)

    def grown(self, epoch: int) -> None:
        now = self.registry.core.trust.principals[self.who].epoch
        if now != epoch:
            self.prepared = None
            self.fact(self.who, "epoch", now)

    def suspend(self, number: int) -> None:
        life.set_state(self.registry.core, self.who, "suspended", now=self.now)
        self.fact(self.who, "state", "suspended")

    def resume(self, number: int) -> None:
        life.set_state(self.registry.core, self.who, "active", now=self.now)
        self.fact(self.who, "state", "active")

    def revoke(self, number: int) -> None:
        if number % 4 == 0:
            self._revoke("principal", self.who.encode())
            self.fact(self.who, "state", "revoked", since=self.now)

    def revoke_key(self, number: int) -> None:
        key = self.identities[number % len(self.identities)].key.id
        self._revoke("key", key)
        self.fact(key, "revoked", since=self.now)

    def _revoke(self, kind: str, handle: bytes) -> None:
        by = directory_id(self.registry.core.domain)
        self.registry.core.revoke(kind, handle, revoker=by, reason="", now=self.now)

    def retire(self, number: int) -> None:
        if number % 4:
            return
        keys = self.registry.core.trust.principals[self.who].keys
        alive = [k for k in keys if self.registry.core.trust.keys[k].state not in ("retired", "compromised", "revoked")]
        life.retire(self.registry.core, self.who, now=self.now)
        for key in alive:
            self.fact(key, "over")
        self.fact(self.who, "state", "retired")

    def time(self, number: int) -> None:
        self.registry.core.time_leaf(b"t", now=self.now)

    def agree(self, trust: Trust, chance: random.Random, questions: int) -> None:
        keys = [identity.key.id for identity in self.identities]
        if self.prepared is not None:
            keys.append(self.prepared.id)
        instants = sorted({f.since for f in self.facts} | {f.known for f in self.facts})
        for _ in range(questions):
            key = chance.choice(keys)
            at, known = (chance.choice(instants) + chance.choice((-1, 0, 1, SECOND)) for _ in range(2))
            found = trust.refuses_key_at(key, at, known=known)
            assert found == oracle(self.facts, key, self.who, at, known), (at - NOON, known - NOON, self.facts)


STEPS = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(-40, 120), st.integers(0, 10_000)), max_size=14)


def run(steps: list[tuple[str, int, int]], seed: int, questions: int = 40) -> None:
    timeline = Timeline()
    for what, seconds, number in steps:
        timeline.registry.tick(seconds)  # backwards, too: clocks are set
        timeline.happen(what, number)
    core = timeline.registry.core
    timeline.agree(core.trust, random.Random(seed), questions)
    again = Trust.pinned(core.trust.root).advance(core.store.entries(), now=timeline.now)
    assert again.keys == core.trust.keys and again.principals == core.trust.principals


@settings(max_examples=250, deadline=None)
@given(STEPS, st.integers(0, 1000))
def test_random_timelines_agree_with_the_oracle(steps: list[tuple[str, int, int]], seed: int) -> None:
    run(steps, seed)


@pytest.mark.campaign
def test_ten_thousand_timelines_agree_with_the_oracle() -> None:
    chance = random.Random(20260101)
    for seed in range(10_000):
        count = chance.randrange(15)
        steps = [
            (chance.choice(OPERATIONS), chance.randrange(-40, 121), chance.randrange(10_001)) for _ in range(count)
        ]
        run(steps, seed)


def test_what_was_known_then_is_not_changed_by_what_is_known_now() -> None:
    """An auditor asks what the receiver could know, and what is known today: two questions with two answers."""
    registry = Registry()
    planner = registry.enrol("planner")
    registry.tick(100)
    life.compromise(registry.core, planner.id, since=NOON + 10 * SECOND, now=registry.now)
    trust, key, at = registry.core.trust, planner.key.id, NOON + 20 * SECOND
    assert trust.refuses_key_at(key, at, known=registry.now - 1) is None
    assert trust.refuses_key_at(key, at, known=registry.now) == "reject.revoked"
    assert trust.refuses_key_at(key, at) == "reject.revoked"
    assert trust.key_state_at(key, at, known=registry.now - 1) == "active"
    assert trust.key_state_at(key, NOON - 1) == trust.key_state_at(bytes(32), at) == "unknown"
