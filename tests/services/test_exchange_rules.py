"""The exchange table: every parameter omitted, repeated, swapped; tokens that are somebody else's or rest on nothing.

One pure function decides, so it is asked directly; ``test_exchange.py`` shows the same over the bus.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.authn.foreign import verify_foreign
from agentbus.authn.jws import read_jwks
from agentbus.delegation.outside import Issuer
from agentbus.delegation.scope import AtMost, Scope, scopes
from agentbus.errors import AgentBusError, Denied, Malformed, Rejected, RequestInvalid
from agentbus.services import exchange_rules
from agentbus.services.exchange_rules import ACCESS_TOKEN, CHAIN, GRANT_TYPE, Access, Client, Root, Tokens, judge
from agentbus.services.exchange_tokens import is_own, issuer_name, sign_access, verify_access
from agentbus.testing.draw import NOON, World, alter, chain_bytes, draw_chain, draw_world, extend, seed, standing
from agentbus.wire.ids import b64, everyone
from agentbus.wire.limits import SECOND
from tests.authn.idp import AUDIENCE, IDP, IdentityProvider

PROVIDER = IdentityProvider()
NOW = NOON // SECOND
JWT = "urn:ietf:params:oauth:token-type:jwt"
KEYS = read_jwks(json.dumps({"keys": [k for k in PROVIDER.jwks["keys"] if k["kid"] == "ed"]}))


def town() -> World:
    world = draw_world("bob", "carol", "dave", "erin")
    world.principal("ann", kind="user", rights=["docs:*", "quote"])
    world.principal("shop", kind="service")
    clients = (("mobile", world.id("dave")), ("web", world.id("carol")))
    rule = Issuer(
        IDP, True, AUDIENCE, KEYS, scopes(["docs:*", "pay"]), clients, "sub", "", 2, 3600, (world.id("carol"),)
    )
    world.event("issuer", IDP, rule.encode())
    return world


@pytest.fixture
def world() -> World:
    return town()


def client(world: World, name: str, *, actor: bool = True) -> Client:
    who = world[name]
    return Client(who.id, who.identity.id, who.id if actor else None)


def ask(world: World, parameters: Any, by: str = "carol", *, actor: bool = True, now: int = NOON) -> Root | Access:
    pairs = list(parameters.items()) if isinstance(parameters, dict) else parameters
    tokens = Tokens(
        foreign=lambda token: verify_foreign(token, world.trust.issuers, now=now),
        own=lambda token: verify_access(token, world.trust, now=now),
        is_own=lambda token: is_own(token, world.domain),
    )
    return judge(pairs, client=client(world, by, actor=actor), trust=world.trust, now=now, tokens=tokens)


def refuse(world: World, code: str, parameters: Any, by: str = "carol", **more: Any) -> AgentBusError:
    with pytest.raises(AgentBusError) as caught:
        ask(world, parameters, by, **more)
    assert caught.value.code == code, caught.value
    return caught.value


def foreign(**changes: Any) -> dict[str, str]:
    """Parameters that turn the token of user ann, made for client web, into an authority."""
    return {
        "grant_type": GRANT_TYPE, "subject_token": PROVIDER.token(NOW, **{"sub": "ann", **changes}),
        "subject_token_type": JWT, "requested_token_type": CHAIN, "scope": "docs:read",
    }  # fmt: skip


def held(world: World, drawing: str = "alice -[docs:*,quote]-> bob -[docs:*]-> carol", **more: Any) -> dict[str, str]:
    """Parameters that turn a chain that carol holds into an access token for erin."""
    links = draw_chain(drawing, world=world, **{"depth": 3, **more})
    return {
        "grant_type": GRANT_TYPE, "subject_token": b64(chain_bytes(links)), "subject_token_type": CHAIN,
        "requested_token_type": ACCESS_TOKEN, "audience": "erin", "scope": "docs:read",
    }  # fmt: skip


def own(world: World, **more: Any) -> dict[str, str]:
    """Parameters with which erin, for whom an access token is, turns it into one for the shop."""
    first = ask(world, held(world, **more))
    assert isinstance(first, Access)
    token = sign_access(first, world.online["token"], domain=world.domain, now=NOON, jti=b"j" * 16)
    return {
        "grant_type": GRANT_TYPE, "subject_token": token, "subject_token_type": ACCESS_TOKEN,
        "requested_token_type": ACCESS_TOKEN, "audience": "service/shop", "scope": "docs:read",
    }  # fmt: skip


KINDS = {"foreign": (lambda world: foreign(), "carol"), "chain": (held, "carol"), "own": (own, "erin")}


# ── what is granted ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_outside_token_becomes_the_root_of_a_chain(world: World) -> None:
    granted = ask(world, {**foreign(acr="mfa"), "targets": "bob dave", "expires_in": "60", "depth": "2"})
    assert isinstance(granted, Root)
    assert (granted.user, granted.holder) == (world.id("user/ann"), world.id("carol"))
    assert granted.targets == (world.id("bob"), world.id("dave")) and granted.depth == 2
    assert granted.expires == NOON + 60 * SECOND and granted.consent is None
    assert granted.token[0] == IDP and granted.token[2:] == ("mfa", NOON + 900 * SECOND)


def test_an_authority_does_not_outlive_the_token(world: World) -> None:
    granted = ask(world, {**foreign(exp=NOW + 30), "expires_in": "600"})
    assert granted.expires == NOON + 30 * SECOND
    assert ask(world, foreign()).targets == (everyone(world.domain),)


def test_a_consent_outlives_the_token_and_is_bounded_by_the_issuers_rule(world: World) -> None:
    text = b64(seed("what was shown"))
    granted = ask(world, {**foreign(exp=NOW + 30, auth_time=NOW - 50), "expires_in": "7200", "consent": text})
    assert isinstance(granted, Root) and granted.consent is not None
    assert granted.expires == granted.consent.expires == NOON + 3600 * SECOND
    assert granted.consent.method == f"token:{IDP}" and granted.consent.text == seed("what was shown")
    assert granted.consent.authenticated_at == NOON - 50 * SECOND and granted.consent.approved_by == world.id("carol")


def test_granted_is_what_everybody_allows(world: World) -> None:
    """Issuer: docs:*, pay. Token: docs:*, pay, quote. Her rights: docs:*, quote. Ceiling: quote, pay, docs:*."""
    granted = ask(world, {**foreign(scope="docs:* pay quote"), "scope": "docs:read pay quote docs:write admin"})
    assert [str(s) for s in granted.scopes] == ["docs:read", "docs:write"]
    granted = ask(world, {**foreign(scope="docs:read openid"), "scope": "docs:read docs:write"})
    assert [str(s) for s in granted.scopes] == ["docs:read"], "the token speaks of less"
    granted = ask(world, {**foreign(), "scope": "docs:read[pages<=5]"})
    assert granted.scopes == (Scope("docs:read", pages=AtMost(5)),), "and may be asked for with caveats"


def test_a_chain_becomes_an_access_token_with_nested_actors(world: World) -> None:
    granted = ask(world, held(world))
    assert isinstance(granted, Access)
    assert (granted.subject, granted.audience, granted.client) == (
        world.id("user/alice"), world.id("erin"), world.id("carol"),
    )  # fmt: skip
    assert granted.act == {"sub": world.id("carol"), "act": {"sub": world.id("bob")}}
    assert granted.expires == NOON + 300 * SECOND and granted.scopes == ("docs:read",)
    assert len(granted.links) == 2 and granted.depth == 2


def test_an_agent_for_itself_is_the_subject_and_nobody_acts(world: World) -> None:
    links = standing(world, "carol")
    granted = ask(world, {**held(world), "subject_token": b64(chain_bytes(links))})
    assert isinstance(granted, Access) and granted.subject == world.id("carol") and granted.act is None


def test_an_access_token_becomes_a_narrower_one_and_remembers_who_acted(world: World) -> None:
    parameters = own(world)
    granted = ask(world, parameters, by="erin")
    assert isinstance(granted, Access) and granted.audience == world.id("service/shop")
    assert granted.act == {"sub": world.id("erin"), "act": {"sub": world.id("carol"), "act": {"sub": world.id("bob")}}}
    assert granted.subject == world.id("user/alice") and granted.depth == 1
    assert granted.expires == NOON + 300 * SECOND


# ── parameters omitted, repeated, swapped ────────────────────────────────────────────────────────────────────────────


NEEDED = {
    "foreign": {"grant_type", "subject_token", "subject_token_type", "requested_token_type", "scope"},
    "chain": {"grant_type", "subject_token", "subject_token_type", "audience", "scope"},
    "own": {"grant_type", "subject_token", "subject_token_type", "audience", "scope"},
}


@pytest.mark.parametrize("empty", [False, True], ids=["omitted", "empty"])
@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, names in NEEDED.items() for n in sorted(names)])
def test_every_parameter_omitted(world: World, kind: str, name: str, empty: bool) -> None:
    """keycloak#52691: what is left out is never taken to mean anything. RFC 6749 §3.2: without a value is left out."""
    make, by = KINDS[kind]
    parameters = {n: v for n, v in make(world).items() if n != name} | ({name: ""} if empty else {})
    code = "denied.exchange_empty_scope" if name == "scope" else "request.parameter_missing"
    if name == "requested_token_type":
        code = "request.token_type"  # without it an access token is meant, and there is none for a foreign token
    refuse(world, code, parameters, by)


