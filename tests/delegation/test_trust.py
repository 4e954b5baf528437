"""Attacks on the directory's log, on instance statements and on heads: one for each code of ``trust.CODES``."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.crypto.note import Checkpoint, sign_note
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation import fold as fold_module
from agentbus.delegation.statements import (
    KEY_EVENT,
    ROLES,
    Instance,
    KeyEvent,
    Revocation,
    Signed,
    decode_signed,
    directory_id,
    directory_origin,
)
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError, InvalidKey, Malformed, Rejected, Unavailable
from agentbus.testing.draw import HOUR, NOON, World, draw_world, seed
from agentbus.wire.codec import pack, unpack
from agentbus.wire.limits import LIMITS, SECOND


@pytest.fixture
def world() -> World:
    return draw_world("carol", "dave")


def refuse(world: World, statements: Any, code: str, *, now: int = NOON, trust: Trust | None = None) -> None:
    with pytest.raises(AgentBusError) as caught:
        (trust or world.trust).advance(statements, now=now)
    assert caught.value.code == code, caught.value


def keys_of(name: str) -> tuple[SigningKey, CurveKey]:
    return SigningKey(seed(name)), CurveKey(seed(name, "curve"))


def registration(key: SigningKey, curve: CurveKey | bytes, epoch: Any = 1) -> list[Any]:
    return [key.public.raw, curve if isinstance(curve, bytes) else curve.public, epoch, b"", b""]


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_whoever_folds_the_log_comes_to_the_same_trust(world: World) -> None:
    whole = Trust.pinned(world.root.id).advance(world.entries, now=NOON)
    single = Trust.pinned(world.root.id)
    for entry in world.entries:
        single = single.advance(entry, now=NOON)
    assert whole.principals == single.principals == world.trust.principals
    assert whole.frontier.root() == single.frontier.root() == world.trust.frontier.root()
    assert (whole.size, whole.domain) == (len(world.entries), "local.test")


def test_another_root_key_founds_nothing_here() -> None:
    other = World("evil.test")
    with pytest.raises(Rejected) as caught:
        Trust.pinned(SigningKey(seed("mine")).id).advance(other.entries, now=NOON)
    assert caught.value.code == "reject.wrong_root"


def test_the_first_entry_is_the_root_keys_own(world: World) -> None:
    thief, root = SigningKey(seed("thief")), world.root
    event = KeyEvent(0, NOON, "local.test", "domain", "local.test", [root.public.raw, 30 * SECOND])
    empty = Trust.pinned(root.id)
    refuse(world, event.signed_by(thief).encode(), "reject.statement_signer", trust=empty)
    signed = event.signed_by(thief)._replace(key_id=root.id)
    refuse(world, signed.encode(), "reject.statement_signature", trust=empty)
    for kind, payload in (("online", [thief.public.raw]), ("domain", []), ("domain", ["x", 1])):
        bad = KeyEvent(0, NOON, "local.test", kind, "identity", payload).signed_by(root).encode()
        refuse(world, bad, "malformed.statement", trust=empty)


@pytest.mark.parametrize("max_age", [0, 5 * SECOND - 1, 300 * SECOND + 1, -1])
def test_max_directory_age_has_bounds(world: World, max_age: int) -> None:
    entry = world.draft("domain", "local.test", [world.root.public.raw, max_age], key=world.root)
    refuse(world, entry, "reject.statement_invalid")


def test_an_entry_cannot_be_left_out_repeated_or_swapped(world: World) -> None:
    empty = Trust.pinned(world.root.id)
    for at in range(1, len(world.entries)):
        refuse(
            world,
            world.entries[:at] + world.entries[at + 1 :] + [world.draft("time", "x", [b""])],
            "reject.statement_order",
            trust=empty,
        )
        refuse(world, [*world.entries[:at], world.entries[at - 1]], "reject.statement_order", trust=empty)
    swapped = [*world.entries]
    swapped[3], swapped[4] = swapped[4], swapped[3]
    refuse(world, swapped, "reject.statement_order", trust=empty)
    refuse(world, world.entries[0], "reject.statement_order")


def test_half_an_update_changes_nothing(world: World) -> None:
    before = world.trust
    refuse(world, [world.draft("time", "x", [b"r"]), b"\xc0"], "malformed.codec")
    assert world.trust is before and before.size == len(world.entries)


def test_time_does_not_run_backwards_in_the_log(world: World) -> None:
    event = KeyEvent(world.trust.size, NOON - 1, "local.test", "time", "local.test", [b""])
    refuse(world, event.signed_by(world.online["identity"]).encode(), "reject.statement_invalid")


def test_an_entry_of_another_trust_domain_is_refused(world: World) -> None:
    event = KeyEvent(world.trust.size, NOON, "evil.test", "time", "x", [b""])
    refuse(world, event.signed_by(world.online["identity"]).encode(), "reject.statement_invalid")
    gone = Revocation(world.trust.size, NOON, "evil.test", "key", b"", directory_id("evil.test"), "", NOON, 1, b"")
    refuse(world, gone.signed_by(world.online["identity"]).encode(), "reject.statement_invalid")


@pytest.mark.parametrize("role", [r for r in ROLES if r != "identity"])
def test_the_other_online_keys_write_no_entries(world: World, role: str) -> None:
    refuse(world, world.draft("time", "x", [b""], key=world.online[role]), "reject.statement_signer")


def test_agents_users_roots_and_strangers_write_no_entries(world: World) -> None:
    for key in (world["carol"].identity, world["carol"].instance, world.root, SigningKey(seed("stranger"))):
        refuse(world, world.draft("time", "x", [b""], key=key), "reject.statement_signer")
        gone = Revocation(world.trust.size, NOON, "local.test", "key", b"", world.id("carol"), "", NOON, 1, b"")
        refuse(world, gone.signed_by(key).encode(), "reject.statement_signer")


@pytest.mark.parametrize("kind", ["online", "online-retired", "domain"])
def test_only_the_root_key_introduces_and_ends_online_keys(world: World, kind: str) -> None:
    """A stolen identity key of the directory must not make itself successors."""
    payload = {
        "online": [SigningKey(seed("new")).public.raw],
        "online-retired": [world.online["head"].id, NOON],
        "domain": [world.root.public.raw, 30 * SECOND],
    }[kind]
    refuse(world, world.draft(kind, "head", payload), "reject.statement_signer")


def test_a_forged_signature_of_the_right_key_is_refused(world: World) -> None:
    good = decode_signed(world.draft("time", "x", [b""]))
    refuse(world, good._replace(signature=bytes(64)).encode(), "reject.statement_signature")
    changed = KeyEvent.decode(good.body)._replace(payload=[b"y"])
    refuse(world, good._replace(body=pack([1, *changed])).encode(), "reject.statement_signature")


def test_a_retired_online_key_is_silent(world: World) -> None:
    world.event("online-retired", "identity", [world.online["identity"].id, NOON], key=world.root)
    refuse(world, world.draft("time", "x", [b""]), "reject.statement_signer")


def test_an_event_kind_that_is_not_known_stops_the_fold(world: World) -> None:
    """An unknown rule must not be skipped."""
    for kind in ("frobnicate", "", "Create", "domain ", "__init__"):
        refuse(world, world.draft(kind, world.id("carol"), []), "malformed.statement")


@pytest.mark.parametrize("kind", list(fold_module.EVENTS))
@pytest.mark.parametrize(
    "payload", [[], [None], [[]], [None] * 3, [None] * 6, [[]] * 6, [1] * 6, [b""] * 5, ["", "", 5, 5, 5, 5], [True]]
)
def test_a_payload_of_another_shape_raises_what_is_documented(world: World, kind: str, payload: list[Any]) -> None:
    key = world.root if kind in ("domain", "online", "online-retired") else None
    for subject in (world.id("carol"), "nobody", "head", ""):
        try:
            world.trust.advance(world.draft(kind, subject, payload, key=key), now=NOON)
        except (Malformed, Rejected, InvalidKey):
            continue
        assert kind == "time" and len(payload) == 1


def test_no_principal_is_created_twice_or_elsewhere(world: World) -> None:
    record: list[Any] = ["", "", [], [], [], []]
    refuse(world, world.draft("create", world.id("carol"), record), "reject.statement_invalid")
    refuse(world, world.draft("create", "spiffe://evil.test/agent/x", record), "reject.statement_invalid")
    refuse(world, world.draft("create", "carol", record), "malformed.id")
    refuse(world, world.draft("create", "spiffe://local.test/group/all", record), "malformed.id")


def test_a_revoked_name_is_never_given_again(world: World) -> None:
    """The revocation came first; the record comes after."""
    world.revoke("principal", world.id("ghost").encode())
    refuse(world, world.draft("create", world.id("ghost"), ["", "", [], [], [], []]), "reject.statement_invalid")


@pytest.mark.parametrize("name", ["carol", "user/alice", "service/x"])
@pytest.mark.parametrize("rights", ["all", "ALL", "", "none", None, True])
def test_only_a_users_rights_may_be_all(world: World, name: str, rights: Any) -> None:
    kind = "amend" if name != "service/x" else "create"
    entry = world.draft(kind, world.id(name), ["", "", [], [], rights, []])
    if name == "user/alice" and rights == "all":
        assert world.trust.advance(entry, now=NOON).principals[world.id(name)].rights is None
        return
    with pytest.raises(Malformed):
        world.trust.advance(entry, now=NOON)


def test_no_identity_or_curve_key_is_registered_twice(world: World) -> None:
    carol, (key, curve) = world["carol"], keys_of("new")
    dave = world.id("dave")
    refuse(world, world.draft("key", dave, registration(carol.identity, curve)), "reject.statement_invalid")
    refuse(world, world.draft("key", dave, registration(key, carol.curve)), "reject.statement_invalid")
    world.event("key-state", carol.id, [carol.identity.id, "retired", NOON])
    refuse(world, world.draft("key", dave, registration(carol.identity, curve)), "reject.statement_invalid")
    refuse(world, world.draft("key", dave, world.registration(dave, key, curve.public)), "reject.statement_invalid")
    world.event("create", world.id("erin"), ["", "", [], [], [], []])
    world.event("key", world.id("erin"), world.registration(world.id("erin"), key, curve.public))


def test_a_key_has_one_purpose(world: World) -> None:
    """Notes are not PAE: a head key that is an agent's identity key, too, could be made to sign for both."""
    _, curve = keys_of("new")
    for key in (world.root, world.online["head"], world.online["consent"], world.online["token"]):
        refuse(world, world.draft("key", world.id("dave"), registration(key, curve)), "reject.statement_invalid")
    for key in (world["carol"].identity, world.root, world.online["head"]):
        entry = world.draft("online", "head", [key.public.raw], key=world.root)
        refuse(world, entry, "reject.statement_invalid")


