"""Attacks on delegation chains, one for each code of ``chain.CODES`` and ``grant.CODES``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from agentbus.crypto.cache import SignatureCache
from agentbus.crypto.keys import SigningKey
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation import chain, grant
from agentbus.delegation.chain import Authority, verify_chain, verify_handover
from agentbus.delegation.grant import (
    Link,
    chain_digest,
    decode_grant,
    decode_link,
    encode_link,
    target_within,
    targets_within,
)
from agentbus.delegation.memory import Memory
from agentbus.delegation.records import TAINT_LASTS
from agentbus.delegation.scope import Scope, scopes
from agentbus.delegation.statements import Rotation, directory_id
from agentbus.delegation.trust import NeedsTrust, Trust
from agentbus.errors import AgentBusError, Malformed, Rejected
from agentbus.testing.draw import (
    HOUR,
    NOON,
    World,
    alter,
    chain_bytes,
    draw_chain,
    draw_world,
    extend,
    reorder,
    resign,
    seed,
    sign_link,
    splice,
    standing,
    strip,
)
from agentbus.wire.codec import pack, unpack
from agentbus.wire.ids import everyone, parse_id
from agentbus.wire.limits import LIMITS, SECOND

Links = Sequence[Link]


@pytest.fixture
def world() -> World:
    return draw_world()


def judge(links: Links | bytes, world: World, now: int = NOON, trust: Trust | None = None) -> Authority:
    data = links if isinstance(links, bytes) else chain_bytes(links)
    return verify_chain(data, trust=trust or world.trust, now=now)


def refuse(links: Links | bytes, world: World, code: str, *, link: int | None = None, **more: Any) -> None:
    with pytest.raises(AgentBusError) as caught:
        judge(links, world, **more)
    assert caught.value.code == code, caught.value
    assert code in chain.CODES or code in grant.CODES or isinstance(caught.value, Malformed)
    if link is not None:
        assert caught.value.details["link"] == link


# ── what is good ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_drawn_chain_gives_its_holder_what_its_last_link_says(world: World) -> None:
    links = draw_chain("alice -[quote,pay]-> carol -[quote,pay]-> dave -[quote]-> erin", world=world, targets=["bob"])
    held = judge(links, world)
    assert (held.subject, held.user, held.holder) == (world.id("user/alice"),) * 2 + (world.id("erin"),)
    assert (held.scopes, held.targets, held.root_kind) == (("quote",), (world.id("bob"),), "user")
    assert held.expires_at == NOON + HOUR and held.id == links[-1].digest.hex()
    assert Authority.from_bytes(held.to_bytes()) == held
    assert held.digest == chain_digest(chain_bytes(links))
    assert "user/alice → carol → dave → erin" in repr(held)


def test_a_user_may_grant_to_herself_and_go_on_with_her_instance_key(world: World) -> None:
    links = draw_chain("alice -[quote]-> user/alice -[quote]-> carol", world=world)
    assert judge(links, world).holder == world.id("carol")
    own = draw_chain("alice -[quote]-> user/alice", world=world)
    assert judge(own, world).holder == world.id("user/alice")


def test_a_standing_chain_is_its_principals_and_can_be_narrowed(world: World) -> None:
    links = standing(world, "carol")
    assert judge(links, world).root_kind == "standing"
    longer = extend(links, key=world["carol"].instance, audience=world.id("dave"), scopes=scopes(["quote"]))
    held = judge(longer, world)
    assert (held.holder, held.subject, held.user) == (world.id("dave"), world.id("carol"), None)


# ── attenuation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_delegate_cannot_widen_its_grant(world: World) -> None:
    """Carol, allowed to quote, hands Dave the right to pay."""
    links = draw_chain("alice -[quote]-> carol -[quote,pay]-> dave", world=world)
    with pytest.raises(Rejected) as caught:
        judge(links, world)
    assert caught.value.code == "reject.grant_widens"
    assert caught.value.details == {"link": 1, "scopes": ["pay"]}


@pytest.mark.parametrize(
    ("held", "given"),
    [
        ("docs:read", "docs:*"),
        ("docs:read", "docs"),
        ("docs:read", "docs:read:x"),
        ("quote", "quotes"),
        ("", "quote"),
        ("docs:*", "docs"),
        ("docs:a:*", "docs:*"),
        ("docs:read", "docs:write"),
    ],
)
def test_a_widened_name_is_refused(world: World, held: str, given: str) -> None:
    refuse(draw_chain(f"alice -[{held}]-> carol -[{given}]-> dave", world=world), world, "reject.grant_widens", link=1)


def test_a_caveat_cannot_be_dropped_on_the_way(world: World) -> None:
    from agentbus.delegation.scope import AtMost

    capped = {0: {"scopes": scopes([Scope("pay", amount=AtMost(5))])}}
    refuse(draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world, changes=capped), world, "reject.grant_widens")
    more = {**capped, 1: {"scopes": scopes([Scope("pay", amount=AtMost(6))])}}
    refuse(draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world, changes=more), world, "reject.grant_widens")
    less = {**capped, 1: {"scopes": scopes([Scope("pay", amount=AtMost(4), to=AtMost(1))])}}
    judge(draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world, changes=less), world)


def test_widening_far_from_the_root_is_measured_by_the_link_above(world: World) -> None:
    """Carol narrowed to quote; Dave goes back to what Alice had given her."""
    links = draw_chain("alice -[quote,pay]-> carol -[quote]-> dave -[pay]-> erin", world=world)
    refuse(links, world, "reject.grant_widens", link=2)


def test_targets_cannot_be_widened(world: World) -> None:
    base = "alice -[quote]-> carol -[quote]-> dave"
    everybody = (everyone(world.domain),)
    for child in ((world.id("erin"),), everybody, (world.id("bob"), world.id("erin"))):
        links = draw_chain(base, world=world, targets=["bob"], changes={1: {"targets": child}})
        refuse(links, world, "reject.targets_widen", link=1)
    links = draw_chain(base, world=world, targets=[], changes={1: {"targets": (world.id("bob"),)}})
    refuse(links, world, "reject.targets_widen", link=1)
    judge(draw_chain(base, world=world, changes={1: {"targets": (world.id("bob"),)}}), world)
    judge(draw_chain(base, world=world, changes={1: {"targets": ()}}), world)


def test_everyone_means_everyone_of_this_trust_domain_alone(world: World) -> None:
    all_here, elsewhere = (everyone("local.test"),), (everyone("local.test2"),)
    assert target_within(all_here, world.id("bob"), "local.test")
    for who in ("spiffe://local.test2/agent/bob", "spiffe://local.test.evil/agent/bob", "spiffe://evil/agent/bob"):
        assert not target_within(all_here, who, "local.test")
    assert not target_within(elsewhere, world.id("bob"), "local.test")
    assert not target_within((), world.id("bob"), "local.test")
    assert not targets_within(elsewhere, all_here, "local.test")
    assert not targets_within(all_here, elsewhere, "local.test")
    assert not targets_within(("spiffe://evil/agent/bob",), all_here, "local.test")
    links = draw_chain(
        "alice -[quote]-> carol -[quote]-> dave", world=world, changes={1: {"targets": ("spiffe://evil/agent/bob",)}}
    )
    refuse(links, world, "reject.targets_widen")


def test_depth_is_used_up(world: World) -> None:
    base = "alice -[quote]-> carol -[quote]-> dave"
    refuse(draw_chain(base, world=world, depth=0), world, "reject.depth", link=1)
    for parent, child in ((2, 2), (2, 3), (1, 1 << 62)):
        links = draw_chain(base, world=world, depth=parent, changes={1: {"depth": child}})
        refuse(links, world, "reject.depth", link=1)


def test_a_link_cannot_outlive_the_one_above(world: World) -> None:
    links = draw_chain("alice -[quote]-> carol -[quote]-> dave", world=world, changes={0: {"expires": NOON + 5}})
    refuse(links, world, "reject.outlives_parent", link=1)


def test_a_link_cannot_outlive_the_instance_key_that_signed_it(world: World) -> None:
    links = draw_chain("alice -[quote]-> carol -[quote]-> dave", world=world, expires=NOON + HOUR + 1)
    refuse(links, world, "reject.grant_outlives_key", link=1)


def test_a_conversation_cannot_be_left(world: World) -> None:
    base = "alice -[quote]-> carol -[quote]-> dave"
    for child in (None, b"d" * 16):
        links = draw_chain(base, world=world, changes={0: {"conversation": b"c" * 16}, 1: {"conversation": child}})
        refuse(links, world, "reject.conversation", link=1)
    both = {0: {"conversation": b"c" * 16}, 1: {"conversation": b"c" * 16}}
    judge(draw_chain(base, world=world, changes=both), world)
    judge(draw_chain(base, world=world, changes={1: {"conversation": b"c" * 16}}), world)


# ── splice, strip, graft, reorder, resign ────────────────────────────────────────────────────────────────────────────

LONG = "alice -[quote,pay]-> carol -[quote,pay]-> dave -[quote]-> erin"


@pytest.mark.parametrize("at", [0, 1])
def test_a_stripped_link_leaves_a_hole(world: World, at: int) -> None:
    refuse(strip(draw_chain(LONG, world=world), at), world, "reject.chain_broken")


def test_stripping_ones_own_link_gives_the_chain_of_somebody_else(world: World) -> None:
    """It verifies, for its holder: that the sender is the holder is asked of the envelope."""
    assert judge(strip(draw_chain(LONG, world=world), 2), world).holder == world.id("dave")


@pytest.mark.parametrize(
    "order", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (0, 0, 1), (0, 1, 1, 2), (0, 1, 2, 2), (0, 1, 2, 0)]
)
def test_reordered_or_repeated_links_do_not_follow(world: World, order: tuple[int, ...]) -> None:
    refuse(reorder(draw_chain(LONG, world=world), order), world, "reject.chain_broken")


def test_a_link_cannot_be_grafted_onto_a_wider_root(world: World) -> None:
    """Alice gave Carol pay in another chain; Carol's old link to Dave is moved under it."""
    narrow = draw_chain("alice -[quote]-> carol -[quote]-> dave", world=world)
    wide = draw_chain("alice -[quote,pay]-> carol -[quote]-> dave", world=world)
    assert narrow[1].grant.scopes == wide[1].grant.scopes
    refuse(splice(wide, narrow, 1), world, "reject.chain_broken", link=1)


