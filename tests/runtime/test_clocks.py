"""A machine that sleeps, and a clock that is set: time on the wall jumps, no timer fires, and everything goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Context, Rejected, Request
from agentbus.testing import Network


class Said(BaseModel):
    text: str


class Say(Request[Said]):
    text: str


def parrot() -> Agent[Any]:
    agent = Agent("parrot")

    @agent.handler
    async def say(request: Say, ctx: Context) -> Said:
        return Said(text=request.text)

    return agent


@pytest.mark.parametrize("hours", [2, -2])
async def test_a_machine_that_slept_takes_new_keys_as_soon_as_it_wakes(town: Any, hours: int) -> None:
    async with town.serve(parrot()):
        asker = await town.peer("asker")
        assert (await asker.request("parrot", Say(text="before"))).text == "before"
        town.clock.shift_wall(hours * 3600)
        refused: set[str] = set()
        async with asyncio.timeout(20):
            while True:
                try:
                    answer = await asker.request("parrot", Say(text="after"))
                    break
                except AgentBusError as error:
                    assert error.retryable
                    refused.add(error.code)
                    await asyncio.sleep(0.01)
        assert answer.text == "after"
        assert refused <= {"agent.not_running", "reject.key_expired"}


async def test_whoever_is_refused_for_the_age_of_its_own_key_takes_a_new_one_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agentbus.runtime.voices.LOOK", 3600.0)  # nobody looks at the clock by himself
    async with Network.open() as net, net.serve(parrot()):
        other = next(v for v in net._node.voices if v.identity.id.name == "parrot")
        old = net._voice.key.id
        net.clock.shift_wall(2 * 3600)
        await net._node.voices.renew(other)
        with pytest.raises(Rejected) as caught:
            await net.request("parrot", Say(text="x"))
        assert caught.value.code == "reject.key_expired"
        assert caught.value.retryable
        await net.settle()
        assert net._voice.key.id != old
        assert (await net.request("parrot", Say(text="again"))).text == "again"


async def test_a_renewal_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key may be young: another was wanted, for its identity has another key or the directory missed it."""
    monkeypatch.setattr("agentbus.runtime.voices.LOOK", 3600.0)
    async with Network.open() as net:
        old = net._voice.key.id
        net.silence_directory()
        await net._node.voices.renew(net._voice)
        net.hear_directory()
        await net.advance(4)
        assert net._voice.key.id == old
        await net.advance(2)
        assert net._voice.key.id != old
