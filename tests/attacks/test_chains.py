"""Attacks on chains: what is widened, stripped, spliced, forwarded, outlived or used where it was not meant.

Mallory holds a real handover of alice's, and signs with her own instance key; each test asserts the exact code on the
victim's record and that nothing was paid.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentbus import Agent, AtMost, Authority, Context, Denied, Rejected, Scope
from agentbus.delegation.statements import directory_id
from agentbus.wire.ids import everyone
from agentbus.wire.limits import SECOND

from .bank import Ask, Bank, Hold, Paid, Pay, Quote, Tick

PAY = Pay(cents=666)


class Held:
    """What mallory was handed: the chain alice sent with, and the one that alice extended to her."""

    received: Authority
    handed: Authority


async def handed_to_mallory(
    net: Any, scopes: list[Any], delegate: list[Any], name: str = "alice", **grant: Any
) -> Held:
    """Alice asks mallory something and hands her ``delegate``."""
    held, helper = Held(), Agent("mallory")

    @helper.handler
    async def ask(request: Ask, ctx: Context) -> Paid:
        held.received = ctx.caller
        held.handed = ctx.authority
        return Paid(cents=0)

    async with net.attacker.serve(helper):
        await net.user(name, scopes=scopes, **grant).request("mallory", Ask(cents=1), delegate=delegate, timeout=300)
    return held


@pytest.fixture
async def held(net: Any, bank: Bank) -> AsyncIterator[Held]:
    """Alice has ``pay`` and ``docs:*`` and handed mallory ``docs:read`` only."""
    yield await handed_to_mallory(net, ["pay", "docs:*"], ["docs:read"])
    assert bank.paid == [], "nothing was ever paid under what mallory held"


async def refused(net: Any, authority: Authority, message: Any = PAY, **forged: Any) -> str:
    """What the bank says to mallory under this authority."""
    verdict: str = await net.attacker.deliver(net.attacker.forge("bank", message, authority=authority, **forged))
    return verdict


async def test_what_was_handed_over_is_used_as_it_was_meant(net: Any, bank: Bank) -> None:
    """The control: mallory may do what she was given, and is then refused nothing."""
    held = await handed_to_mallory(net, ["pay"], ["pay"])
    assert (await net.attacker.acting(held.handed).request("bank", Pay(cents=3))).cents == 3
    assert bank.paid == [3]


async def test_a_scope_that_was_not_granted(net: Any, held: Held) -> None:
    assert await refused(net, held.handed) == "denied.scope"


async def test_a_widened_grant(net: Any, held: Held) -> None:
    """alice -[docs:read]-> mallory -[pay]-> mallory's friend, and to herself."""
    wide = net.attacker.widen(held.handed, ["pay"], to="broker")
    assert await refused(net, wide) == "reject.grant_widens"
    for scope in ("docs:*", "docs:write", "doc", Scope("pay", amount=AtMost(1))):
        assert await refused(net, net.attacker.widen(held.handed, [scope], to="broker")) == "reject.grant_widens"


async def test_a_rewritten_link(net: Any, held: Held) -> None:
    """The link alice signed, with another scope, under mallory's signature: it is not alice's instance key's."""
    last = held.handed.links[-1].grant._replace(scopes=(Scope("pay"),))
    link = net.attacker.sign_link(last)
    chain = net.attacker.splice(Authority((*held.handed.links[:-1], link), b""), held.handed, len(held.handed.links))
    assert await refused(net, chain) == "reject.grant_signature"
    mine = net.attacker.sign_link(last._replace(issuer_key=net.attacker.voice.key.id))
    chain = net.attacker.splice(Authority((*held.handed.links[:-1], mine), b""), held.handed, len(held.handed.links))
    assert await refused(net, chain) == "reject.grant_key"


async def test_a_chain_stripped_and_sent_back_to_its_holder(net: Any, held: Held) -> None:
    """Mallory drops her own link: what is left is alice's chain, and it does not end at mallory."""
    assert await refused(net, net.attacker.strip(held.handed)) == "reject.chain_not_senders"
    assert await refused(net, held.received) == "reject.chain_not_senders"