def test_a_link_follows_one_signature_only(world: World) -> None:
    """prev covers the signature: the same grant under another valid signature is another link."""
    links = draw_chain("alice -[quote]-> carol -[quote]-> dave", world=world)
    other = sign_link(links[0].grant._replace(issued_at=NOON + 1), world["user/alice"].identity)
    refuse((other, links[1]), world, "reject.chain_broken", link=1)
    forged = Link(links[0].grant, links[0].body, bytes(64))
    refuse((forged, links[1]), world, "reject.chain_broken", link=1)


@pytest.mark.parametrize("field", ["prev", "root"])
def test_a_link_that_names_another_parent_is_refused(world: World, field: str) -> None:
    links = draw_chain(LONG, world=world, changes={2: {field: b"x" * 32}})
    refuse(links, world, "reject.chain_broken", link=2)


@pytest.mark.parametrize("n", [2, 5, 1 << 62])
def test_a_link_that_skips_a_number_is_refused(world: World, n: int) -> None:
    links = draw_chain("alice -[quote]-> carol -[quote]-> dave", world=world, changes={1: {"n": n}})
    refuse(links, world, "reject.chain_broken", link=1)


def test_the_subject_cannot_change_on_the_way(world: World) -> None:
    """Carol passes Alice's grant on as her own."""
    links = draw_chain(
        "alice -[quote]-> carol -[quote]-> dave", world=world, changes={1: {"subject": world.id("carol")}}
    )
    refuse(links, world, "reject.chain_broken", link=1)