def test_the_directory_signs_its_own_statements_with_its_identity_key(world: World) -> None:
    """The one exception: it is an agent like any, and the role says identity."""
    me = directory_id(world.domain)
    world.event("create", me, ["", "", [], [], [], []])
    world.event("key", me, registration(world.online["identity"], keys_of("d")[1]))
    assert world.trust.principals[me].state == "active"


@pytest.mark.parametrize("raw", [bytes(32), (1).to_bytes(32, "little"), b"\xff" * 32])
def test_a_weak_key_enters_nowhere(world: World, raw: bytes) -> None:
    with pytest.raises(InvalidKey):
        world.trust.advance(world.draft("key", world.id("dave"), [raw, b"c" * 32, 1, b"", b""]), now=NOON)
    with pytest.raises(InvalidKey):
        world.trust.advance(world.draft("online", "head", [raw], key=world.root), now=NOON)
    _, signed = world.statement(world["carol"], salt="weak", key=raw)
    with pytest.raises(InvalidKey):
        world.trust.advance(signed.encode(), now=NOON)


@pytest.mark.parametrize("curve", [b"", b"c" * 31, b"c" * 33, "c" * 32, None, 5, bytes(32), b"\x01" + bytes(31)])
def test_a_curve_key_has_32_bytes_and_is_not_of_low_order(world: World, curve: Any) -> None:
    entry = world.draft("key", world.id("dave"), [SigningKey(seed("n")).public.raw, curve, 1, b"", b""])
    with pytest.raises(InvalidKey):
        world.add(entry)


