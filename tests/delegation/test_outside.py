"""Roots that rest on a token or a consent: everybody judges them against the directory's log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.delegation.chain import Authority, verify_chain
from agentbus.delegation.grant import Grant, Link
from agentbus.delegation.outside import Consent, Issuer, IssuerKey, decode_consent, decode_issuer
from agentbus.delegation.scope import scopes
from agentbus.delegation.statements import directory_id
from agentbus.errors import AgentBusError, InvalidKey, Malformed, Rejected
from agentbus.testing.draw import HOUR, NOON, World, chain_bytes, draw_world, extend, seed, sign_link
from agentbus.wire.ids import everyone
from agentbus.wire.limits import SECOND

IDP = "https://idp.example"


def issuer(world: World, **changes: Any) -> Issuer:
    rule = Issuer(
        IDP, True, "agentbus", (IssuerKey("k1", "EdDSA", world["alice-key"].identity.public.raw),),
        scopes(["docs:*", "quote"]), (("web", world.id("carol")),), "sub", "", 2, 3600, (world.id("carol"),),
    )  # fmt: skip
    return replace(rule, **changes)


@pytest.fixture
def world() -> World:
    made = draw_world()
    made.principal("alice-key", running=False)
    made.event("issuer", IDP, issuer(made).encode())
    return made


def consent(world: World, **changes: Any) -> int:
    """Record a consent; the index of its entry."""
    of = Consent(
        world.id("user/alice"), world.id("carol"), scopes(["docs:*"]), tuple(sorted(map(world.id, ("bob", "dave")))), 1,
        NOON + HOUR // 2, f"token:{IDP}", NOON, seed("the text that was shown"), world.id("carol"),
    )  # fmt: skip
    made = replace(of, **changes)
    world.event("consent", made.user, made.encode())
    return world.trust.size - 1


def root(world: World, kind: str, evidence: tuple[Any, ...], *, key: str = "consent", **changes: Any) -> Link:
    carol = world["carol"]
    grant = Grant(
        directory_id(world.domain), 1, world.online[key].id, NOON, carol.id, 1, None, world.id("user/alice"), None, 0,
        None, NOON, NOON + 300 * SECOND, scopes(["docs:read"]), (world.id("bob"),), 1, seed("id")[:16], None, None,
        kind, evidence,
    )._replace(**changes)  # fmt: skip
    return sign_link(grant, world.online[key])


def token_root(world: World, **changes: Any) -> Link:
    return root(world, "token", changes.pop("evidence", (IDP, "jti-1", "", NOON + 300 * SECOND)), **changes)


def judge(world: World, *links: Link, now: int = NOON) -> Authority:
    return verify_chain(chain_bytes(links), trust=world.trust, now=now)


def refuse(world: World, code: str, *links: Link) -> None:
    with pytest.raises(Rejected) as caught:
        judge(world, *links)
    assert caught.value.code == code, caught.value


def test_a_token_root_is_good_and_its_origin_is_told_apart(world: World) -> None:
    held = judge(world, token_root(world))
    assert (held.root_kind, held.subject, held.holder) == ("token", world.id("user/alice"), world.id("carol"))
    assert held.links[0].evidence == (IDP, "jti-1", "", NOON + 300 * SECOND)


def test_a_token_root_is_narrowed_like_any_other(world: World) -> None:
    carol, dave = world["carol"], world["dave"]
    links = extend(
        (token_root(world),), key=carol.instance, issuer=carol.id, audience=dave.id, audience_epoch=1, evidence=None
    )
    assert judge(world, *links).holder == dave.id
    wide = extend(
        (token_root(world),), key=carol.instance, issuer=carol.id, audience=dave.id, audience_epoch=1, evidence=None,
        scopes=scopes(["docs:*"]),
    )  # fmt: skip
    refuse(world, "reject.grant_widens", *wide)


@pytest.mark.parametrize(
    "changes",
    [
        {"scopes": scopes(["pay"])},
        {"scopes": scopes(["docs:*", "pay"])},
        {"expires": NOON + 301 * SECOND},
        {"depth": 3},
        {"evidence": ("https://evil.example", "jti-1", "", NOON + 300 * SECOND)},
        {"evidence": (IDP + "/", "jti-1", "", NOON + 300 * SECOND)},
    ],
    ids=["scope", "one scope more", "outlives the token", "depth", "issuer", "issuer's spelling"],
)
def test_a_token_root_gives_no_more_than_its_issuer_may(world: World, changes: dict[str, Any]) -> None:
    """The directory's own consent key signed it, and every receiver refuses it all the same."""
    refuse(world, "reject.issuer", token_root(world, **changes))


def test_a_token_root_is_for_the_issuers_clients_alone(world: World) -> None:
    refuse(world, "reject.issuer", token_root(world, audience=world.id("dave")))


def test_an_issuer_that_counts_no_more_ends_every_root_that_rests_on_it(world: World) -> None:
    link = token_root(world)
    judge(world, link)
    world.event("issuer", IDP, issuer(world, active=False).encode())
    refuse(world, "reject.issuer", link)


def test_a_narrower_rule_cuts_roots_that_were_signed_before(world: World) -> None:
    link = token_root(world)
    world.event("issuer", IDP, issuer(world, scopes=scopes(["quote"])).encode())
    refuse(world, "reject.issuer", link)