def test_a_stranger_cannot_extend_a_chain_it_saw(world: World) -> None:
    """Frank saw alice → carol, and signs carol → frank himself, in his own name or in hers."""
    links = draw_chain("alice -[quote]-> carol", world=world, depth=3)
    frank = world["frank"]
    own = extend(links, key=frank.instance, issuer=frank.id, audience=world.id("dave"))
    refuse(own, world, "reject.grant_misaligned", link=1)
    hers = extend(links, key=frank.instance, audience=frank.id)
    refuse(hers, world, "reject.grant_key", link=1)
    claimed = extend(links, key=frank.instance, audience=frank.id, issuer_key=world["carol"].instance.id)
    refuse(claimed, world, "reject.grant_signature", link=1)


def test_an_issuer_of_another_epoch_is_misaligned(world: World) -> None:
    links = draw_chain("alice -[quote]-> carol -[quote]-> dave", world=world, changes={1: {"issuer_epoch": 2}})
    refuse(links, world, "reject.grant_misaligned", link=1)


def test_nobody_appears_twice(world: World) -> None:
    refuse(draw_chain("alice -[quote]-> carol -[quote]-> dave -[quote]-> carol", world=world), world, "reject.cycle")
    refuse(draw_chain("alice -[quote]-> carol -[quote]-> carol", world=world), world, "reject.cycle", link=1)
    refuse(draw_chain("alice -[quote]-> carol -[quote]-> user/alice", world=world), world, "reject.cycle", link=1)
    refuse(draw_chain("alice -[a]-> user/alice -[a]-> user/alice", world=world), world, "reject.cycle", link=1)
    refuse(
        draw_chain("alice -[a]-> user/alice -[a]-> bob -[a]-> user/alice", world=world), world, "reject.cycle", link=2
    )
    back = extend(standing(world, "carol"), key=world["carol"].instance, audience=world.id("carol"))
    refuse(back, world, "reject.cycle", link=1)


def test_a_principal_of_another_trust_domain_has_no_place(world: World) -> None:
    foreign = parse_id("spiffe://evil.test/agent/mallory")
    links = draw_chain("alice -[a]-> carol", world=world, changes={0: {"audience": foreign}})
    refuse(links, world, "reject.foreign_domain")


def test_a_whole_chain_of_another_trust_domain_is_refused() -> None:
    """Every signature is good there; none of it counts here."""
    here, there = draw_world(), World("evil.test")
    there.principal("alice", kind="user", rights=None)
    there.principal("carol", ceiling=["a"])
    links = draw_chain("alice -[a]-> carol", world=there)
    judge(links, there)
    refuse(links, here, "reject.foreign_domain", link=0)
    refuse(standing(there, "carol"), here, "reject.foreign_domain", link=0)
    assert here.root.id != there.root.id


# ── roots ────────────────────────────────────────────────────────────────────────────────────────────────────────────


EVIDENCE = {"consent": (0,), "token": ("https://idp.example", "1", "", NOON + HOUR)}