@pytest.mark.parametrize("epoch", [0, 2, -1, True, "1", None])
def test_a_key_belongs_to_the_epoch_of_now(world: World, epoch: Any) -> None:
    refuse(world, world.draft("key", world.id("dave"), registration(*keys_of("n"), epoch)), "reject.statement_invalid")


@pytest.mark.parametrize("epoch", [0, 1, 3, -1, True, None, "2"])
def test_an_epoch_grows_by_one(world: World, epoch: Any) -> None:
    refuse(world, world.draft("epoch", world.id("carol"), [epoch]), "reject.statement_invalid")


def test_a_revoked_key_is_never_registered(world: World) -> None:
    """The revocation came first."""
    key, curve = keys_of("early")
    world.revoke("key", key.id)
    refuse(world, world.draft("key", world.id("dave"), registration(key, curve)), "reject.statement_invalid")


def test_what_is_revoked_or_retired_does_not_come_back(world: World) -> None:
    carol, dave = world["carol"], world["dave"]
    world.revoke("principal", carol.id.encode())
    world.event("state", dave.id, ["retired"])
    for actor in (carol, dave):
        refuse(world, world.draft("state", actor.id, ["active"]), "reject.statement_invalid")
        refuse(world, world.draft("key", actor.id, registration(*keys_of("n"))), "reject.statement_invalid")
    world.event("amend", carol.id, ["", "", [], [], [], []])
    assert world.trust.principals[carol.id].state == "revoked"
    world.revoke("key", carol.identity.id)
    back = world.draft("key-state", carol.id, [carol.identity.id, "active", NOON])
    refuse(world, back, "reject.statement_invalid")


