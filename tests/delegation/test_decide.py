"""The decision: targets, scopes, ceilings, rights, policy and freshness; each alone, each closed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.delegation import decide as decide_module
from agentbus.delegation.chain import Authority, verify_chain
from agentbus.delegation.decide import Policy, Rule, decide, explain, require
from agentbus.delegation.messages import Permitted, VerifiedMessage
from agentbus.delegation.scope import AtMost, Before, OneOf, Scope, encode_scopes, scopes
from agentbus.errors import AgentBusError, Denied, HandlerMissing, Unavailable
from agentbus.testing.draw import HOUR, NOON, World, chain_bytes, draw_chain, draw_world, extend, standing
from agentbus.wire.frame import Envelope
from agentbus.wire.header import OPENING, Header, Kind
from agentbus.wire.ids import everyone
from agentbus.wire.limits import SECOND


@pytest.fixture
def world() -> World:
    return draw_world()


def held(world: World, drawing: str, **more: Any) -> Authority:
    links = standing(world, drawing) if " " not in drawing else draw_chain(drawing, world=world, **more)
    return verify_chain(chain_bytes(links), trust=world.trust, now=NOON)


def message(
    world: World, authority: Authority, to: str = "bob", kind: Kind = Kind.REQUEST, **more: Any
) -> VerifiedMessage:
    header = Header(
        1,
        kind,
        b"m" * 16,
        b"c" * 16,
        authority.holder,
        b"i" * 16,
        b"k" * 32,
        1,
        world.id(to),
        b"j" * 16,
        1,
        None,
        None,
        None,
        None,
        "quote",
        NOON,
        NOON + SECOND,
        "q",
        0,
        b"b" * 32,
        b"d" * 32,
        None,
        5,
        0,
        None,
        None,
        0,
        [],
    )._replace(**more)
    sender = next(iter(world.trust.instances.values()))
    return VerifiedMessage(header, b"d" * 32, authority, None, sender, b"", Envelope(*[b""] * 7))


def policy(world: World, *needs: str, **more: Any) -> Policy:
    return Policy("v1", {(world.id("bob"), "quote"): Rule(needs, **more)})


def refuse(code: str, made: VerifiedMessage, world: World, rules: Policy, *, age: int | None = 0) -> AgentBusError:
    with pytest.raises(AgentBusError) as caught:
        decide(made, trust=world.trust, policy=rules, now=NOON, age=age)
    assert caught.value.code == code, caught.value
    assert code in decide_module.CODES
    return caught.value


def test_what_everything_allows_is_permitted(world: World) -> None:
    made = message(world, held(world, "alice -[quote]-> carol"))
    permitted = decide(made, trust=world.trust, policy=policy(world, "quote"), now=NOON, age=0)
    assert isinstance(permitted, Permitted)
    assert (permitted.message, permitted.policy_version, permitted.directory_size) == (made, "v1", world.trust.size)


@pytest.mark.parametrize("kind", [k for k in Kind if k not in OPENING])
def test_an_answer_is_not_asked_of_a_handler(world: World, kind: Kind) -> None:
    made = message(world, held(world, "alice -[quote]-> carol"), kind=kind)
    refuse("denied.not_a_request", made, world, policy(world))


@pytest.mark.parametrize("targets", [[], ["dave"], ["carol"]])
def test_a_chain_is_no_use_elsewhere(world: World, targets: list[str]) -> None:
    """Confused deputy: a chain for Dave is shown to Bob."""
    error = refuse(
        "denied.target", message(world, held(world, "alice -[quote]-> carol", targets=targets)), world, policy(world)
    )
    assert (error.details["link"], error.details["target"]) == (0, world.id("bob"))
    assert world.id("bob") in error.details["allow"]


def test_every_link_must_name_the_target(world: World) -> None:
    narrow = {1: {"targets": (world.id("erin"),)}}
    authority = held(world, "alice -[quote]-> carol -[quote]-> dave", changes=narrow)
    assert refuse("denied.target", message(world, authority), world, policy(world)).details["link"] == 1


def test_an_empty_policy_permits_nothing(world: World) -> None:
    made = message(world, held(world, "alice -[quote]-> carol"))
    with pytest.raises(HandlerMissing):
        decide(made, trust=world.trust, policy=Policy("none"), now=NOON, age=0)


def test_a_handler_of_another_recipient_or_type_does_not_serve(world: World) -> None:
    authority = held(world, "alice -[quote]-> carol")
    refuse("handler.missing", message(world, authority, to="erin"), world, policy(world))
    error = refuse("handler.missing", message(world, authority, action="pay"), world, policy(world))
    assert error.message == "bob has no handler for 'pay'; it answers quote"


@pytest.mark.parametrize("age", [None, 30 * SECOND + 1, 1 << 60])
def test_a_directory_not_heard_of_stops_new_work(world: World, age: int | None) -> None:
    made = message(world, held(world, "alice -[quote]-> carol"))
    error = refuse("unavailable.directory_stale", made, world, policy(world), age=age)
    assert error.retryable and isinstance(error, Unavailable)
    refuse("unavailable.directory_stale", made, world, Policy("none"), age=age)
    decide(made, trust=world.trust, policy=policy(world), now=NOON, age=30 * SECOND)


def test_every_scope_a_handler_requires_is_required(world: World) -> None:
    made = message(world, held(world, "alice -[quote]-> carol"))
    refuse("denied.scope", made, world, policy(world, "quote", "pay"))
    refuse("denied.scope", made, world, policy(world, "pay", "quote"))


def test_no_scopes_grant_nothing_but_what_requires_nothing(world: World) -> None:
    made = message(world, held(world, "alice -[]-> carol"))
    decide(made, trust=world.trust, policy=policy(world), now=NOON, age=0)
    refuse("denied.scope", made, world, policy(world, "quote"))


def test_a_caveat_on_a_fact_that_is_not_given_does_not_hold(world: World) -> None:
    authority = held(world, "alice -[x]-> carol", changes={0: {"scopes": scopes([Scope("pay", amount=AtMost(5))])}})
    refuse("denied.scope", message(world, authority), world, policy(world, "pay"))
    require(authority, "pay", {"amount": 5}, trust=world.trust, now=NOON)
    for facts in ({"amount": 6}, {"Amount": 5}, {"amount": "5"}, {"amount": True}):
        with pytest.raises(Denied):
            require(authority, "pay", facts, trust=world.trust, now=NOON)


def test_the_time_of_a_caveat_is_now_and_no_fact_of_the_caller(world: World) -> None:
    noon = datetime.fromtimestamp(NOON / 1e6, UTC)
    authority = held(world, "alice -[x]-> carol", changes={0: {"scopes": scopes([Scope("pay", at=Before(noon))])}})
    require(authority, "pay", {}, trust=world.trust, now=NOON - 1)
    for facts in ({}, {"at": NOON - 1}, {"at": 0}):
        with pytest.raises(Denied):
            require(authority, "pay", facts, trust=world.trust, now=NOON)


@pytest.mark.parametrize("at", [0, 1])
def test_a_ceiling_cuts_every_agent_of_the_chain(world: World, at: int) -> None:
    """Alice may grant what she likes; the operator's bound stands above it, and its lowering counts at once."""
    authority = held(world, "alice -[pay]-> carol -[pay]-> dave")
    decide(message(world, authority), trust=world.trust, policy=policy(world, "pay"), now=NOON, age=0)
    who = world.id(["carol", "dave"][at])
    world.event("amend", who, ["", "", encode_scopes(scopes(["quote"])), [], [], []])
    error = refuse("denied.ceiling", message(world, authority), world, policy(world, "pay"))
    assert (error.details["scope"], error.details["link"]) == ("pay", at)
    assert world.id(["carol", "dave"][at]).short in error.details["allow"]