@pytest.mark.parametrize("kind", ["consent", "token", "vouched", "standing"])
def test_a_user_cannot_name_her_root_otherwise(world: World, kind: str) -> None:
    changes = {"root_kind": kind, "evidence": EVIDENCE.get(kind)}
    links = draw_chain("alice -[a]-> carol", world=world, changes={0: changes})
    refuse(links, world, "reject.root_kind", link=0)


def test_an_agent_cannot_issue_a_root(world: World) -> None:
    """Carol begins a chain with herself as subject, in each kind that exists."""
    carol = world["carol"]
    for kind in grant.ROOT_KINDS:
        for key in (carol.identity, carol.instance):
            changes = {"issuer": carol.id, "subject": carol.id, "issuer_key": key.id, "root_kind": kind}
            changes["evidence"] = EVIDENCE.get(kind)
            links = alter(draw_chain("alice -[a]-> dave", world=world), 0, key=key, **changes)
            refuse(links, world, "reject.root_kind", link=0)


def test_a_user_cannot_speak_for_another(world: World) -> None:
    world.principal("mallory", kind="user")
    mallory = world["user/mallory"]
    base = draw_chain("alice -[a]-> carol", world=world)
    other = alter(base, 0, key=mallory.identity, issuer=mallory.id, issuer_key=mallory.identity.id)
    refuse(other, world, "reject.root_kind", link=0)
    refuse(alter(base, 0, key=mallory.identity, issuer_key=mallory.identity.id), world, "reject.grant_key", link=0)
    refuse(resign(base, 0, mallory.identity), world, "reject.grant_signature", link=0)


def test_a_users_root_is_signed_by_her_identity_key_never_by_an_instance(world: World) -> None:
    alice = world["user/alice"]
    links = alter(draw_chain("alice -[a]-> carol", world=world), 0, key=alice.instance, issuer_key=alice.instance.id)
    refuse(links, world, "reject.grant_key", link=0)


def test_a_later_link_is_signed_by_an_instance_key_never_by_an_identity(world: World) -> None:
    """The identity key is no instance key, so nobody can ever supply its statement."""
    carol = world["carol"]
    links = extend(
        draw_chain("alice -[a]-> carol", world=world, depth=2), key=carol.identity, audience=world.id("dave")
    )
    with pytest.raises(NeedsTrust) as caught:
        judge(links, world)
    assert caught.value.keys == {carol.identity.id}


@pytest.mark.parametrize("role", ["identity", "head", "token"])
def test_only_the_consent_key_signs_standing_grants(world: World, role: str) -> None:
    key = world.online[role]
    links = alter(standing(world, "carol"), 0, key=key, issuer_key=key.id)
    refuse(links, world, "reject.grant_key", link=0)
    refuse(resign(standing(world, "carol"), 0, key), world, "reject.grant_signature", link=0)


def test_a_standing_grant_is_for_its_subject_alone(world: World) -> None:
    links = alter(standing(world, "carol"), 0, key=world.online["consent"], audience=world.id("dave"))
    refuse(links, world, "reject.root_kind", link=0)


def test_a_retired_consent_key_grants_no_more(world: World) -> None:
    links = standing(world, "carol")
    judge(links, world)
    world.event("online-retired", "consent", [world.online["consent"].id, NOON], key=world.root)
    refuse(links, world, "reject.grant_key", link=0)


def test_the_directory_cannot_sign_a_users_root(world: World) -> None:
    key = world.online["consent"]
    links = alter(draw_chain("alice -[a]-> carol", world=world), 0, key=key, issuer_key=key.id)
    refuse(links, world, "reject.grant_key", link=0)
    as_itself = alter(links, 0, key=key, issuer=directory_id(world.domain))
    refuse(as_itself, world, "reject.root_kind", link=0)


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("purpose", [p for p in Purpose if p is not Purpose.GRANT])
def test_a_signature_for_another_purpose_is_no_grant(world: World, at: int, purpose: Purpose) -> None:
    actors = [world["user/alice"].identity, world["carol"].instance, world["dave"].instance]
    drawn = draw_chain(LONG, world=world)[: at + 1]
    last = drawn[at]
    forged = Link(last.grant, last.body, sign(actors[at], purpose, last.body))
    refuse((*drawn[:at], forged), world, "reject.grant_signature", link=at)


def test_a_changed_body_under_the_old_signature_is_refused(world: World) -> None:
    base = draw_chain("alice -[quote]-> carol", world=world)
    for changes in (
        {"scopes": scopes(["pay"])},
        {"audience": world.id("frank")},
        {"expires": NOON + 2 * HOUR},
        {"depth": 9},
        {"issued_at": 0},
        {"purpose": "x"},
        {"id": b"y" * 16},
        {"not_before": 0},
        {"pinned_key": b"p" * 32},
    ):
        refuse(alter(base, 0, **changes), world, "reject.grant_signature", link=0)