@pytest.mark.parametrize("state", ["pending", "revoked", "", None, "Active", 1])
def test_a_principal_takes_a_state_that_exists(world: World, state: Any) -> None:
    refuse(world, world.draft("state", world.id("carol"), [state]), "reject.statement_invalid")


def test_a_keys_state_is_changed_under_its_own_principal(world: World) -> None:
    carol = world["carol"]
    for subject, payload in (
        (world.id("dave"), [carol.identity.id, "retired", NOON]),
        (carol.id, [carol.identity.id, "gone", NOON]),
        (carol.id, [carol.identity.id, "retired", True]),
    ):
        refuse(world, world.draft("key-state", subject, payload), "reject.statement_invalid")


def test_revocations_are_numbered_without_a_gap(world: World) -> None:
    for number in (0, 2, -1):
        gone = Revocation(world.trust.size, NOON, "local.test", "grant", b"g", world.id("carol"), "", NOON, number, b"")
        refuse(world, gone.signed_by(world.online["identity"]).encode(), "reject.statement_order")


# ── instances ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_instance_statement_names_the_principal_whose_key_signs_it(world: World) -> None:
    """Dave signs that an instance of Carol's runs with him."""
    carol, dave = world["carol"], world["dave"]
    made, _ = world.statement(dave, salt="x", principal=carol.id)
    for changes in ({}, {"identity_key": carol.identity.id}):
        signed = made._replace(**changes).signed_by(dave.identity, dave.instance)
        refuse(world, signed.encode(), "reject.statement_signer")
        claimed = signed._replace(key_id=carol.identity.id).encode()
        refuse(world, claimed, "reject.statement_signature" if changes else "reject.statement_signer")


