"""A key's life, and what is tried with keys whose time is over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentbus.crypto.keys import SigningKey
from agentbus.delegation.statements import KeyEvent, Rotation, decode_signed, directory_id
from agentbus.directory import core as core_module
from agentbus.directory import life
from agentbus.directory.receipt import open_receipt
from agentbus.directory.rules import whose
from agentbus.errors import AgentBusError, DirectoryRefused, Rejected
from agentbus.host import register_here
from agentbus.identity import Identity
from agentbus.testing.draw import NOON, World, draw_world, seed
from agentbus.wire.ids import PrincipalId, name_id
from agentbus.wire.limits import SECOND
from tests.directory.registry import Registry

HOUR = 3600 * SECOND


@pytest.fixture
def registry() -> Registry:
    return Registry()


def refused(code: str, call: Any, *arguments: Any, **named: Any) -> None:
    with pytest.raises(AgentBusError) as caught:
        call(*arguments, **named)
    assert caught.value.code == code, caught.value


# ── rotation ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["planner", "user/alice", "service/billing"])
def test_a_key_is_followed_by_another_and_verifies_until_the_overlap_ends(registry: Registry, name: str) -> None:
    old = registry.enrol(name)
    new = registry.rotate(old)
    assert (registry.state(old), registry.state(new)) == ("retiring", "active")
    registry.tick(3599)
    assert registry.core.trust.refuses_key_at(old.key.id, registry.now) is None
    registry.tick(1)
    assert registry.state(old) == "retired"
    assert registry.core.trust.refuses_key_at(old.key.id, registry.now) == "reject.key_expired"
    assert registry.core.trust.refuses_key_at(old.key.id, registry.now - HOUR) is None
    active = registry.core.trust.active_key(old.id)
    assert active is not None and active.key.id == new.key.id and active.curve_key == old.curve.public


def test_a_prepared_key_is_published_and_not_usable_until_it_is_activated(registry: Registry) -> None:
    old, new = registry.enrol("planner"), SigningKey(seed("prepared"))
    for step, states in (("prepare", ("active", "prepared")), ("activate", ("retiring", "active"))):
        payload = registry.rotation(old, new, step=step).proven_by(old.key, new)
        life.rotate(registry.core, list(payload), now=registry.tick())
        trust = registry.core.trust
        assert tuple(trust.key_state_at(k, registry.now) for k in (old.key.id, new.id)) == states
        assert (trust.refuses_key_at(new.id, registry.now) is None) == (step == "activate")


def test_nobody_rotates_somebody_elses_key(registry: Registry) -> None:
    planner, mallory, new = registry.enrol("planner"), registry.enrol("mallory"), SigningKey(seed("new"))
    for rotation, old in (
        (registry.rotation(planner, new), mallory.key),  # signed by her own key
        (registry.rotation(planner, new, old=mallory.key.id), mallory.key),  # from her key, in planner's name
        (registry.rotation(mallory, new, principal=planner.id), mallory.key),
        (registry.rotation(planner, new, old=bytes(32)), planner.key),
        (registry.rotation(planner, new, domain="evil.test"), planner.key),
    ):
        refused("directory.rotation", life.rotate, registry.core, list(rotation.proven_by(old, new)), now=NOON)


def test_a_rotation_needs_both_signatures(registry: Registry) -> None:
    planner, new = registry.enrol("planner"), SigningKey(seed("new"))
    body, by_old, by_new = registry.rotation(planner, new).proven_by(planner.key, new)
    for payload in ([body, by_new, by_new], [body, by_old, by_old], [body, by_new, by_old], [body, by_old, bytes(64)]):
        refused("directory.rotation", life.rotate, registry.core, payload, now=NOON)
    refused("malformed.codec", life.rotate, registry.core, [body[:-1], by_old, by_new], now=NOON)


def test_a_retired_or_retiring_key_has_no_further_successor(registry: Registry) -> None:
    """Whoever finds an old key file tries to take the identity over."""
    old = registry.enrol("planner")
    registry.rotate(old)
    for seconds in (1, 3600):
        registry.tick(seconds)
        refused("directory.rotation", registry.rotate, old)


def test_nobody_rotates_back_to_a_known_key(registry: Registry) -> None:
    first, other = registry.enrol("planner"), registry.enrol("other")
    second = registry.rotate(first)
    for back in (first.key, second.key, other.key, registry.core.keys.head, registry.root):
        payload = list(registry.rotation(second, back).proven_by(second.key, back))
        with pytest.raises(DirectoryRefused) as caught:
            life.rotate(registry.core, payload, now=registry.now)
        assert caught.value.code in ("directory.rotation", "directory.key_seen")


def test_what_is_wrong_with_the_directory_is_not_called_the_rotations_fault(registry: Registry) -> None:
    planner = registry.enrol("planner")
    registry.core.keys = replace(registry.core.keys, identity=SigningKey(seed("no online key")))
    refused("reject.statement_signer", registry.rotate, planner)


@pytest.mark.parametrize(
    "changes", [{"expires": NOON - 31 * SECOND}, {"expires": NOON + 91 * SECOND}, {"overlap": -1},
                {"overlap": 8 * 24 * HOUR}, {"epoch": 2}, {"epoch": 0}]
)  # fmt: skip
def test_a_rotation_has_its_bounds(registry: Registry, changes: dict[str, int]) -> None:
    refused("directory.rotation", registry.rotate, registry.enrol("planner"), **changes)


def test_a_rotation_of_yesterday_is_not_taken_today(registry: Registry) -> None:
    """It was signed and never arrived; somebody kept it."""
    planner, new = registry.enrol("planner"), SigningKey(seed("new"))
    payload = list(registry.rotation(planner, new).proven_by(planner.key, new))
    registry.tick(86400)
    refused("directory.rotation", life.rotate, registry.core, payload, now=registry.now)


def test_the_fold_judges_a_rotation_again() -> None:
    """A directory whose identity key was stolen writes one that the old key never signed."""
    world = draw_world("carol")
    carol, new = world["carol"], SigningKey(seed("new"))
    entry = _rotate_entry(world, carol.id, carol.identity, new, by=new)
    refused("reject.rotation", world.trust.advance, entry, now=NOON)
    world.add(_rotate_entry(world, carol.id, carol.identity, new, by=carol.identity))


def _rotate_entry(world: World, who: PrincipalId, old: SigningKey, new: SigningKey, *, by: SigningKey) -> bytes:
    body = Rotation(world.domain, who, 1, old.id, new.public.raw, "activate", HOUR, NOON + 30 * SECOND)
    return world.draft("rotate", who, list(body.proven_by(by, new)))


# ── taint, compromise, loss ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_tainted_key_verifies_and_must_be_rotated_and_a_taint_is_never_undone(registry: Registry) -> None:
    planner = registry.enrol("planner")
    life.taint(registry.core, planner.id, now=registry.tick())
    trust = registry.core.trust
    assert registry.state(planner) == "tainted" and trust.refuses_key_at(planner.key.id, registry.now) is None
    assert trust.active_key(planner.id) is None
    assert trust.closed_to(planner.key.id, registry.now + 1, through_instance=True)
    assert not trust.closed_to(planner.key.id, registry.now - 1, through_instance=True)
    refused("directory.no_key", life.taint, registry.core, planner.id, now=registry.now)
    for state in ("active", "retiring", "tainted", "prepared"):
        entry = [("key-state", planner.id, [planner.key.id, state, registry.now])]
        refused("reject.statement_invalid", registry.core.write, registry.now, entry)
    new = registry.rotate(planner)
    assert (registry.state(planner), registry.state(new)) == ("tainted", "active")
    registry.tick(3600)
    assert registry.state(planner) == "retired"


def test_a_compromise_reaches_back_and_ends_the_epoch(registry: Registry) -> None:
    planner = registry.enrol("planner")
    registry.tick(100)
    life.compromise(registry.core, planner.id, since=NOON + 40 * SECOND, now=registry.now)
    trust = registry.core.trust
    assert trust.principals[planner.id].epoch == 2 and trust.active_key(planner.id) is None
    assert trust.refuses_key_at(planner.key.id, NOON + 39 * SECOND) is None
    assert trust.refuses_key_at(planner.key.id, NOON + 40 * SECOND) == "reject.revoked"
    assert trust.refuses_key_at(planner.key.id, NOON + 60 * SECOND, known=NOON + 99 * SECOND) is None  # as of then
    assert not trust.admits(planner.curve.public)
    refused("directory.rotation", registry.rotate, planner)


def test_a_compromise_is_only_ever_found_to_have_begun_earlier(registry: Registry) -> None:
    planner = registry.enrol("planner")
    now = registry.tick(100)
    refused("directory.since", life.compromise, registry.core, planner.id, since=now + 1, now=now)
    life.compromise(registry.core, planner.id, since=NOON + 50, now=now)
    refused("directory.since", life.compromise, registry.core, planner.id, since=NOON + 60, now=now)
    life.compromise(registry.core, planner.id, since=NOON + 10, now=now)
    assert registry.core.trust.key_state_at(planner.key.id, NOON + 10) == "compromised"
    assert registry.core.trust.principals[planner.id].epoch == 2  # once is enough


def test_a_rotated_away_key_is_found_to_have_been_stolen_while_its_successor_goes_on(registry: Registry) -> None:
    old = registry.enrol("planner")
    registry.tick(10)
    new = registry.rotate(old)
    registry.tick(7200)
    life.compromise(registry.core, old.id, since=NOON + 5 * SECOND, now=registry.now, key=old.key.id)
    assert (registry.state(old), registry.state(new)) == ("compromised", "active")
    assert registry.core.trust.principals[old.id].epoch == 1


def test_a_lost_key_ends_its_epoch_and_new_keys_belong_to_the_next(registry: Registry) -> None:
    lost = registry.enrol("planner")
    assert life.lose_key(registry.core, lost.id, now=registry.tick()) == 2
    assert life.lose_key(registry.core, lost.id, now=registry.now) == 2  # nothing to end twice
    again = registry.identity("planner")
    _enrol_again(registry, again)
    assert registry.state(again) == "active" and registry.core.trust.keys[again.key.id].epoch == 2
    assert not registry.core.trust.admits(lost.curve.public) and registry.core.trust.admits(again.curve.public)
    refused("directory.rotation", registry.rotate, lost, epoch=1)


def _enrol_again(registry: Registry, identity: Identity) -> None:
    register_here(registry.core, identity, now=registry.now)


def test_who_has_a_key_gets_no_second_one_by_enrolling(registry: Registry) -> None:
    """An enrolment token for somebody who is enrolled would be a way around the old key's signature."""
    planner = registry.enrol("planner")
    refused("directory.enrolled", _enrol_again, registry, registry.identity("planner"))
    life.taint(registry.core, planner.id, now=registry.now)
    refused("directory.enrolled", _enrol_again, registry, registry.identity("planner"))