def test_a_cache_of_one_chain_says_nothing_of_another(world: World) -> None:
    cache = SignatureCache()
    good = draw_chain("alice -[quote]-> carol", world=world)
    bad = alter(good, 0, scopes=scopes(["pay"]))
    for _ in range(2):
        verify_chain(chain_bytes(good), trust=world.trust, now=NOON, cache=cache)
        with pytest.raises(Rejected) as caught:
            verify_chain(chain_bytes(bad), trust=world.trust, now=NOON, cache=cache)
        assert caught.value.code == "reject.grant_signature"


def test_a_cached_chain_is_judged_by_time_and_state_every_time(world: World) -> None:
    cache, links = SignatureCache(), draw_chain("alice -[quote]-> carol", world=world)
    data = chain_bytes(links)
    verify_chain(data, trust=world.trust, now=NOON, cache=cache)
    with pytest.raises(Rejected) as caught:
        verify_chain(data, trust=world.trust, now=NOON + HOUR, cache=cache)
    assert caught.value.code == "reject.grant_expired"
    world.revoke("grant", links[0].digest)
    with pytest.raises(Rejected) as caught:
        verify_chain(data, trust=world.trust, now=NOON, cache=cache)
    assert caught.value.code == "reject.revoked"


# ── time and state ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_link_counts_within_its_window_only(world: World) -> None:
    links = draw_chain("alice -[a]-> carol", world=world)
    judge(links, world, now=NOON + HOUR - 1)
    judge(links, world, now=NOON - LIMITS.skew)
    refuse(links, world, "reject.grant_expired", now=NOON + HOUR, link=0)
    refuse(links, world, "reject.grant_early", now=NOON - LIMITS.skew - 1, link=0)


@pytest.mark.parametrize("expires", [NOON + HOUR, 2**62, 2**63 - 1])
def test_what_ended_says_whose_it_was_and_when_whatever_its_signer_wrote(world: World, expires: int) -> None:
    """Verifying answers with a code for any number, also one that is no date."""
    links = draw_chain("alice -[a]-> carol", world=world, changes={0: {"expires": expires}})
    with pytest.raises(Rejected) as caught:
        judge(links, world, now=expires)
    says = r"link 0: what user/alice granted carol ended at (2026-\d\d-\d\d \d\d:\d\d:00 UTC|\d+ µs); ask for a new one"
    assert caught.value.code == "reject.grant_expired" and re.fullmatch(says, caught.value.message)


def test_the_window_is_the_intersection_of_all_links(world: World) -> None:
    later = {1: {"not_before": NOON + 60 * SECOND, "expires": NOON + 120 * SECOND}}
    links = draw_chain("alice -[a]-> carol -[a]-> dave", world=world, changes=later)
    refuse(links, world, "reject.grant_early", link=1)
    judge(links, world, now=NOON + 60 * SECOND)
    refuse(links, world, "reject.grant_expired", now=NOON + 120 * SECOND, link=1)
    future_root = {0: {"not_before": NOON + 60 * SECOND}}
    refuse(draw_chain("alice -[a]-> carol -[a]-> dave", world=world, changes=future_root), world, "reject.grant_early")


def test_an_expired_instance_key_delegates_no_more(world: World) -> None:
    """The link is younger than the key it was signed with, and the key's window is over."""
    world.start(world["carol"], salt="short", not_after=NOON + 60 * SECOND)
    links = draw_chain("alice -[a]-> carol -[a]-> dave", world=world, changes={1: {"expires": NOON + 60 * SECOND}})
    judge(links, world)
    refuse(links, world, "reject.grant_expired", now=NOON + 60 * SECOND)
    world.start(world["carol"], salt="later", not_before=NOON + 20 * SECOND)
    links = draw_chain("alice -[a]-> carol -[a]-> dave", world=world, changes={1: {"not_before": NOON - HOUR}})
    refuse(links, world, "reject.key_expired", now=NOON - 11 * SECOND, link=1)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_revoked_grant_breaks_the_whole_chain(world: World, at: int) -> None:
    links = draw_chain(LONG, world=world)
    world.revoke("grant", links[at].digest)
    refuse(links, world, "reject.revoked", link=at)


@pytest.mark.parametrize("who", ["user/alice", "carol", "dave", "erin"])
def test_one_revoked_principal_breaks_the_whole_chain(world: World, who: str) -> None:
    links = draw_chain(LONG, world=world)
    world.revoke("principal", world.id(who).encode())
    refuse(links, world, "reject.revoked")


@pytest.mark.parametrize("who", ["carol", "dave"])
@pytest.mark.parametrize("what", ["instance", "key", "identity"])
def test_a_revoked_issuer_key_or_instance_breaks_the_chain(world: World, who: str, what: str) -> None:
    links = draw_chain(LONG, world=world)
    actor = world[who]
    handle = {"instance": actor.running.handle, "key": actor.instance.id, "identity": actor.identity.id}[what]
    world.revoke("instance" if what == "instance" else "key", handle)
    refuse(links, world, "reject.revoked")


def test_a_revoked_users_key_breaks_what_it_signed(world: World) -> None:
    links = draw_chain("alice -[a]-> carol", world=world)
    world.revoke("key", world["user/alice"].identity.id)
    refuse(links, world, "reject.revoked", link=0)