def test_nobody_introduces_a_key_that_is_anothers(world: World) -> None:
    """Dave's statement names Carol's instance key; she never countersigned it."""
    carol, dave = world["carol"], world["dave"]
    made = dave.running._replace(key=carol.instance.public.raw)
    for possession in (dave.instance, dave.identity):
        refuse(world, made.signed_by(dave.identity, possession).encode(), "reject.statement_signature")
    hers = decode_signed(carol.running.signed_by(carol.identity, carol.instance).encode())
    mixed = made.signed_by(dave.identity, dave.instance)._replace(possession=hers.possession)
    refuse(world, mixed.encode(), "reject.statement_signature")


def test_a_possession_is_no_statement_and_a_statement_no_possession(world: World) -> None:
    carol = world["carol"]
    good = carol.running.signed_by(carol.identity, carol.instance)
    wrong = good._replace(possession=sign(carol.instance, Purpose.INSTANCE, good.body))
    refuse(world, wrong.encode(), "reject.statement_signature")
    wrong = good._replace(signature=sign(carol.identity, Purpose.INSTANCE_POSSESSION, good.body))
    refuse(world, wrong.encode(), "reject.statement_signature")
    wrong = good._replace(signature=sign(carol.identity, Purpose.KEY_EVENT, good.body))
    refuse(world, wrong.encode(), "reject.statement_signature")


def test_an_instance_key_becomes_no_second_instance(world: World) -> None:
    carol = world["carol"]
    for changes in ({"instance_id": b"x" * 16}, {"principal": world.id("dave")}):
        moved = carol.running._replace(**changes)
        code = "reject.statement_signer" if "principal" in changes else "reject.statement_invalid"
        refuse(world, moved.signed_by(carol.identity, carol.instance).encode(), code)


def test_an_instance_key_is_a_key_of_its_own(world: World) -> None:
    carol, dave = world["carol"], world["dave"]
    for key in (carol.identity, dave.identity, world.root, world.online["head"], world.online["consent"]):
        made = carol.running._replace(key=key.public.raw, instance_id=b"n" * 16)
        refuse(world, made.signed_by(carol.identity, key).encode(), "reject.statement_invalid")
    _, signed = world.statement(carol, salt="log", log_key=SigningKey(seed(carol.id, "instance", "log")).public.raw)
    refuse(world, signed.encode(), "reject.statement_invalid")


@pytest.mark.parametrize(
    "window", [(0, 0), (0, -1), (0, HOUR + 1), (LIMITS.skew + 1, 60 * SECOND + LIMITS.skew), (-HOUR, HOUR)]
)
def test_an_instance_key_lives_an_hour_from_now_on(world: World, window: tuple[int, int]) -> None:
    _, signed = world.statement(world["carol"], salt="w", not_before=NOON + window[0], not_after=NOON + window[1])
    refuse(world, signed.encode(), "reject.statement_invalid")


def test_a_node_is_reached_at_an_enrolled_curve_key(world: World) -> None:
    _, signed = world.statement(world["carol"], salt="c", curve_key=b"c" * 32)
    refuse(world, signed.encode(), "reject.statement_invalid")


@pytest.mark.parametrize("claimed", [1, 2])
def test_a_lost_identity_key_introduces_no_instance_of_the_new_epoch(world: World, claimed: int) -> None:
    """Carol's key was stolen and her epoch ended. The thief's new instance claims the old epoch, then the new one."""
    carol = world["carol"]
    world.event("epoch", carol.id, [2])
    made, signed = world.statement(carol, salt="thief", epoch=claimed)
    if claimed == 2:
        refuse(world, signed.encode(), "reject.statement_signer")
        known = {**world.trust.instances, carol.instance.id: made}
        from dataclasses import replace

        assert replace(world.trust, instances=known).refuses(made, NOON) == "reject.epoch"
    else:
        assert world.trust.advance(signed.encode(), now=NOON).refuses(made, NOON) == "reject.epoch"