def test_a_ceiling_has_caveats_too(world: World) -> None:
    capped = encode_scopes(scopes([Scope("pay", amount=AtMost(5))]))
    authority = held(world, "alice -[pay]-> carol")
    world.event("amend", world.id("carol"), ["", "", capped, [], [], []])
    require(authority, "pay", {"amount": 5}, trust=world.trust, now=NOON)
    with pytest.raises(Denied) as caught:
        require(authority, "pay", {"amount": 6}, trust=world.trust, now=NOON)
    assert caught.value.code == "denied.ceiling"


def test_an_unknown_agent_has_no_ceiling_and_so_nothing(world: World) -> None:
    authority = held(world, "alice -[pay]-> carol")
    trust = replace(world.trust, principals={world.id("user/alice"): world.trust.principals[world.id("user/alice")]})
    with pytest.raises(Denied) as caught:
        require(authority, "pay", {}, trust=trust, now=NOON)
    assert caught.value.code == "denied.ceiling"


@pytest.mark.parametrize("rights", [[], ["quote"], ["pay:x"], [Scope("pay", to=OneOf("x"))]])
def test_a_user_gives_no_more_than_she_has_now(world: World, rights: list[Any]) -> None:
    authority = held(world, "alice -[pay]-> carol")
    world.event("amend", world.id("user/alice"), ["", "", [], [], encode_scopes(scopes(rights)), []])
    refuse("denied.rights", message(world, authority), world, policy(world, "pay"))


