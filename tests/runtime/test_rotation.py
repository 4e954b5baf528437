"""Rotation in a trust domain of one process: whoever speaks there goes on speaking, under another key."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, Context, ProgrammingError, Request


class Number(BaseModel):
    n: int


class Next(Request[Number]):
    n: int


class Relay(Request[Number]):
    n: int


def agents() -> tuple[Agent[None], Agent[None]]:
    adder: Agent[None] = Agent("adder")
    relay: Agent[None] = Agent("relay")

    @adder.handler(scopes=["sum"])
    async def add(request: Next, ctx: Context[None]) -> Number:
        return Number(n=request.n + 1)

    @relay.handler
    async def pass_on(request: Relay, ctx: Context[None]) -> Number:
        return await ctx.request("adder", Next(n=request.n))

    return adder, relay


@pytest.mark.parametrize("overlap", [0, 60, 3600])
async def test_everybody_in_the_chain_is_rotated_and_goes_on(net: Any, overlap: float) -> None:
    adder, relay = agents()
    async with net.serve(adder, relay):
        alice = net.user("alice", scopes=["sum"])
        assert (await alice.request("relay", Relay(n=1), delegate=["sum"])).n == 2
        for name in ("relay", "adder", "user/alice", None):
            before = net._core.trust.active_key(net._node.name_id(name) if name else net.id)
            await net.rotate(name, overlap=overlap)
            after = net._core.trust.active_key(before.principal)
            assert after.key.id != before.key.id
            alice = net.user("alice", scopes=["sum"])
            assert (await alice.request("relay", Relay(n=1), delegate=["sum"])).n == 2
        await net.advance(overlap + 61)
        alice = net.user("alice", scopes=["sum"])
        assert (await alice.request("relay", Relay(n=1), delegate=["sum"])).n == 2
    async with net.serve(relay, adder):  # served again, under the keys of now
        alice = net.user("alice", scopes=["sum"])
        assert (await alice.request("relay", Relay(n=1), delegate=["sum"])).n == 2


@pytest.mark.parametrize(("name", "overlap", "code"), [("nobody", 1, "usage.not_served"), (None, -1, "usage.overlap"),
                                                       (None, 8 * 86400, "usage.overlap")])  # fmt: skip
async def test_what_cannot_be_rotated_is_said(net: Any, name: str | None, overlap: float, code: str) -> None:
    with pytest.raises(ProgrammingError) as caught:
        await net.rotate(name, overlap=overlap)
    assert caught.value.code == code