@pytest.mark.parametrize("state", ["retired", "compromised"])
def test_a_key_in_an_ended_state_signs_no_root(world: World, state: str) -> None:
    links = draw_chain("alice -[a]-> carol", world=world)
    alice = world["user/alice"]
    world.event("key-state", alice.id, [alice.identity.id, state, NOON])
    refuse(links, world, "reject.revoked", link=0)


@pytest.mark.parametrize("who", ["user/alice", "carol", "dave", "erin"])
@pytest.mark.parametrize("state", ["suspended", "retired"])
def test_a_suspended_or_retired_principal_breaks_the_chain(world: World, who: str, state: str) -> None:
    links = draw_chain(LONG, world=world)
    world.event("state", world.id(who), [state])
    refuse(links, world, "reject.not_active")


def test_a_pending_principal_holds_nothing(world: World) -> None:
    from agentbus.delegation.scope import encode_scopes

    ghost = world.id("ghost")
    world.event("create", ghost, ["", "", encode_scopes(scopes(["a"])), [], [], []])
    links = draw_chain("alice -[a]-> carol", world=world, changes={0: {"audience": ghost}})
    refuse(links, world, "reject.not_active", link=0)


def test_an_unknown_principal_holds_nothing(world: World) -> None:
    links = draw_chain("alice -[a]-> carol", world=world, changes={0: {"audience": world.id("nobody")}})
    refuse(links, world, "reject.unknown_principal", link=0)


@pytest.mark.parametrize("who", ["user/alice", "carol", "dave", "erin"])
def test_the_end_of_an_epoch_ends_every_chain_through_it(world: World, who: str) -> None:
    links = draw_chain(LONG, world=world)
    world.event("epoch", world.id(who), [2])
    refuse(links, world, "reject.epoch")


@pytest.mark.parametrize("who", ["carol"])
def test_the_end_of_an_epoch_ends_a_standing_grant(world: World, who: str) -> None:
    links = standing(world, who)
    world.event("epoch", world.id(who), [2])
    refuse(links, world, "reject.epoch", link=0)


def test_a_link_to_an_old_or_coming_epoch_is_refused(world: World) -> None:
    for epoch in (0, 2):
        links = draw_chain("alice -[a]-> carol", world=world, changes={0: {"audience_epoch": epoch}})
        refuse(links, world, "reject.epoch", link=0)


def test_an_old_key_cannot_claim_the_new_epoch(world: World) -> None:
    """Alice lost her key, her epoch ended; the thief signs a root that names the epoch of now."""
    world.event("epoch", world.id("user/alice"), [2])
    links = draw_chain("alice -[a]-> carol", world=world, changes={0: {"issuer_epoch": 2}})
    refuse(links, world, "reject.grant_key", link=0)


def test_a_pinned_identity_key_is_the_only_one(world: World) -> None:
    base = "alice -[a]-> carol -[a]-> dave"
    judge(draw_chain(base, world=world, changes={0: {"pinned_key": world["carol"].identity.id}}), world)
    links = draw_chain(base, world=world, changes={0: {"pinned_key": world["bob"].identity.id}})
    refuse(links, world, "reject.pinned_key", link=1)


def test_an_instance_without_the_purpose_grant_cannot_delegate(world: World) -> None:
    world.start(world["carol"], salt="quiet", purposes=["envelope"])
    refuse(draw_chain("alice -[a]-> carol -[a]-> dave", world=world), world, "reject.grant_key", link=1)


def test_another_agents_instance_key_cannot_delegate(world: World) -> None:
    links = draw_chain("alice -[a]-> carol -[a]-> dave", world=world)
    frank = world["frank"].instance
    refuse(alter(links, 1, key=frank, issuer_key=frank.id), world, "reject.grant_key", link=1)


def test_unknown_instance_keys_are_asked_for_all_at_once(world: World) -> None:
    links = draw_chain(LONG, world=world)
    keys = {world["carol"].instance.id, world["dave"].instance.id}
    trust = world.trust
    for key in keys:
        trust = trust.without_instances([key])
    with pytest.raises(NeedsTrust) as caught:
        judge(links, world, trust=trust)
    assert caught.value.keys == keys


# ── handover ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_handover_is_judged_like_any_link(world: World) -> None:
    drawn = draw_chain("alice -[quote]-> carol -[quote]-> dave", world=world)
    held = judge(drawn[:1], world)
    handed = verify_handover(encode_link(drawn[1]), after=held, trust=world.trust, now=NOON)
    assert (handed.holder, handed.links) == (world.id("dave"), drawn)
    wide = draw_chain("alice -[quote]-> carol -[pay]-> dave", world=world)
    for bad, code in (
        (wide[1], "reject.chain_broken"),  # follows a link 0 with another id
        (drawn[0], "reject.chain_broken"),
        (resign(drawn, 1, world["frank"].instance)[1], "reject.grant_signature"),
        (alter(drawn, 1, key=world["carol"].instance, scopes=scopes(["pay"]))[1], "reject.grant_widens"),
        (alter(drawn, 1, key=world["carol"].instance, depth=5)[1], "reject.depth"),
    ):
        with pytest.raises(Rejected) as caught:
            verify_handover(encode_link(bad), after=held, trust=world.trust, now=NOON)
        assert caught.value.code == code
    world.event("state", world.id("dave"), ["suspended"])
    with pytest.raises(Rejected) as caught:
        verify_handover(encode_link(drawn[1]), after=held, trust=world.trust, now=NOON)
    assert caught.value.code == "reject.not_active"