def test_an_older_statement_takes_nothing_back(world: World) -> None:
    """Carol renewed without the purpose grant; somebody repeats her older statement."""
    carol = world["carol"]
    old = carol.running
    new = old._replace(purposes=["envelope"], not_before=NOON + SECOND)
    world.trust = world.trust.advance(new.signed_by(carol.identity, carol.instance).encode(), now=NOON)
    again = world.trust.advance(old.signed_by(carol.identity, carol.instance).encode(), now=NOON)
    assert again.instances[carol.instance.id] == new


def test_each_reason_against_an_instance(world: World) -> None:
    carol = world["carol"]
    made = carol.running

    def after(change: Any) -> str | None:
        fresh = draw_world("carol", "dave")
        change(fresh)
        return fresh.trust.refuses(made, NOON)

    assert after(lambda w: None) is None
    assert world.trust.refuses(made, NOON + HOUR) == "reject.key_expired"
    assert world.trust.refuses(made, NOON - LIMITS.skew - 1) == "reject.key_expired"
    assert after(lambda w: w.revoke("instance", made.handle)) == "reject.revoked"
    assert after(lambda w: w.revoke("key", carol.instance.id)) == "reject.revoked"
    assert after(lambda w: w.revoke("key", carol.identity.id)) == "reject.revoked"
    assert after(lambda w: w.revoke("principal", carol.id.encode())) == "reject.revoked"
    assert after(lambda w: w.event("state", carol.id, ["suspended"])) == "reject.not_active"
    assert after(lambda w: w.event("epoch", carol.id, [2])) == "reject.epoch"
    for state, code in (
        ("retiring", None),
        ("tainted", None),
        ("retired", "reject.revoked"),
        ("compromised", "reject.revoked"),
    ):
        change = [carol.identity.id, state, NOON]
        assert after(lambda w, change=change: w.event("key-state", carol.id, change)) == code
    assert world.trust.instances_of(carol.id, NOON) == [made]
    assert world.trust.without_instances([carol.instance.id]).instances_of(carol.id, NOON) == []


# ── statements' form ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tag", [True, False, 0, 4, -1, 1.0, "1", b"\x01", None, [], [1], "x"])
def test_a_tag_is_one_of_three_integers(world: World, tag: Any) -> None:
    """``True == 1``: a second spelling of an entry would be a second history. A list is not even hashable."""
    good = decode_signed(world.draft("time", "x", [b""]))
    import msgpack

    with pytest.raises(Malformed):
        world.trust.advance(msgpack.packb([tag, *good[1:4]]), now=NOON)
    with pytest.raises(Malformed):
        decode_signed(msgpack.packb([tag, *good[1:4], bytes(64)]))


def test_each_part_of_a_statement_has_its_length(world: World) -> None:
    good = decode_signed(world.draft("time", "x", [b""]))
    for row in (
        good[:4],
        [*good[:4], bytes(64)],
        [3, *good[1:4]],
        [1, good.body, b"k", good.signature],
        [],
        [1, good.body, good.key_id, bytes(63)],
        [3, *good[1:4], b""],
        [1, "x", good.key_id, good.signature],
    ):
        if row == good[:4]:
            continue
        with pytest.raises(Malformed) as caught:
            decode_signed(pack(row))
        assert caught.value.code == "malformed.statement"


