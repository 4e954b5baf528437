"""Revocations: whose they are to make, how many, before or after what they revoke, and for how long they matter."""

from __future__ import annotations

from typing import Any

import pytest

from agentbus.crypto.keys import SigningKey
from agentbus.delegation.chain import verify_chain
from agentbus.delegation.grant import Link, encode_chain
from agentbus.delegation.statements import Revocation
from agentbus.delegation.trust import Trust
from agentbus.directory import core as core_module
from agentbus.directory import life
from agentbus.directory.core import Directory
from agentbus.directory.rules import may_revoke
from agentbus.errors import AgentBusError, DirectoryRefused, Rejected
from agentbus.testing.draw import HOUR, NOON, World, alter, chain_bytes, draw_chain, draw_world, seed
from agentbus.wire.limits import LIMITS
from tests.directory.registry import Registry


def entry(world: World, kind: str, handle: bytes, by: str, proof: bytes = b"") -> bytes:
    """A revocation that the directory signs, whoever is said to have asked for it."""
    made = Revocation(
        world.trust.size, world.now, world.domain, kind, handle, world.id(by), "", world.now,
        world.trust.revocation_seq + 1, proof,
    )  # fmt: skip
    return made.signed_by(world.online["identity"]).encode()


def refused(world: World, data: bytes, code: str = "reject.revoker") -> None:
    with pytest.raises(AgentBusError) as caught:
        world.trust.advance(data, now=world.now)
    assert caught.value.code == code


# ── everybody judges whose it is ─────────────────────────────────────────────────────────────────────────────────────


def test_the_fold_refuses_a_grants_revocation_by_who_issued_no_link_above_it() -> None:
    world = draw_world("carol", "dave", "erin")
    links = draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world)
    proof = chain_bytes(links)
    for by in ("user/alice", "carol"):
        world.trust.advance(entry(world, "grant", links[1].digest, by, proof), now=NOON)
    for by in ("dave", "erin"):
        refused(world, entry(world, "grant", links[1].digest, by, proof))
    refused(world, entry(world, "grant", links[0].digest, "carol", proof))  # it does not end with what is revoked
    refused(world, entry(world, "grant", links[0].digest, "carol", chain_bytes(links[:1])))  # that is alice's alone


@pytest.mark.parametrize("how", ["made up", "another root", "spliced", "empty"])
def test_the_fold_refuses_a_proof_that_shows_nothing(how: str) -> None:
    world = draw_world("carol", "dave")
    links = draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world)
    other = draw_chain("alice -[quote]-> dave -[quote]-> carol", world=world)
    mine: tuple[Link, ...] = {
        "made up": alter(links[:1], 0, key=world["dave"].identity, purpose="mine"),
        "another root": alter(links[:1], 0, issuer=world.id("dave"), subject=world.id("dave")),
        "spliced": (other[0], links[1]),
        "empty": (),
    }[how]
    handle = mine[-1].digest if mine else links[1].digest
    refused(world, entry(world, "grant", handle, "dave", encode_chain(mine) if mine else b""),
            "reject.revoker" if mine else "malformed.codec")  # fmt: skip


def test_the_fold_refuses_that_somebody_revokes_what_is_anothers() -> None:
    world = draw_world("carol", "dave")
    carol = world["carol"]
    for kind, handle in (
        ("principal", carol.id.encode()), ("key", carol.identity.id), ("instance", carol.running.handle),
        ("principal", b"spiffe://local.test/agent/nobody"),
    ):  # fmt: skip
        refused(world, entry(world, kind, handle, "dave"))
        if kind == "principal" and b"nobody" in handle:
            continue
        world.trust.advance(entry(world, kind, handle, "carol"), now=NOON)


# ── before, and afterwards ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_revocation_may_come_before_what_it_revokes() -> None:
    world = draw_world("carol", "dave")
    links = draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world)
    fresh = draw_world("carol", "dave")  # somebody who never saw the chain
    trust = fresh.trust.advance(entry(fresh, "grant", links[1].digest, "carol", chain_bytes(links)), now=NOON)
    with pytest.raises(Rejected) as caught:
        verify_chain(chain_bytes(links), trust=trust, now=NOON)
    assert caught.value.code == "reject.revoked" and caught.value.details["link"] == 1
    verify_chain(chain_bytes(links[:1]), trust=trust, now=NOON)  # the link above it is as good as before