# ── form ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_grant_comes_back(world: World) -> None:
    for link in draw_chain(LONG, world=world, changes={1: {"purpose": "x", "conversation": b"c" * 16}})[:2]:
        assert decode_grant(link.body) == link.grant
        assert decode_link(encode_link(link)) == link
        assert link.grant.encode() == link.body
    assert link.audience == link.grant.audience
    with pytest.raises(AttributeError):
        _ = link.nothing


@pytest.mark.parametrize("at", range(22))
def test_each_position_of_a_grant_has_its_type(world: World, at: int) -> None:
    for link in draw_chain("alice -[a]-> carol -[a]-> dave", world=world):
        row = unpack(link.body)
        for value in (None, True, -1, 1 << 63, 2, "", "x", b"", b"x" * 15, b"x" * 33, [1], [[]], "x" * 65):
            if type(value) is type(row[at]) and value == row[at]:
                continue
            bad = list(row)
            bad[at] = value
            try:
                found = decode_grant(pack(bad))
            except Malformed:
                continue
            assert found.encode() == pack(bad)  # a number, or an optional text: legal, and told apart
            assert type(value) in (int, str, type(None)) and at in (2, 4, 6, 7, 10, 12, 13, 16, 18), (at, value)


@pytest.mark.parametrize(
    "targets",
    [
        ["spiffe://local.test/group/all", "spiffe://local.test/agent/x"],
        ["spiffe://local.test/agent/x", "spiffe://local.test/group/all"],
        ["spiffe://local.test/agent/y", "spiffe://local.test/agent/x"],
        ["spiffe://local.test/agent/x"] * 2,
        ["*"],
        [""],
        ["spiffe://local.test/agent/*"],
        ["carol"],
        [None],
        [b"x"],
        [["spiffe://local.test/agent/x"]],
        [f"spiffe://local.test/agent/x{n:03}" for n in range(257)],
    ],
    ids=range(12),
)
def test_targets_have_one_form_and_no_wildcard(world: World, targets: list[Any]) -> None:
    row = unpack(draw_chain("alice -[a]-> carol", world=world)[0].body)
    row[15] = targets
    with pytest.raises(Malformed) as caught:
        decode_grant(pack(row))
    assert caught.value.code in ("malformed.grant", "malformed.id")


def test_root_fields_stand_in_link_0_only(world: World) -> None:
    first, second = draw_chain("alice -[a]-> carol -[a]-> dave", world=world)
    for link, changes in (
        (first, {"root_kind": None}),
        (first, {"prev": b"p" * 32}),
        (first, {"root": b"p" * 32}),
        (first, {"n": 1}),
        (first, {"root_kind": "admin"}),
        (first, {"evidence": (7,)}),
        (first, {"root_kind": "token"}),
        (first, {"root_kind": "token", "evidence": (7,)}),
        (first, {"root_kind": "token", "evidence": ("i", "j", "", -1)}),
        (first, {"root_kind": "token", "evidence": ("i" * 257, "j", "", 1)}),
        (first, {"root_kind": "token", "evidence": ("i", "j", "")}),
        (first, {"root_kind": "consent"}),
        (first, {"root_kind": "consent", "evidence": (True,)}),
        (first, {"root_kind": "consent", "evidence": (1, 2)}),
        (second, {"evidence": (7,)}),
        (second, {"root_kind": "user"}),
        (second, {"prev": None}),
        (second, {"root": None}),
        (second, {"n": 0}),
    ):
        with pytest.raises(Malformed) as caught:
            decode_grant(link.grant._replace(**changes).encode())
        assert caught.value.code == "malformed.grant"


def test_a_chain_has_1_to_12_links_of_two_parts(world: World) -> None:
    link = draw_chain("alice -[a]-> carol", world=world)[0]
    for rows in (
        [],
        [[link.body, link.signature]] * 13,
        [[link.body]],
        [[link.body, link.signature, b""]],
        [link.body],
        [[link.body, link.signature[:-1]]],
        [["x", link.signature]],
        [[link.body, None]],
        [[bytes(LIMITS.link + 1), link.signature]],
    ):
        refuse(bytes(pack(rows)), world, "malformed.chain")
    refuse(bytes(LIMITS.chain + 1), world, "malformed.chain")


def test_a_chain_of_twelve_is_good_and_of_thirteen_is_not() -> None:
    names = [f"a{n}" for n in range(13)]
    world = draw_world(*names, ceiling=["q"])
    drawing = "alice" + "".join(f" -[q]-> {name}" for name in names)
    links = draw_chain(drawing, world=world)
    judge(links[:12], world)
    refuse(links, world, "malformed.chain")


