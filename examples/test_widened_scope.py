"""A test of your own agents: what was handed to somebody can never become more. Run it with ``pytest``.

``net`` is agentbus's pytest fixture (with pytest-asyncio): a trust domain in this process, with an enrolled agent in it
who means harm.
"""

import pytest
from pydantic import BaseModel

from agentbus import Agent, Context, Denied, Rejected, Request
from agentbus.testing import Network


class Money(BaseModel):
    cents: int


class Balance(Request[Money]):
    pass


class Pay(Request[Money]):
    cents: int


bank = Agent("bank")
broker = Agent("broker")


@bank.handler(scopes=["account:read"])
async def balance(request: Balance, ctx: Context) -> Money:
    return Money(cents=100)


@bank.handler(scopes=["account:pay"])
async def pay(request: Pay, ctx: Context) -> Money:
    raise AssertionError("nobody in this file may pay")


@pytest.mark.asyncio  # not needed where pytest is told asyncio_mode = auto
async def test_a_widened_scope_is_refused(net: Network) -> None:
    """Alice lets mallory look at her account. Mallory tries to pay with that."""
    async with net.serve(bank, broker):
        alice, mallory = net.user("alice", scopes=["account:read", "account:pay"]), net.attacker
        look = await alice.delegate("mallory", ["account:read"], depth=1)
        assert (await mallory.acting(look).request("bank", Balance())).cents == 100

        with pytest.raises(Denied) as asked:  # she asks for more than she has
            await mallory.acting(look).request("bank", Pay(cents=100))
        assert asked.value.code == "denied.scope"

        with pytest.raises(Denied) as handed:  # she hands on more than she has: her own node does not sign that
            await mallory.acting(look).delegate("broker", ["account:pay"])
        assert handed.value.code == "denied.not_held"

        forged = mallory.widen(look, ["account:pay"], to="broker")  # so she signs it by hand, for an accomplice
        with pytest.raises(Rejected) as rejected:
            await net.acting(forged).request("bank", Pay(cents=100))
        assert rejected.value.code == "reject.grant_widens"