def test_the_requested_type_may_be_left_out_where_an_access_token_is_meant(world: World) -> None:
    for kind in ("chain", "own"):
        make, by = KINDS[kind]
        parameters = make(world)
        del parameters["requested_token_type"]
        assert isinstance(ask(world, parameters, by), Access)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_every_parameter_repeated(world: World, kind: str, same: bool) -> None:
    make, by = KINDS[kind]
    good = list(make(world).items())
    for name, value in [*good, ("actor_token", ""), ("nonsense", "x")]:
        twice = [*good, (name, value), (name, value if same else "")]
        refuse(world, "request.parameter_repeated", twice, by)


def test_every_two_parameters_swapped(world: World) -> None:
    """Values under each other's names: nothing is granted that was not asked for in so many words."""
    for kind, (make, by) in KINDS.items():
        parameters = make(world)
        for one in parameters:
            for other in parameters:
                if one < other and parameters[one] != parameters[other]:
                    swapped = parameters | {one: parameters[other], other: parameters[one]}
                    with pytest.raises((RequestInvalid, Denied, Rejected, Malformed)):
                        raise_if(ask(world, swapped, by), kind, one, other)


def raise_if(granted: Any, *where: str) -> None:
    pytest.fail(f"{where}: {granted}")


def test_subject_and_actor_swapped(world: World) -> None:
    actor = b64(chain_bytes(standing(world, "carol")))
    good = {**foreign(), "actor_token": actor, "actor_token_type": CHAIN}
    assert isinstance(ask(world, good), Root)
    swapped = good | {"subject_token": actor, "actor_token": good["subject_token"]}
    refuse(world, "malformed.base64", swapped)
    refuse(world, "request.actor_token", swapped | {"subject_token_type": CHAIN, "actor_token_type": JWT})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"grant_type": "authorization_code"}, "request.grant_type"),
        ({"grant_type": GRANT_TYPE.upper()}, "request.grant_type"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "request.token_type"),
        ({"subject_token_type": CHAIN}, "request.token_type"),
        ({"requested_token_type": JWT}, "request.token_type"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "request.token_type"),
        ({"resource": "https://api.example"}, "request.parameter_unsupported"),
        ({"scope": "Docs Read"}, "request.parameter_value"),
        ({"scope": "docs:*:x"}, "request.parameter_value"),
        ({"depth": "-1"}, "request.parameter_value"),
        ({"depth": "1e1"}, "request.parameter_value"),
        ({"depth": "٣"}, "request.parameter_value"),
        ({"expires_in": "0"}, "request.parameter_value"),
        ({"expires_in": "9" * 20}, "request.parameter_value"),
        ({"targets": "no name"}, "denied.exchange_audience"),
        ({"targets": "UPPER"}, "request.parameter_value"),
        ({"targets": "spiffe://other.test/agent/x"}, "denied.exchange_audience"),
        ({"consent": "not a digest"}, "malformed.base64"),
        ({"actor_token": "x"}, "request.actor_token"),
        ({"actor_token_type": CHAIN}, "request.actor_token"),
        ({"actor_token": "x", "actor_token_type": CHAIN}, "malformed.base64"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_every_value_that_cannot_be_meant(world: World, changes: dict[str, str], code: str) -> None:
    if changes.get("targets") == "no name":
        code = "granted"  # two names that are names: a target need not exist, and gives nothing while it does not
        assert ask(world, foreign() | changes).targets == (world.id("name"), world.id("no"))
        return
    refuse(world, code, foreign() | changes)


def test_what_is_not_known_is_ignored(world: World) -> None:
    """RFC 6749 §3.2: unrecognised parameters MUST be ignored, but those that would narrow."""
    assert ask(world, foreign() | {"ui_locales": "de"}) is not None


# ── whose token it is ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_that_was_made_for_another_client(world: World) -> None:
    refuse(world, "denied.exchange_client", foreign(client_id="mobile"))
    refuse(world, "denied.exchange_client", foreign(client_id="unknown"))
    refuse(world, "denied.exchange_client", foreign(), by="dave")
    refuse(world, "denied.exchange_client", foreign(), by="bob")
    assert ask(world, foreign(client_id="mobile"), by="dave").holder == world.id("dave")


def test_a_chain_that_somebody_else_holds(world: World) -> None:
    """Stripped, seen, or handed on: a chain is used by its last audience alone."""
    refuse(world, "denied.exchange_client", held(world), by="dave")
    refuse(world, "denied.exchange_client", held(world, "alice -[docs:*]-> bob"), by="carol")
    refuse(world, "denied.exchange_client", held(world), by="bob")


def test_an_access_token_that_is_for_another_audience(world: World) -> None:
    for by in ("carol", "bob", "dave"):
        refuse(world, "denied.exchange_client", own(world), by=by)


def test_an_actor_token_that_is_somebody_elses(world: World) -> None:
    other = {"actor_token": b64(chain_bytes(standing(world, "dave"))), "actor_token_type": CHAIN}
    refuse(world, "denied.exchange_client", foreign() | other)


@pytest.mark.parametrize("claim", ["act", "may_act"])
def test_act_or_may_act_without_the_actor(world: World, claim: str) -> None:
    """What the token contains decides; leaving out the actor's parameters opens no other way."""
    refuse(world, "denied.exchange_actor", foreign(**{claim: {"sub": "web"}}), actor=False)
    refuse(world, "denied.exchange_actor", foreign(**{claim: {"sub": "mobile"}}))
    refuse(world, "denied.exchange_actor", foreign(**{claim: {"sub": str(world.id("dave"))}}))
    for name in ("web", str(world.id("carol"))):
        assert isinstance(ask(world, foreign(**{claim: {"sub": name}})), Root)
    proof = {"actor_token": b64(chain_bytes(standing(world, "carol"))), "actor_token_type": CHAIN}
    assert isinstance(ask(world, foreign(**{claim: {"sub": "web"}}) | proof, actor=False), Root)


def test_an_access_token_with_act_needs_the_actors_proof(world: World) -> None:
    refuse(world, "denied.exchange_actor", own(world), by="erin", actor=False)


def test_may_act_in_our_own_token_names_the_only_one(world: World) -> None:
    first = ask(world, held(world))
    from agentbus.authn.jws import read_compact, sign_compact

    token = sign_access(first, world.online["token"], domain=world.domain, now=NOON, jti=b"j" * 16)
    claims = read_compact(token).claims | {"may_act": {"sub": world.id("dave")}}
    token = sign_compact(world.online["token"], {"typ": "at+jwt"}, claims)
    refuse(world, "denied.exchange_actor", own(world) | {"subject_token": token}, by="erin")


@pytest.mark.parametrize("sub", ["nobody", "Ann", "ann/../alice", "user/ann", "", "spiffe://local.test/user/ann"])
def test_a_user_who_is_not_here(world: World, sub: str) -> None:
    code = "reject.token_claims" if not sub else "denied.exchange_user"
    refuse(world, code, foreign(sub=sub))


def test_no_outside_issuer_speaks_for_a_user_with_all_rights(world: World) -> None:
    refuse(world, "denied.exchange_user", foreign(sub="alice"))


def test_a_user_who_was_disabled(world: World) -> None:
    world.event("state", world.id("user/ann"), ["suspended"])
    refuse(world, "denied.exchange_user", foreign())


# ── how much ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS)
def test_empty_scope_is_never_all(world: World, kind: str) -> None:
    """CVE-2026-56668."""
    make, by = KINDS[kind]
    for empty in (" ", "   "):
        refuse(world, "denied.exchange_empty_scope", make(world) | {"scope": empty}, by)


@pytest.mark.parametrize(
    ("kind", "code"),
    [("foreign", "denied.exchange_scope"), ("chain", "denied.scope"), ("own", "denied.exchange_scope")],
)
def test_a_scope_that_is_not_held(world: World, kind: str, code: str) -> None:
    make, by = KINDS[kind]
    for wide in ("admin", "docs", "doc:*"):
        refuse(world, code, make(world) | {"scope": wide}, by)


def test_a_ceiling_and_the_users_rights_cut_every_kind(world: World) -> None:
    from agentbus.delegation.scope import encode_scopes

    for who in ("carol", "erin"):
        world.event("amend", world.id(who), ["", "", encode_scopes(scopes(["pay"])), [everyone(world.domain)], [], []])
    refuse(world, "denied.exchange_scope", foreign())
    refuse(world, "denied.ceiling", held(world))
    again = town()
    parameters = own(again)
    again.event("amend", again.id("user/alice"), ["", "", [], [], encode_scopes(scopes(["pay"])), []])
    refuse(again, "denied.exchange_scope", parameters, by="erin")
    refuse(again, "denied.rights", held(again))


def test_a_caveat_cannot_be_left_behind(world: World) -> None:
    capped = {1: {"scopes": scopes([Scope("docs:read", pages=AtMost(5))])}}
    refuse(world, "denied.exchange_caveat", held(world, changes=capped))
    refuse(world, "denied.exchange_caveat", held(world) | {"scope": "docs:read[pages<=5]"})


@pytest.mark.parametrize("audience", ["nobody", "user/alice", "spiffe://other.test/agent/erin", "service/gone"])
def test_a_wrong_audience(world: World, audience: str) -> None:
    refuse(world, "denied.exchange_audience", held(world) | {"audience": audience})
    refuse(world, "denied.exchange_audience", own(world) | {"audience": audience}, by="erin")


def test_an_audience_beyond_the_targets(world: World) -> None:
    refuse(world, "denied.exchange_audience", held(world, targets=["bob", "carol"]))
    narrow = own(world, targets=["erin"])
    refuse(world, "denied.exchange_audience", narrow, by="erin")
    world.event("state", world.id("erin"), ["suspended"])
    refuse(world, "denied.exchange_audience", held(world))


def test_depth_plus_one(world: World) -> None:
    assert ask(world, foreign() | {"depth": "2"}).depth == 2
    refuse(world, "denied.exchange_depth", foreign() | {"depth": "3"})
    refuse(world, "denied.exchange_depth", own(world, depth=1), by="erin")
    assert ask(world, own(world, depth=2), by="erin").depth == 0


def test_a_chain_of_one_conversation_does_not_leave_it(world: World) -> None:
    bound = {0: {"conversation": b"c" * 16}, 1: {"conversation": b"c" * 16}}
    refuse(world, "denied.exchange_conversation", held(world, changes=bound))


def test_a_consent_by_whoever_may_not_record_one(world: World) -> None:
    text = {"consent": b64(seed("text"))}
    refuse(world, "denied.exchange_consent", foreign(client_id="mobile") | text, by="dave")
    rule = replace(world.trust.issuers[IDP], consent_seconds=0)
    world.event("issuer", IDP, rule.encode())
    refuse(world, "denied.exchange_consent", foreign() | text)


# ── what it rests on ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_expired_subject(world: World) -> None:
    refuse(world, "reject.token_expired", foreign(exp=NOW))
    refuse(world, "reject.grant_expired", held(world, expires=NOON))
    parameters = own(world)
    refuse(world, "reject.token_expired", parameters, by="erin", now=NOON + 300 * SECOND)


@pytest.mark.parametrize("at", [0, 1])
def test_a_revoked_ancestor(world: World, at: int) -> None:
    """keycloak#51633: for a chain, and for an access token that was made of it before."""
    links = draw_chain("alice -[docs:*,quote]-> bob -[docs:*]-> carol", world=world, depth=3)
    parameters = own(world)
    world.revoke("grant", links[at].digest)
    refuse(world, "reject.revoked", held(world))
    refuse(world, "denied.exchange_revoked", parameters, by="erin")


@pytest.mark.parametrize("who", ["user/alice", "bob", "carol"])
def test_a_revoked_principal_among_the_ancestors(world: World, who: str) -> None:
    parameters = own(world)
    world.revoke("principal", world[who].id.encode())
    refuse(world, "reject.revoked", held(world))
    refuse(world, "denied.exchange_revoked", parameters, by="erin")


def test_an_issuer_that_was_ended(world: World) -> None:
    world.event("issuer", IDP, replace(world.trust.issuers[IDP], active=False).encode())
    refuse(world, "reject.token_issuer", foreign())


def test_a_forged_chain(world: World) -> None:
    links = draw_chain("alice -[docs:*]-> carol", world=world)
    for bad in (
        alter(links, 0, depth=9),
        alter(links, 0, key=world["carol"].identity, depth=9),
        extend(links, key=world["dave"].instance, issuer=world.id("dave"), audience=world.id("carol")),
    ):
        refuse(world, refused_as(bad, world), held(world) | {"subject_token": b64(chain_bytes(bad))})


def refused_as(links: Any, world: World) -> str:
    from agentbus.delegation.chain import verify_chain

    with pytest.raises(Rejected) as caught:
        verify_chain(chain_bytes(links), trust=world.trust, now=NOON)
    return caught.value.code


def test_a_pinned_key_of_another_epoch_of_the_holder(world: World) -> None:
    pinned = {1: {"pinned_key": world["carol"].identity.id}}
    assert isinstance(ask(world, held(world, changes=pinned)), Access)
    refuse(world, "reject.pinned_key", held(world, changes={1: {"pinned_key": b"k" * 32}}))


def test_a_token_that_its_readers_would_not_take_is_not_made(world: World) -> None:
    many = tuple(sorted(str(world.id(f"agent-number-{n:03}")) for n in range(256)))
    granted = replace(ask(world, held(world)), targets=many)
    with pytest.raises(Denied) as caught:
        sign_access(granted, world.online["token"], domain=world.domain, now=NOON, jti=b"j" * 16)
    assert caught.value.code == "denied.exchange_size"
    ended = replace(granted, targets=(), expires=NOON + SECOND // 2)
    with pytest.raises(Rejected) as late:
        sign_access(ended, world.online["token"], domain=world.domain, now=NOON, jti=b"j" * 16)
    assert late.value.code == "reject.grant_expired"


def test_a_link_of_an_instance_that_nobody_knows(world: World) -> None:
    links = draw_chain("alice -[docs:*]-> bob -[docs:*]-> carol", world=world)
    known = {key: value for key, value in world.trust.instances.items() if key != world["bob"].instance.id}
    world.trust = replace(world.trust, instances=known)
    refuse(world, "reject.instance_unknown", held(world) | {"subject_token": b64(chain_bytes(links))})


@pytest.mark.parametrize("role", ["identity", "head", "consent"])
def test_only_the_token_key_signs_access_tokens(world: World, role: str) -> None:
    first = ask(world, held(world))
    token = sign_access(first, world.online[role], domain=world.domain, now=NOON, jti=b"j" * 16)
    refuse(world, "reject.token_key", own(world) | {"subject_token": token}, by="erin")


def test_an_issuer_that_takes_our_name_is_not_us(world: World) -> None:
    """A foreign token that says it was issued here is judged as ours, by our key alone."""
    forged = foreign(iss=issuer_name(world.domain))
    refuse(world, "request.token_type", forged)
    refuse(world, "reject.token_key", forged | {"requested_token_type": ACCESS_TOKEN, "audience": "erin"})


NAMES = st.sampled_from(sorted(exchange_rules.KNOWN | {"resource", "x"}))
VALUES = st.sampled_from(["", "x", GRANT_TYPE, JWT, CHAIN, ACCESS_TOKEN, "docs:read", "erin", "0", "1", "bob dave"])
SHARED = town()
MATERIAL = [foreign()["subject_token"], held(SHARED)["subject_token"], own(SHARED)["subject_token"]]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(NAMES, VALUES | st.sampled_from(MATERIAL)), max_size=10),
    st.sampled_from(["carol", "dave", "erin"]),
    st.booleans(),
)
def test_arbitrary_parameters_are_granted_within_the_rules_or_refused(pairs: Any, by: str, actor: bool) -> None:
    try:
        granted = ask(SHARED, pairs, by, actor=actor)
    except (RequestInvalid, Denied, Rejected, Malformed):
        return
    assert set(map(str, granted.scopes)) <= {"docs:read"} and granted.expires <= NOON + 900 * SECOND
    assert (granted.holder if isinstance(granted, Root) else granted.client) == SHARED.id(by)