def test_a_second_spelling_of_a_chain_is_refused(world: World) -> None:
    data = chain_bytes(draw_chain("alice -[a]-> carol", world=world))
    refuse(b"\xdc\x00\x01" + data[1:], world, "malformed.not_canonical")
    refuse(data + b"\xc0", world, "malformed.codec")


# ── keys whose time to issue is over ─────────────────────────────────────────────────────────────────────────────────


def _rotated(world: World, name: str, overlap: int) -> SigningKey:
    """Another key follows; the old one verifies for ``overlap``."""
    actor, new = world[name], SigningKey(seed(name, "second"))
    body = Rotation(
        world.domain, actor.id, 1, actor.identity.id, new.public.raw, "activate", overlap, world.now + 30 * SECOND
    )
    world.event("rotate", actor.id, list(body.proven_by(actor.identity, new)))
    return new


def test_what_a_key_signed_before_it_was_followed_counts_until_the_overlap_ends() -> None:
    world = draw_world("carol", "dave")
    links = draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world)
    world.now += SECOND
    _rotated(world, "user/alice", 60 * SECOND)
    _rotated(world, "carol", 60 * SECOND)
    verify_chain(chain_bytes(links), trust=world.trust, now=world.now)
    with pytest.raises(Rejected) as caught:
        verify_chain(chain_bytes(links), trust=world.trust, now=world.now + 60 * SECOND)
    assert caught.value.code == "reject.key_expired"


def test_a_key_that_was_followed_grants_nothing_new() -> None:
    world = draw_world("carol")
    _rotated(world, "user/alice", HOUR)
    world.now += 31 * SECOND
    links = draw_chain("alice -[pay]-> carol", world=world)
    with pytest.raises(Rejected) as caught:
        verify_chain(chain_bytes(links), trust=world.trust, now=world.now)
    assert caught.value.code == "reject.key_closed"


@pytest.mark.parametrize("name", ["user/alice", "carol"])
def test_a_tainted_key_grants_nothing_new_and_what_it_granted_before_counts(name: str) -> None:
    world = draw_world("carol", "dave")
    before = draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world)
    world.now += SECOND
    world.event("key-state", world.id(name), [world[name].identity.id, "tainted", world.now])
    verify_chain(chain_bytes(before), trust=world.trust, now=world.now)
    world.now += SECOND
    after = draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world)
    with pytest.raises(Rejected) as caught:
        verify_chain(chain_bytes(after), trust=world.trust, now=world.now)
    assert caught.value.code == "reject.key_closed"


def test_a_root_that_is_dated_to_before_the_taint_does_not_outlive_it_by_long() -> None:
    """Whoever has the key writes what date he likes; so what a tainted key signed ends within the hour."""
    world = draw_world("carol")
    world.now += SECOND
    world.event("key-state", world.id("user/alice"), [world["user/alice"].identity.id, "tainted", world.now])
    tainted, memory = world.now, Memory()
    links = draw_chain("alice -[pay]-> carol", world=world)[:1]
    long = NOON + 30 * 24 * 3600 * SECOND
    back_dated = alter(links, 0, key=world["user/alice"].identity, issued_at=NOON, not_before=NOON, expires=long)
    verify_chain(chain_bytes(back_dated), trust=world.trust, now=tainted + TAINT_LASTS - 1, cache=memory)
    for cache in (memory, Memory()):
        with pytest.raises(Rejected) as caught:
            verify_chain(chain_bytes(back_dated), trust=world.trust, now=tainted + TAINT_LASTS, cache=cache)
        assert caught.value.code == "reject.key_expired"


def test_a_remembered_verdict_ends_with_the_overlap() -> None:
    """The memory of verdicts knows every window that was looked at, the overlap's too."""
    world = draw_world("carol", "dave")
    links = draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world)
    _rotated(world, "carol", 60 * SECOND)
    memory = Memory()
    verify_chain(chain_bytes(links), trust=world.trust, now=world.now, cache=memory)
    verify_chain(chain_bytes(links), trust=world.trust, now=world.now + 59 * SECOND, cache=memory)
    with pytest.raises(Rejected):
        verify_chain(chain_bytes(links), trust=world.trust, now=world.now + 60 * SECOND, cache=memory)
    assert memory.refuses(world["carol"].running, world.trust, world.now) is None
    assert memory.refuses(world["carol"].running, world.trust, world.now + 60 * SECOND) == "reject.key_expired"


def test_a_consent_key_that_ends_later_counts_until_then() -> None:
    world = draw_world("carol")
    data = chain_bytes(standing(world, "carol"))
    ends = world.now + 60 * SECOND
    world.event("online-retired", "consent", [world.online["consent"].id, ends], key=world.root)
    verify_chain(data, trust=world.trust, now=ends - 1)
    with pytest.raises(Rejected) as caught:
        verify_chain(data, trust=world.trust, now=ends)
    assert caught.value.code == "reject.grant_key"