def test_a_disabled_users_token_roots_count_no_more(world: World) -> None:
    link = token_root(world)
    world.event("state", world.id("user/alice"), ["suspended"])
    refuse(world, "reject.not_active", link)


@pytest.mark.parametrize("key", ["identity", "head", "token"])
def test_only_the_consent_key_signs_roots_for_users(world: World, key: str) -> None:
    refuse(world, "reject.grant_key", token_root(world, key=key))
    at = consent(world)
    refuse(world, "reject.grant_key", root(world, "consent", (at,), key=key))


@pytest.mark.parametrize("subject", ["carol", "service/directory"])
def test_only_users_are_vouched_for_by_a_token(world: World, subject: str) -> None:
    who = directory_id(world.domain) if "/" in subject else world.id(subject)
    refuse(world, "reject.root_kind", token_root(world, subject=who))


def test_the_user_appears_once_in_her_own_chain(world: World) -> None:
    refuse(world, "reject.cycle", token_root(world, audience=world.id("user/alice")))
    carol, alice = world["carol"], world["user/alice"]
    links = extend(
        (token_root(world),), key=carol.instance, issuer=carol.id, audience=alice.id, audience_epoch=1, evidence=None
    )
    refuse(world, "reject.cycle", *links)


def test_a_consent_root_is_good_within_what_the_user_agreed_to(world: World) -> None:
    at = consent(world)
    held = judge(world, root(world, "consent", (at,)))
    assert (held.root_kind, held.user) == ("consent", world.id("user/alice"))


@pytest.mark.parametrize(
    "changes",
    [
        {"scopes": scopes(["quote"])},
        {"targets": (everyone("local.test"),)},
        {"targets": ("spiffe://local.test/agent/erin",)},
        {"expires": NOON + HOUR},
        {"depth": 2},
        {"audience": "spiffe://local.test/agent/dave"},
    ],
    ids=["scope", "everyone", "target", "expires", "depth", "holder"],
)
def test_a_consent_root_takes_no_more_than_she_agreed_to(world: World, changes: dict[str, Any]) -> None:
    at = consent(world)
    if "audience" in changes:
        changes = {"audience": world.id("dave")}
    refuse(world, "reject.consent", root(world, "consent", (at,), **changes))


def test_a_consent_by_a_token_ends_with_its_issuer(world: World) -> None:
    at = consent(world, method=f"token:{IDP}")
    made = root(world, "consent", (at,))
    judge(world, made)
    world.event("issuer", IDP, issuer(world, active=False).encode())
    refuse(world, "reject.consent", made)


def test_nobody_uses_another_users_consent_or_none(world: World) -> None:
    world.principal("eve", kind="user", rights=None)
    at = consent(world, user=world.id("user/eve"))
    refuse(world, "reject.consent", root(world, "consent", (at,)))
    for index in (0, at + 1, 1 << 40):
        refuse(world, "reject.consent", root(world, "consent", (index,)))


def test_consents_that_ended_are_forgotten_and_others_kept(world: World) -> None:
    short, long = consent(world, expires=NOON + 1), consent(world)
    assert {short, long} <= set(world.trust.consents)
    world.now = NOON + SECOND
    third = consent(world)
    assert set(world.trust.consents) == {long, third}


def test_a_consent_is_of_and_for_somebody_enrolled(world: World) -> None:
    for changes in ({"user": world.id("user/nobody")}, {"holder": world.id("nobody")}):
        with pytest.raises(Rejected) as caught:
            consent(world, **changes)
        assert caught.value.code == "reject.statement_invalid"


def test_a_weak_key_of_an_issuer_enters_nowhere(world: World) -> None:
    for raw in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32):
        with pytest.raises(InvalidKey):
            world.event("issuer", IDP, issuer(world, keys=(IssuerKey("k", "EdDSA", raw),)).encode())


KEY = IssuerKey("k", "ES256", b'{"kty":"EC"}')


@pytest.mark.parametrize(
    "changes",
    [
        {"audience": ""},
        {"claim": ""},
        {"max_depth": 11},
        {"consent_seconds": -1},
        {"keys": (KEY, KEY)},
        {"keys": (replace(KEY, algorithm="none"),)},
        {"keys": (replace(KEY, algorithm="HS256"),)},
        {"keys": (replace(KEY, key=b'{"kty": "EC"}'),)},
        {"keys": (replace(KEY, key=b"not json"),)},
        {"keys": (KEY,) * 17},
        {"clients": (("web", "carol"),)},
        {"suffix": "x" * 257},
    ],
    ids=range(12),
)
def test_an_issuer_is_recorded_in_one_form(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        world.event("issuer", IDP, issuer(world, **changes).encode())


def test_records_come_back(world: World) -> None:
    rule = issuer(world, keys=(KEY,), suffix="@corp.example")
    assert decode_issuer(IDP, rule.encode()) == rule
    at = consent(world)
    of = world.trust.consents[at]
    assert decode_consent(of.user, of.encode()) == of


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(["issuer", "consent"]), payload=st.lists(ANY, min_size=0, max_size=11))
def test_arbitrary_records_raise_what_is_documented(kind: str, payload: list[Any]) -> None:
    world = draw_world("carol")
    try:
        world.event(kind, world.id("user/alice"), payload)
    except OverflowError:
        pass  # an integer that msgpack has no form for
    except AgentBusError as error:
        assert isinstance(error, Malformed | InvalidKey | Rejected), error