@pytest.mark.parametrize("kind", [KeyEvent, Revocation, Instance])
def test_each_position_of_a_statement_has_its_type(world: World, kind: Any) -> None:
    carol = world["carol"]
    made: Any = {
        KeyEvent: KeyEvent(0, 0, "d", "k", "s", []),
        Revocation: Revocation(0, 0, "d", "key", b"", carol.id, "", 0, 1, b""),
        Instance: carol.running,
    }[kind]
    body = pack([1, *made])
    assert kind.decode(body) == made
    row = unpack(body)
    for at in range(len(row)):
        for value in (None, True, -1 if at == 0 else 1.5, 2, "x", b"x", [1], [[]]):
            if value == 1.5 or (type(value) is type(row[at]) and at != 0):
                continue
            with pytest.raises(Malformed):
                kind.decode(pack([*row[:at], value, *row[at + 1 :]]))
    for bad in (row[:-1], [*row, None], []):
        with pytest.raises(Malformed):
            kind.decode(pack(bad))


@pytest.mark.parametrize(
    "changes",
    [
        {"instance_id": b""},
        {"key": b"k"},
        {"identity_key": b"k"},
        {"log_key": b"k"},
        {"curve_key": b"k"},
        {"node": ""},
        {"node": "n" * 81},
        {"endpoints": [1]},
        {"endpoints": ["x" * 257]},
        {"endpoints": ["x"] * 9},
        {"purposes": []},
        {"purposes": ["grant", "envelope"]},
        {"purposes": ["statement"]},
        {"purposes": ["grant"] * 2},
        {"principal": "carol"},
    ],
)
def test_an_instance_statement_has_its_bounds(world: World, changes: dict[str, Any]) -> None:
    _, signed = world.statement(world["carol"], salt="b", **changes)
    with pytest.raises(Malformed):
        world.trust.advance(signed.encode(), now=NOON)


def test_only_four_kinds_of_things_are_revoked(world: World) -> None:
    for kind in ("head", "", "principals", "domain"):
        with pytest.raises(Malformed):
            world.revoke(kind, b"x")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_arbitrary_statements_raise_what_is_documented(body: bytes, tag: int) -> None:
    trust = Trust.pinned(bytes(32))
    for data in (body, Signed(tag, body, bytes(32), bytes(64), bytes(64)).encode()):
        with pytest.raises((Malformed, Rejected, InvalidKey)):
            trust.advance(data, now=NOON)


# ── heads ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def refuse_head(world: World, note: bytes, code: str) -> None:
    with pytest.raises(AgentBusError) as caught:
        world.trust.accept_head(note, sent_at=5)
    assert caught.value.code == code


def test_a_head_counts_from_when_its_poll_was_sent(world: World) -> None:
    assert world.trust.age(100) is None
    trust = world.trust.accept_head(world.head(), sent_at=5)
    assert trust.age(15) == 10 and trust.age(4) == 0
    assert trust.head is not None and trust.head.size == trust.size


def test_a_pushed_head_extends_nothing(world: World) -> None:
    trust = world.trust.accept_head(world.head())
    assert trust.age(100) is None
    trust = trust.accept_head(world.head(instant=NOON + 1), sent_at=5)
    assert trust.accept_head(world.head(instant=NOON + 2)).checked_at == 5


def test_a_frozen_directory_grows_stale(world: World) -> None:
    """The carrier answers each poll with the one note it has: freeze."""
    note = world.head()
    trust = world.trust.accept_head(note, sent_at=5)
    for sent_at in (100, 200, 300):
        trust = trust.accept_head(note, sent_at=sent_at)
        trust = trust.accept_head(world.head(instant=NOON - 1), sent_at=sent_at)
    assert trust.age(300) == 295
    fresh = world.trust.accept_head(world.head(instant=NOON + 9)).accept_head(world.head(instant=NOON + 8), sent_at=7)
    assert fresh.checked_at == 7 and fresh.head is not None and fresh.head.instant == NOON + 9


def test_an_older_poll_does_not_turn_time_back(world: World) -> None:
    trust = world.trust.accept_head(world.head(), sent_at=50).accept_head(world.head(instant=NOON + 1), sent_at=40)
    assert trust.checked_at == 50


