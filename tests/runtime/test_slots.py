"""Whose handler runs next, when more is asked than may run at once."""

from __future__ import annotations

import asyncio

import pytest

from agentbus import Backpressure
from agentbus.runtime.slots import Slots


async def waiting(slots: Slots, order: list[str], *senders: str) -> list[asyncio.Task[None]]:
    async def wait(sender: str) -> None:
        await slots.wait(sender)
        order.append(sender)

    tasks = [asyncio.ensure_future(wait(sender)) for sender in senders]
    await asyncio.sleep(0)
    return tasks


async def test_so_many_at_once() -> None:
    slots = Slots(2)
    assert [slots.take(), slots.take(), slots.take()] == [True, True, False]
    slots.give()
    assert slots.take()


async def test_who_asks_for_much_waits_behind_itself() -> None:
    slots, order = Slots(1), list[str]()
    assert slots.take()
    tasks = await waiting(slots, order, *["mallory"] * 100, "alice", "bob", "alice")
    for _ in range(6):
        slots.give()
        await asyncio.sleep(0)
    assert order == ["mallory", "alice", "bob", "mallory", "alice", "mallory"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_line_is_bounded_and_nobody_elses_is_shorter_for_it() -> None:
    slots, order = Slots(1, line=3), list[str]()
    assert slots.take()
    tasks = await waiting(slots, order, *["mallory"] * 3, "alice")
    with pytest.raises(Backpressure) as caught:
        await slots.wait("mallory")
    assert caught.value.code == "backpressure.handler" and caught.value.retryable
    tasks += await waiting(slots, order, "alice")
    for _ in range(5):
        slots.give()
    await asyncio.gather(*tasks)
    assert sorted(order) == ["alice"] * 2 + ["mallory"] * 3


@pytest.mark.parametrize("moment", ["while it waits", "as its turn comes"])
async def test_a_turn_that_is_cancelled_is_the_next_ones(moment: str) -> None:
    slots, order = Slots(1), list[str]()
    assert slots.take()
    first, second = await waiting(slots, order, "alice", "bob")
    if moment == "as its turn comes":
        slots.give()
        first.cancel()
    else:
        first.cancel()
        await asyncio.sleep(0)
        slots.give()
    await second
    assert order == ["bob"] and slots._lines == {}
    slots.give()
    assert slots.take() and not slots.take()


@pytest.mark.parametrize("waiting_too", ["nobody", "bob", "alice"])
async def test_a_slot_that_comes_back_in_the_step_of_a_cancel_is_not_lost(waiting_too: str) -> None:
    """Who asks and cancels at the right moment takes no slot away for good: a cancelled task has not run yet then."""
    slots, order = Slots(1), list[str]()
    assert slots.take()
    others = [] if waiting_too == "nobody" else [waiting_too]
    first, *rest = await waiting(slots, order, "alice", *others)
    first.cancel()
    slots.give()
    await asyncio.gather(first, *rest, return_exceptions=True)
    assert first.cancelled() and order == others and slots._lines == {}
    if rest:
        slots.give()
    assert slots.take() and not slots.take()
