"""Bytes that are good as one thing, sent in the place of another."""

from __future__ import annotations

from typing import Any

from agentbus.delegation.chain import Authority

from .bank import Bank, Quote


async def test_an_instance_key_in_the_place_of_a_chain(net: Any, bank: Bank) -> None:
    """The key was just found good when its message was: what is remembered of a key is no verdict on a chain."""
    attacker = net.attacker
    held = Authority(attacker.authority.links, attacker.voice.instance.key)
    assert (await attacker.deliver(attacker.forge("bank", Quote(), authority=held))).startswith("malformed.")
    assert bank.quoted == 0
    assert await attacker.deliver(attacker.forge("bank", Quote())) == "ok"