def test_a_user_without_a_record_has_no_rights(world: World) -> None:
    authority = held(world, "alice -[pay]-> carol")
    trust = replace(world.trust, principals={world.id("carol"): world.trust.principals[world.id("carol")]})
    with pytest.raises(Denied) as caught:
        require(authority, "pay", {}, trust=trust, now=NOON)
    assert caught.value.code == "denied.rights"


def test_whom_an_agent_may_ask_for_itself_is_said_when_it_is_created(world: World) -> None:
    """Nobody can grant a standing grant, so that is not what would allow it."""
    world.event("amend", world.id("carol"), ["", "", [], [world.id("dave")], [], []])
    error = refuse("denied.target", message(world, held(world, "carol")), world, policy(world, "quote"))
    assert error.message == "link 0, service/directory to carol, does not name bob as a target"
    assert "may talk to" in error.details["allow"] and error.details["allow"] in str(error)


def test_a_handler_for_users_refuses_an_agent_on_its_own(world: World) -> None:
    alone = held(world, "carol")
    refuse("denied.user_required", message(world, alone), world, policy(world, "quote", requires_user=True))
    decide(message(world, alone), trust=world.trust, policy=policy(world, "quote"), now=NOON, age=0)
    longer = extend(standing(world, "carol"), key=world["carol"].instance, audience=world.id("dave"))
    passed = verify_chain(chain_bytes(longer), trust=world.trust, now=NOON)
    refuse("denied.user_required", message(world, passed), world, policy(world, "quote", requires_user=True))


def test_a_standing_grant_is_cut_by_the_ceiling_of_now(world: World) -> None:
    """It was issued under yesterday's ceiling."""
    alone = held(world, "carol")
    world.event("amend", world.id("carol"), ["", "", [], [everyone(world.domain)], [], []])
    refuse("denied.ceiling", message(world, alone), world, policy(world, "quote"))