# ── suspension and the end ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_compromise_begins_at_an_instant_there_is(registry: Registry) -> None:
    planner = registry.enrol("planner")
    for since in (-1, -(2**70), registry.now + 1):
        refused("directory.since", life.compromise, registry.core, planner.id, since=since, now=registry.now)


def test_what_one_principal_has_changed_in_an_hour_is_bounded(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change is an entry that everybody keeps for good, and a write that the directory waits for."""
    monkeypatch.setattr(core_module, "QUOTA", 3)
    core = registry.core
    anna, root = registry.enrol("anna"), registry.enrol("user/root", rights=None)
    for _ in range(3):
        core.charge(anna.id, now=registry.now)
        core.charge(root.id, now=registry.now)
    refused("directory.quota", core.charge, anna.id, now=registry.now)
    core.charge(root.id, now=registry.now)
    core.charge(anna.id, now=registry.tick(3600))


def test_suspended_is_undone_and_retired_is_not(registry: Registry) -> None:
    planner = registry.enrol("planner")
    life.set_state(registry.core, planner.id, "suspended", now=registry.tick())
    assert registry.core.trust.refuses_key_at(planner.key.id, registry.now) == "reject.not_active"
    refused("directory.rotation", registry.rotate, planner)
    refused("directory.no_change", life.set_state, registry.core, planner.id, "suspended", now=registry.now)
    life.set_state(registry.core, planner.id, "active", now=registry.tick())
    assert registry.core.trust.refuses_key_at(planner.key.id, registry.now) is None
    life.retire(registry.core, planner.id, now=registry.tick())
    for call in (life.set_state, life.retire, life.lose_key):
        arguments = ("active",) if call is life.set_state else ()
        refused("directory.ended", call, registry.core, planner.id, *arguments, now=registry.now)


def test_nobody_enrols_into_a_retired_name(registry: Registry) -> None:
    """A token that was issued before the retirement is worth nothing after it, and no new one is given."""
    who = name_id("planner", "local.test")
    registry.core.add_principal(who, now=registry.now, owner="")
    registry.core.issue_token(who, b"t" * 32, now=registry.now)
    receipt = life.retire(registry.core, who, now=registry.tick())
    assert not registry.core.admits_token(b"t" * 32, registry.now)
    refused("directory.ended", _enrol_again, registry, registry.identity("planner"))
    refused("directory.ended", registry.core.issue_token, who, b"u" * 32, now=registry.now)
    refused("directory.name_taken", registry.core.add_principal, who, now=registry.now, owner="")
    assert open_receipt(receipt, registry.core.keys.identity.public).tokens == [b"t" * 32]


def test_a_registration_proves_possession_to_everybody_who_folds() -> None:
    """The directory itself registers a key whose holder never agreed."""
    world = draw_world("carol")
    erin, key, curve = world.id("erin"), SigningKey(seed("k")), seed("c")
    world.event("create", erin, ["", "", [], [], [], []])
    good = world.registration(erin, key, curve)
    other = world.registration(world.id("carol"), key, curve)
    for bad in ([*good[:3], b"", b""], [*good[:4], bytes(64)], [*good[:3], *other[3:]], [*good[:4], other[4]]):
        with pytest.raises(Rejected) as caught:
            world.trust.advance(world.draft("key", erin, bad), now=NOON)
        assert caught.value.code == "reject.possession"
    late = KeyEvent(world.trust.size, NOON + 200 * SECOND, world.domain, "key", erin, good)
    refused("reject.possession", world.trust.advance, late.signed_by(world.online["identity"]).encode(), now=NOON)
    assert decode_signed(world.event("key", erin, good)).tag == 1


# ── what nobody may end ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_directory_itself_cannot_be_ended_by_anybody(registry: Registry) -> None:
    """One wrong name, and nobody could ever say anything again."""
    me = directory_id("local.test")
    for call in (life.taint, life.lose_key, life.retire):
        refused("directory.itself", call, registry.core, me, now=registry.now)
    refused("directory.itself", life.set_state, registry.core, me, "suspended", now=registry.now)
    refused("directory.itself", life.compromise, registry.core, me, since=NOON, now=registry.now)
    refused("directory.itself", life.require_expendable, registry.core, me)


def test_the_last_operator_cannot_be_ended_and_the_last_but_one_can(registry: Registry) -> None:
    first = registry.enrol("user/operator", rights=None)
    refused("directory.last_operator", life.retire, registry.core, first.id, now=registry.now)
    refused("directory.last_operator", life.set_state, registry.core, first.id, "suspended", now=registry.now)
    second = registry.enrol("user/second", rights=None)
    life.set_state(registry.core, first.id, "suspended", now=registry.now)
    refused("directory.last_operator", life.retire, registry.core, second.id, now=registry.now)


@pytest.mark.parametrize("kind", ["principal", "key", "instance", "instance key"])
def test_whose_end_a_revocation_would_be(registry: Registry, kind: str) -> None:
    trust, me = registry.core.trust, directory_id("local.test")
    planner = registry.enrol("planner")
    trust = registry.core.trust
    if kind == "principal":
        assert whose(trust, kind, me.encode()) == me and whose(trust, kind, planner.id.encode()) == planner.id
    elif kind == "key":
        assert whose(trust, kind, registry.core.keys.identity.id) == me
        assert whose(trust, kind, planner.key.id) == planner.id and whose(trust, kind, bytes(32)) is None
    else:
        handles = (f"{me}#00".encode(), None), (f"{planner.id}#00".encode(), None)
        assert [whose(trust, "instance", handle) for handle, _ in handles] == [me, None]