async def test_a_handover_forwarded_by_a_third(net: Any, bank: Bank) -> None:
    """What alice handed to the broker is attached by mallory to her own request."""
    alice = net.user("alice", scopes=["pay"])
    await alice.request("broker", Ask(cents=2), delegate=["pay"])
    stolen = bank.handed
    assert await refused(net, stolen) == "reject.chain_not_senders"
    assert await refused(net, net.attacker.authority, Quote(), handover=stolen.links[-1]) == "reject.handover"
    assert bank.paid == [2]


async def test_a_handover_that_follows_another_chain(net: Any, held: Held) -> None:
    """Mallory's own link on one chain travels with another."""
    link = net.attacker.link(held.handed, ["docs:read"], to="bank")
    assert await refused(net, net.attacker.authority, Quote(), handover=link) == "reject.chain_broken"


async def test_a_handover_wider_than_the_chain(net: Any, held: Held) -> None:
    link = net.attacker.link(held.handed, ["pay"], to="bank")
    assert await refused(net, held.handed, Quote(), handover=link) == "reject.grant_widens"


async def test_a_spliced_chain(net: Any, bank: Bank) -> None:
    """bob's root under alice's link: the link names alice's root, and its issuer is not bob's audience."""
    one = await handed_to_mallory(net, ["pay"], ["pay"], name="alice")
    two = await handed_to_mallory(net, ["docs:read"], ["docs:read"], name="bob")
    assert await refused(net, net.attacker.splice(two.handed, one.handed, 1)) == "reject.chain_broken"
    assert await refused(net, net.attacker.splice(one.handed, two.handed, 1)) == "reject.chain_broken"
    assert bank.paid == []


async def test_a_graft_onto_mallorys_own_standing_grant(net: Any, held: Held) -> None:
    grafted = net.attacker.splice(net.attacker.authority, held.handed, 1)
    assert await refused(net, grafted) == "reject.chain_broken"


async def test_a_reordered_or_repeated_chain(net: Any, held: Held) -> None:
    assert await refused(net, net.attacker.reorder(held.handed, [1, 0])) == "reject.chain_broken"
    assert await refused(net, net.attacker.reorder(held.handed, [1])) == "reject.chain_broken"
    assert await refused(net, net.attacker.reorder(held.handed, [0, 1, 1])) == "reject.chain_broken"


async def test_an_empty_chain(net: Any, held: Held) -> None:
    assert await refused(net, Authority((), b"\x90")) == "malformed.chain"
    assert await refused(net, Authority((), b"")) == "malformed.codec"


async def test_a_chain_that_leads_through_its_holder_twice(net: Any, held: Held) -> None:
    looped = net.attacker.widen(held.handed, ["docs:read"], to="mallory")
    assert await refused(net, looped) == "reject.cycle"
    back = net.attacker.widen(held.handed, ["docs:read"], to="user/alice")
    assert await refused(net, back) == "reject.cycle"


async def test_a_depth_bomb(net: Any, bank: Bank) -> None:
    """Depth never grows, and more than twelve links are not even read."""
    held = await handed_to_mallory(net, ["docs:read"], ["docs:read"], depth=1)
    assert held.handed.links[-1].grant.depth == 0
    assert await refused(net, net.attacker.widen(held.handed, ["docs:read"], to="broker")) == "reject.depth"
    deep = await handed_to_mallory(net, ["docs:read"], ["docs:read"], depth=4)
    regrown = net.attacker.widen(deep.handed, ["docs:read"], to="broker", depth=9)
    assert await refused(net, regrown) == "reject.depth"
    bomb = net.attacker.reorder(deep.handed, [0] + [1] * 12)
    assert await refused(net, bomb) == "malformed.chain"


async def test_a_link_that_outlives_the_one_above(net: Any, held: Held) -> None:
    later = net.attacker.widen(held.handed, ["docs:read"], to="broker", expires=held.handed.expires_at + 1)
    assert await refused(net, later) == "reject.outlives_parent"


async def test_an_expired_grant(net: Any, held: Held) -> None:
    """The handover ends with the request it came with."""
    net.clock.advance(301)
    assert await refused(net, held.handed, Quote()) == "reject.grant_expired"


async def test_a_grant_that_is_not_valid_yet(net: Any, held: Held) -> None:
    early = net.attacker.widen(held.handed, ["docs:read"], to="broker", not_before=net.clock.now() + 31 * SECOND)
    assert await refused(net, early) == "reject.grant_early"


