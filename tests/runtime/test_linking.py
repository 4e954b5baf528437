"""Chains as handlers meet them: typed caveats, targets, depth, one conversation, pinned keys, speaking for oneself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import Field

from agentbus import (
    Agent,
    AtMost,
    Authority,
    Before,
    Bus,
    Context,
    Denied,
    OneOf,
    Prefix,
    ProgrammingError,
    Rejected,
    Request,
    Scope,
)
from agentbus.crypto.signing import Purpose
from agentbus.delegation.grant import encode_chain
from agentbus.runtime.caller import Session
from agentbus.runtime.links import signed

Facts = dict[str, str | int | float]


class Use(Request[str]):
    """Asks for ``tool:use`` with these facts."""

    facts: Facts = Field(default_factory=dict)


class Relay(Request[str]):
    facts: Facts = Field(default_factory=dict)


tool, first, second = Agent("tool"), Agent("first"), Agent("second")


@tool.handler
async def use(request: Use, ctx: Context) -> str:
    ctx.require("tool:use", **request.facts)
    return ctx.conversation


@first.handler
async def relay(request: Relay, ctx: Context) -> str:
    return await ctx.request("tool", Use(facts=request.facts))


@first.handler(scopes=["tool:use"])
async def declared(request: Request[str], ctx: Context) -> str:
    """Gives every agent of a local bus a ceiling."""
    return ""


@pytest.mark.parametrize(
    ("caveats", "fits", "fails"),
    [
        ({"amount": AtMost(5)}, [{"amount": 5}, {"amount": -1}, {"amount": 4.5}], [{"amount": 6}, {"amount": "5"}, {}]),
        ({"to": OneOf("a", "b")}, [{"to": "a"}, {"to": "b"}], [{"to": "c"}, {"to": "A"}, {"to": ""}, {"to": 1}, {}]),
        ({"path": Prefix("/x/")}, [{"path": "/x/"}, {"path": "/x/y"}], [{"path": "/x"}, {"path": "/y/x/"}, {}]),
        ({"amount": AtMost(5), "to": OneOf("a")}, [{"amount": 1, "to": "a"}], [{"amount": 1}, {"to": "a"}, {}]),
    ],
    ids=["number", "set", "prefix", "both"],
)  # fmt: skip
async def test_typed_caveats_are_judged_against_facts(
    net: Any, caveats: Any, fits: list[Any], fails: list[Any]
) -> None:
    async with net.serve(tool, first):
        alice = net.user("alice", scopes=[Scope("tool:use", **caveats)])
        for facts in fits:
            assert await alice.request("tool", Use(facts=facts))
        for facts in fails:
            with pytest.raises(Denied) as caught:
                await alice.request("tool", Use(facts=facts))
            assert caught.value.code == "denied.scope"


async def test_a_caveat_of_time_ends_at_its_instant_whatever_the_handler_says(net: Any) -> None:
    async with net.serve(tool, first):
        noon = datetime.fromtimestamp(net.clock.now() / 1e6, UTC)
        alice = net.user("alice", scopes=[Scope("tool:use", at=Before(noon + timedelta(seconds=100)))], expires_in=3000)
        assert await alice.request("tool", Use())
        await net.advance(101)
        for facts in ({}, {"at": 0}):
            with pytest.raises(Denied) as caught:
                await alice.request("tool", Use(facts=facts))
            assert caught.value.code == "denied.scope"


async def test_every_link_adds_its_caveats(net: Any) -> None:
    """Alice says at most 5, first says only to "a": what second may do is both."""
    async with net.serve(tool, first, second):
        alice = net.user("alice", scopes=[Scope("tool:use", amount=AtMost(5))])
        given = await alice.delegate("first", [Scope("tool:use", amount=AtMost(5))], depth=2)
        both = [Scope("tool:use", amount=AtMost(4), to=OneOf("a"))]
        second_holds = await net.acting(given).delegate("second", both)
        acting = net.acting(second_holds)
        assert await acting.request("tool", Use(facts={"amount": 4, "to": "a"}))
        for facts in ({"amount": 5, "to": "a"}, {"amount": 4, "to": "b"}, {"amount": 4}):
            with pytest.raises(Denied) as caught:
                await acting.request("tool", Use(facts=facts))
            assert caught.value.details["link"] == 2
        for wide in (["tool:use"], [Scope("tool:use", amount=AtMost(6))], [Scope("tool:use", to=OneOf("a"))]):
            with pytest.raises(Denied) as caught:
                await net.acting(given).delegate("second", wide)
            assert caught.value.code == "denied.not_held"


async def test_depth_is_what_may_still_follow(net: Any) -> None:
    async with net.serve(tool, first, second):
        alice = net.user("alice", scopes=["tool:use"], depth=1)
        given = await alice.delegate("first", ["tool:use"])
        with pytest.raises(Denied) as caught:
            await net.acting(given).delegate("second", ["tool:use"])
        assert caught.value.code == "denied.no_depth"
        for depth in (1, 7):
            with pytest.raises(Denied) as caught:
                await alice.delegate("first", ["tool:use"], depth=depth)
            assert caught.value.code == "denied.no_depth"


async def test_targets_are_not_widened_and_not_even_made(net: Any) -> None:
    async with net.serve(tool, first, second):
        alice = net.user("alice", scopes=["tool:use"], targets=["first"])
        given = await alice.delegate("first", ["tool:use"])
        assert given.targets == alice.authority.targets, "left out, they are the parent's"
        with pytest.raises(Denied) as caught:
            await net.acting(given).request("tool", Use())
        assert caught.value.code == "denied.target"
        with pytest.raises(Denied) as caught:
            await alice.delegate("first", ["tool:use"], targets=["tool"])
        assert caught.value.code == "denied.not_held"


async def test_a_one_conversation_grant_counts_in_no_other(net: Any) -> None:
    async with net.serve(tool, first):
        alice = net.user("alice", scopes=["tool:use"], depth=4)
        given = await alice.delegate("first", ["tool:use"], conversation=alice.conversation, depth=2)
        acting = net.acting(given)
        assert acting.conversation == alice.conversation
        assert await acting.request("tool", Use()) == alice.conversation
        other = Session(net._node, acting._voice, given)
        other._conversation = b"o" * 16
        with pytest.raises(Rejected) as caught:
            await other.request("tool", Use())
        assert caught.value.code == "reject.conversation"
        below = await acting.delegate("second", ["tool:use"])
        assert below.conversation == given.conversation, "no link leaves the conversation of the one above"
        with pytest.raises(Denied) as caught:
            await acting.delegate("second", ["tool:use"], conversation="00" * 16)
        assert caught.value.code == "denied.not_held"


async def test_what_is_handed_over_in_one_conversation_stays_in_it(net: Any) -> None:
    async with net.serve(tool, first):
        alice = net.user("alice", scopes=["tool:use"])
        assert await alice.request("first", Relay(), delegate=["tool:use"]) == alice.conversation


@pytest.mark.parametrize("served_first", [True, False])
async def test_agents_of_a_local_bus_may_use_what_its_users_were_given(served_first: bool) -> None:
    """No handler declares ``tool:use``: it is asked of ctx.require alone, and must be, because of the caveat."""
    plain = Agent("plain")
    plain.handler(relay)
    async with Bus.local() as bus:
        early = None if served_first else bus.user("alice", scopes=["tool:use"])
        async with bus.serve(tool, plain):
            alice = early or bus.user("alice", scopes=["tool:use"])
            ask = Relay(facts={"amount": 5})
            assert await alice.request("plain", ask, delegate=["tool:use[amount<=5]"])
            with pytest.raises(Denied) as caught:
                await alice.request("plain", ask, delegate=["tool:use[amount<=4]"])
    assert caught.value.code == "denied.scope"
    assert str(caught.value).endswith("would allow it: a grant of user/alice to plain with tool:use for amount=5")


async def test_a_user_of_a_local_bus_has_rights_with_caveats_too() -> None:
    async with Bus.local() as bus, bus.serve(tool):
        alice = bus.user("alice", scopes=["tool:use[amount<=5]"])
        assert await alice.request("tool", Use(facts={"amount": 5}))
        with pytest.raises(Denied):
            await alice.request("tool", Use(facts={"amount": 6}))
        with pytest.raises(ProgrammingError):
            bus.user("bob", scopes="tool:use")


async def test_an_agent_acts_for_itself_under_its_standing_grant_and_no_further(net: Any) -> None:
    async with net.serve(tool, first):
        mine = net.authority
        assert (mine.root_kind, mine.subject, mine.holder, mine.user) == ("standing", net.id, net.id, None)
        assert await net.request("tool", Use())
        with pytest.raises(Denied) as caught:
            await net.delegate("first", ["tool:break"])
        assert caught.value.code == "denied.not_held"
        net._core.amend(net.id, now=net.clock.now(), ceiling=[])
        with pytest.raises(Denied) as caught:
            await net.request("tool", Use())
        assert caught.value.code == "denied.ceiling", "the ceiling of now counts, not the one of the grant"


async def test_a_pin_names_the_key_that_the_holder_has_now(net: Any) -> None:
    async with net.serve(tool, first):
        alice = net.user("alice", scopes=["tool:use"])
        given = await alice.delegate("first", ["tool:use"], pin=True)
        assert given.links[-1].pinned_key == net._identities[given.holder].key.id
        assert await net.acting(given).request("tool", Use())
        wrong = given.links[-1].grant._replace(pinned_key=b"k" * 32)
        other = Authority.from_bytes(encode_chain((given.links[0], signed(wrong, alice._voice.key, Purpose.GRANT))))
        with pytest.raises(Rejected) as caught:
            await net.acting(other).request("tool", Use())
        assert caught.value.code == "reject.pinned_key"