CHAINS = st.lists(
    st.tuples(
        st.sampled_from(["carol", "dave", "erin", "frank"]),
        st.lists(st.sampled_from(["quote", "pay", "docs:*", "docs:read", "docs:x:*"]), max_size=3, unique=True),
        st.sampled_from([None, ["bob"], ["bob", "erin"], []]),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda step: step[0],
)
SHARED = draw_world()


@settings(max_examples=250, deadline=None)
@given(CHAINS, st.sampled_from(["quote", "pay", "docs:read", "docs:x:y", "docs"]))
def test_whatever_a_longer_chain_allows_the_shorter_allowed(steps: list[Any], scope: str) -> None:
    """allow(chain + link) ⇒ allow(chain)."""
    drawing = "alice" + "".join(f" -[{','.join(held)}]-> {name}" for name, held, _ in steps)
    aims = [(everyone("local.test"),) if t is None else tuple(sorted(map(SHARED.id, t))) for *_, t in steps]
    links = draw_chain(drawing, world=SHARED, changes={n: {"targets": aim} for n, aim in enumerate(aims)})
    verdicts = []
    for count in range(1, len(links) + 1):
        try:
            authority = verify_chain(chain_bytes(links[:count]), trust=SHARED.trust, now=NOON)
            decide(message(SHARED, authority), trust=SHARED.trust, policy=policy(SHARED, scope), now=NOON, age=0)
        except AgentBusError:
            verdicts.append(False)
        else:
            verdicts.append(True)
    assert verdicts == sorted(verdicts, reverse=True)


# ── explanations ─────────────────────────────────────────────────────────────────────────────────────────────────────

SOME = ["quote", "pay", "docs:read"]
SUBSETS = st.lists(st.sampled_from(SOME), unique=True)


@given(
    root=SUBSETS, child=SUBSETS, ceiling=SUBSETS, rights=st.none() | SUBSETS, needs=SUBSETS,
    targets=st.sampled_from([None, [], ["bob"], ["dave"]]), user=st.booleans(), handler=st.booleans(),
    age=st.sampled_from([None, 0, 10 * HOUR]),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_an_explanation_says_what_the_decision_says(
    root: list[str], child: list[str], ceiling: list[str], rights: list[str] | None, needs: list[str],
    targets: list[str] | None, user: bool, handler: bool, age: int | None,
) -> None:  # fmt: skip
    """explain finds nothing refused <=> decide permits; and what decide raises is the first that explain reports."""
    world = draw_world("bob", "carol", "dave")
    world.event("amend", world.id("carol"), ["", "", encode_scopes(scopes(ceiling)), [], [], []])
    held_rights = "all" if rights is None else encode_scopes(scopes(rights))
    world.event("amend", world.id("user/alice"), ["", "", [], [], held_rights, []])
    drawing = f"alice -[{','.join(root)}]-> carol -[{','.join(c for c in child if c in root)}]-> dave"
    authority = held(world, drawing, targets=targets)
    rules = policy(world, *needs, requires_user=user) if handler else Policy("none")
    checks = explain(authority, world.id("bob"), "quote", trust=world.trust, policy=rules, now=NOON, age=age)
    refused = [check.refused for check in checks if check.refused is not None]
    try:
        decide(message(world, authority), trust=world.trust, policy=rules, now=NOON, age=age)
    except AgentBusError as error:
        assert (error.code, error.details) == (refused[0].code, refused[0].details)
    else:
        assert refused == []


def test_an_explanation_names_every_reason_and_what_would_change_it(world: World) -> None:
    authority = held(world, "alice -[quote]-> carol -[quote]-> dave", targets=["carol"])
    world.event("amend", world.id("dave"), ["", "", [], [], [], []])
    checks = explain(
        authority, world.id("bob"), "quote", trust=world.trust, policy=policy(world, "pay"), now=NOON, age=0
    )
    refused = [(c.what, c.about, c.refused.code) for c in checks if c.refused]
    assert refused == [
        ("target", "link 0, user/alice to carol", "denied.target"),
        ("target", "link 1, carol to dave", "denied.target"),
        ("scope", "link 0, user/alice to carol: pay", "denied.scope"),
        ("scope", "link 1, carol to dave: pay", "denied.scope"),
        ("ceiling", "dave: pay", "denied.ceiling"),
    ]
    assert all(c.refused.details["allow"] for c in checks if c.refused)


def test_an_explanation_judges_facts_as_ctx_require_does(world: World) -> None:
    authority = held(world, "alice -[pay]-> carol", changes={0: {"scopes": scopes([Scope("pay", amount=AtMost(100))])}})
    for amount, fits in ((100, True), (101, False)):
        checks = explain(
            authority, world.id("bob"), "quote", trust=world.trust, policy=policy(world), now=NOON, age=0,
            also={"pay": {"amount": amount}},
        )  # fmt: skip
        refused = [c.refused for c in checks if c.refused]
        assert (refused == []) is fits
        if fits:
            require(authority, "pay", {"amount": amount}, trust=world.trust, now=NOON)
        else:
            assert "amount=101" in refused[0].message and "amount≤100" in refused[0].message