async def test_targets_that_widen(net: Any, bank: Bank) -> None:
    held = await handed_to_mallory(net, ["pay"], ["pay"], targets=["mallory", "broker"])
    wide = net.attacker.widen(held.handed, ["pay"], to="broker", targets=(everyone("local.test"),))
    assert await refused(net, wide) == "reject.targets_widen"


async def test_a_target_that_was_not_granted(net: Any, bank: Bank) -> None:
    """Alice's task is for mallory and the broker; the bank is not among them."""
    held = await handed_to_mallory(net, ["pay"], ["pay"], targets=["mallory", "broker"])
    assert await refused(net, held.handed) == "denied.target"
    net.directory_amend("mallory", may_talk_to=[])
    await net.attacker.node.voices.renew(net.attacker.voice)
    assert await refused(net, net.attacker.authority, Quote()) == "denied.target"
    assert bank.paid == [] and bank.quoted == 0


async def test_above_the_ceiling(net: Any, bank: Bank) -> None:
    """Mallory was given the right to pay, and the directory says that she never may."""
    held = await handed_to_mallory(net, ["pay"], ["pay"])
    net.directory_amend("mallory", ceiling=[])
    assert await refused(net, held.handed) == "denied.ceiling"
    assert bank.paid == []


async def test_a_right_the_user_no_longer_has(net: Any, bank: Bank) -> None:
    held = await handed_to_mallory(net, ["pay"], ["pay"])
    net.directory_amend("user/alice", rights=[])
    assert await refused(net, held.handed) == "denied.rights"
    assert bank.paid == []


async def test_a_user_grants_more_than_she_may(net: Any, bank: Bank) -> None:
    alice = net.user("alice", scopes=["pay"])
    net.directory_amend("user/alice", rights=["docs:read"])
    with pytest.raises(Denied) as caught:
        await alice.request("bank", PAY)
    assert caught.value.code == "denied.rights"
    assert bank.paid == []


@pytest.mark.parametrize("kind", ["instance", "key", "principal"])
async def test_a_revoked_middle(net: Any, bank: Bank, kind: str) -> None:
    """alice → mallory → broker: mallory's instance, her instance key or she herself is revoked; the broker is good."""
    from agentbus.runtime.caller import Session

    held = await handed_to_mallory(net, ["pay"], ["pay"])
    chain = net.attacker.widen(held.handed, ["pay"], to="broker")
    broker = Session(net._node, next(v for v in net._node.voices if v.identity.id.name == "broker"), chain)
    assert (await broker.request("bank", Pay(cents=1))).cents == 1
    voice = net.attacker.voice
    handle = {"instance": voice.instance.handle, "key": voice.key.id, "principal": net.attacker.id.encode()}[kind]
    net._core.revoke(kind, handle, revoker=directory_id(net._core.domain), reason="stop", now=net.clock.now())
    with pytest.raises(Rejected) as caught:
        await broker.request("bank", PAY)
    assert caught.value.code == "reject.revoked"
    assert bank.paid == [1]


async def test_a_revoked_grant_takes_all_below_it(net: Any, bank: Bank) -> None:
    alice = net.user("alice", scopes=["pay"])
    held = await handed_to_mallory(net, ["pay"], ["pay"], name="carol")
    carol = net.user("carol", scopes=["pay"])
    await carol.revoke(held.handed, reason="stop")
    with pytest.raises(Rejected) as caught:
        await net.attacker.acting(held.handed).request("bank", PAY)
    assert caught.value.code == "reject.revoked"
    assert (await alice.request("bank", Pay(cents=1))).cents == 1
    assert bank.paid == [1]


async def test_revoking_what_somebody_else_granted(net: Any, bank: Bank) -> None:
    """Mallory saw the broker's grant; seeing an id is not enough to kill it."""
    from agentbus import DirectoryRefused

    alice = net.user("alice", scopes=["pay"])
    await alice.request("broker", Ask(cents=2), delegate=["pay"])
    with pytest.raises(DirectoryRefused) as caught:
        await net.attacker.revoke(bank.handed, reason="mine now")
    assert caught.value.code == "directory.not_issuer"