def test_a_head_of_more_than_was_folded_says_entries_are_missing(world: World) -> None:
    with pytest.raises(Unavailable) as caught:
        world.trust.accept_head(world.head(size=world.trust.size + 1), sent_at=5)
    assert caught.value.code == "unavailable.directory_behind" and caught.value.retryable


def test_a_head_of_less_than_was_folded_extends_nothing(world: World) -> None:
    """Rollback."""
    note = world.head()
    world.event("time", "local.test", [b"r"])
    assert world.trust.accept_head(note, sent_at=5) is world.trust


def test_two_histories_of_one_size_are_a_fork(world: World) -> None:
    refuse_head(world, world.head(root=b"x" * 32), "reject.head_forked")
    origin = directory_origin(world.domain)
    shown = Checkpoint(origin, world.trust.size, world.trust.frontier.root(), (f"instant {NOON}", "revocations 1"))
    refuse_head(world, sign_note(shown.text, origin, world.online["head"]), "reject.head_forked")


def test_a_directory_that_shows_two_logs_is_noticed() -> None:
    here, there = draw_world("carol"), draw_world("carol")
    here.event("time", "local.test", [b"a"])
    there.event("time", "local.test", [b"b"])
    with pytest.raises(Rejected) as caught:
        here.trust.accept_head(there.head(), sent_at=5)
    assert caught.value.code == "reject.head_forked" and caught.value.details == {"size": here.trust.size}


@pytest.mark.parametrize("role", ["identity", "consent", "token", "root", "agent"])
def test_only_the_head_key_signs_heads(world: World, role: str) -> None:
    key = {"root": world.root, "agent": world["carol"].identity}.get(role) or world.online[role]
    origin = directory_origin(world.domain)
    text = Checkpoint(origin, world.trust.size, world.trust.frontier.root(), ("instant 1", "revocations 0")).text
    refuse_head(world, sign_note(text, origin, key), "reject.statement_signature")


def test_a_retired_head_key_signs_nothing(world: World) -> None:
    world.event("online-retired", "head", [world.online["head"].id, NOON], key=world.root)
    refuse_head(world, world.head(), "reject.statement_signature")


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("instant 1",),
        ("revocations 0", "instant 1"),
        ("instant 1", "revocations 0", "x"),
        ("instant", "revocations"),
        ("instant -1", "revocations 0"),
        ("instant ٣", "revocations 0"),
        ("instant 1", "revocations " + "1" * 5000),
    ],
    ids=range(8),
)
def test_a_head_has_two_lines_of_its_own(world: World, lines: tuple[str, ...]) -> None:
    origin = directory_origin(world.domain)
    text = Checkpoint(origin, world.trust.size, world.trust.frontier.root(), lines).text
    refuse_head(world, sign_note(text, origin, world.online["head"]), "malformed.statement")


def test_a_head_of_another_origin_is_none_of_ours(world: World) -> None:
    for origin in ("agentbus.evil.test/directory", "agentbus.local.test/log"):
        text = Checkpoint(origin, world.trust.size, world.trust.frontier.root(), ("instant 1", "revocations 0")).text
        refuse_head(world, sign_note(text, origin, world.online["head"]), "reject.statement_signature")
        refuse_head(world, sign_note(text, directory_origin("local.test"), world.online["head"]), "malformed.note")


def test_before_the_first_entry_nothing_is_believed(world: World) -> None:
    with pytest.raises(Rejected):
        Trust.pinned(world.root.id).accept_head(world.head(), sent_at=1)
    signed = world["carol"].running.signed_by(world["carol"].identity, world["carol"].instance).encode()
    with pytest.raises(Rejected):
        Trust.pinned(world.root.id).advance(signed, now=NOON)


def test_the_first_kind_of_statement_is_a_key_event(world: World) -> None:
    assert decode_signed(world.entries[0]).tag == KEY_EVENT