def test_only_the_operator_revokes_a_key_that_nobody_registered_yet() -> None:
    registry = Registry()
    operator = registry.enrol("user/operator", rights=None)
    planner, stolen = registry.enrol("planner"), SigningKey(seed("stolen"))
    with pytest.raises(DirectoryRefused) as caught:
        may_revoke(registry.core.trust, planner.id, "key", stolen.id.hex(), "", now=NOON)
    assert caught.value.code == "directory.unknown"
    handle, _ = may_revoke(registry.core.trust, operator.id, "key", stolen.id.hex(), "", now=NOON)
    registry.core.revoke("key", handle, revoker=operator.id, reason="found in a bin", now=NOON)
    payload = list(registry.rotation(planner, stolen).proven_by(planner.key, stolen))
    with pytest.raises(DirectoryRefused):
        life.rotate(registry.core, payload, now=NOON)


def test_a_receiver_forgets_what_has_expired_and_the_log_does_not() -> None:
    world = draw_world("carol", "dave")
    links = draw_chain("alice -[pay]-> carol", world=world)
    data = chain_bytes(links)
    world.add(entry(world, "grant", links[0].digest, "user/alice", data))
    world.revoke("principal", world.id("dave").encode())
    ends = links[0].grant.expires + LIMITS.skew
    kept, gone = world.trust.forget(ends - 1), world.trust.forget(ends)
    assert kept.is_revoked("grant", links[0].digest) and not gone.is_revoked("grant", links[0].digest)
    assert gone.is_revoked("principal", world.id("dave").encode())  # nothing else is forgotten
    for at, trust, code in ((ends - 1, kept, None), (ends, gone, None), (NOON, world.trust, "reject.revoked")):
        with pytest.raises(Rejected) as caught:  # forgetting never makes it good: it has expired
            verify_chain(data, trust=trust, now=at)
        assert code is None or caught.value.code == code
    assert gone.frontier.root() == world.trust.frontier.root() and gone.revocation_seq == 2
    again = Trust.pinned(world.root.id).advance(world.entries, now=ends)
    assert again.is_revoked("grant", links[0].digest)


def test_ending_an_epoch_kills_everything_older_by_one_entry() -> None:
    world = draw_world("carol", "dave")
    chains = [draw_chain(f"alice -[pay]-> carol -[{scope}]-> dave", world=world) for scope in ("pay", "pay", "pay")]
    world.event("epoch", world.id("carol"), [2])
    for links in chains:
        with pytest.raises(Rejected) as caught:
            verify_chain(chain_bytes(links), trust=world.trust, now=NOON)
        assert caught.value.code == "reject.epoch"


# ── how many ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_revoker_has_a_quota_that_outlives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one agent could flood every node with revocations that all have to remember."""
    monkeypatch.setattr(core_module, "QUOTA", 5)
    registry = Registry()
    alice, operator = registry.enrol("user/alice", rights=["pay"]), registry.enrol("user/operator", rights=None)

    def revoke(by: Any, number: int, core: Directory = registry.core) -> None:
        handle = f"{by.id}#{number:032x}".encode()
        core.revoke("instance", handle, revoker=by.id, reason="", now=registry.now)

    for number in range(5):
        revoke(alice, number)
        registry.tick(60)
    for core in (registry.core, Directory(registry.core.store, registry.core.keys, registry.root.id, now=registry.now)):
        with pytest.raises(DirectoryRefused) as caught:
            revoke(alice, 5, core)
        assert caught.value.code == "directory.quota" and caught.value.retryable
    for number in range(9):
        revoke(operator, number)  # who has to clean up is not held up
    registry.now = NOON + HOUR
    revoke(alice, 6)
    with pytest.raises(DirectoryRefused):
        revoke(alice, 7)
    assert registry.core.trust.revocation_seq == 15