async def test_an_agent_that_poses_as_a_user(net: Any, held: Held) -> None:
    """Roots of kind user are for users, of kind standing for the directory, and no other kind is taken."""
    mallory, root = net.attacker, held.handed.links[0].grant
    forms = {
        "own": (root._replace(issuer=mallory.id, subject=mallory.id, audience=mallory.id), "reject.root_kind"),
        "standing": (mallory.authority.links[0].grant._replace(scopes=(Scope("pay"),)), "reject.grant_signature"),
        "alice": (root._replace(audience=mallory.id, scopes=(Scope("pay"),)), "reject.grant_signature"),
        "consent": (root._replace(root_kind="consent", evidence=(0,)), "reject.root_kind"),
        "token": (root._replace(root_kind="token", evidence=("https://idp", "jti", "", 1 << 60)), "reject.root_kind"),
        "consent to nothing": (root._replace(root_kind="consent"), "malformed.grant"),
        "token of nobody": (root._replace(root_kind="token"), "malformed.grant"),
        "vouched": (root._replace(root_kind="vouched"), "reject.root_kind"),
    }
    for name, (grant, code) in forms.items():
        link = mallory.sign_link(grant)
        chain = mallory.reorder(Authority((link,), b""), [0])
        assert await refused(net, chain) == code, name


async def test_a_retired_epoch(net: Any, held: Held) -> None:
    other = net.attacker.widen(held.handed, ["docs:read"], to="broker", issuer_epoch=2)
    assert await refused(net, other) == "reject.grant_misaligned"
    net._core.write(net.clock.now(), [("epoch", net.attacker.id, [2])])
    assert await refused(net, held.handed, Quote()) == "reject.epoch"


async def test_a_chain_of_another_trust_domain(net: Any, held: Held) -> None:
    """Everything is in order, in a world of mallory's own making."""
    from agentbus.testing.draw import chain_bytes, draw_chain, draw_world

    world = draw_world("carol")
    links = draw_chain("alice -[pay]-> carol", world=world)
    foreign = Authority(links, chain_bytes(links))
    assert await refused(net, foreign) in ("reject.unknown_principal", "reject.epoch", "reject.grant_key")


async def test_a_confused_deputy(net: Any, bank: Bank) -> None:
    """The broker may pay by itself; asked without a handover it does not, because nothing flows on by itself."""
    with pytest.raises(Denied) as caught:
        await net.user("alice", scopes=["docs:read"]).request("broker", Ask(cents=5))
    assert caught.value.code == "denied.nothing_handed_over"
    with pytest.raises(Denied) as caught:
        await net.user("alice", scopes=["docs:read"]).request("broker", Ask(cents=5), delegate=["docs:read"])
    assert caught.value.code == "denied.scope"
    assert bank.paid == []


async def test_what_is_not_held_is_not_even_made(net: Any, held: Held) -> None:
    session = net.attacker.acting(held.handed)
    with pytest.raises(Denied) as caught:
        await session.delegate("broker", ["pay"])
    assert caught.value.code == "denied.not_held"
    with pytest.raises(Denied) as caught:
        net.attacker.acting(held.received)
    assert caught.value.code == "denied.not_holder"


async def test_time_of_check_and_time_of_use(net: Any, bank: Bank) -> None:
    """The grant is revoked while a handler runs, and while a stream does: both stop, and say why."""
    alice = net.user("alice", scopes=[])
    asking = asyncio.ensure_future(alice.request("bank", Hold()))
    await bank.holding.wait()
    bank.holding.clear()
    async with alice.stream("bank", Tick(count=1)) as items:
        await anext(items)
        await bank.holding.wait()
        await net.user("alice", scopes=[]).revoke(alice.authority, reason="stop")
        with pytest.raises(Rejected) as caught:
            await asking
        assert caught.value.code == "reject.revoked"
        with pytest.raises(Rejected) as caught:
            await anext(items)
        assert caught.value.code == "reject.revoked"


async def test_a_stale_directory_takes_no_new_requests(net: Any, bank: Bank) -> None:
    net.silence_directory()
    net.clock.advance(31)
    assert await refused(net, net.attacker.authority, Quote()) == "unavailable.directory_stale"
    net.hear_directory()
    assert await refused(net, net.attacker.authority, Quote()) == "ok"
    assert bank.quoted == 1
