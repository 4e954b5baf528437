"""Step 1: frames take turns by key, bounded, in order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentbus import Agent, Context
from agentbus.errors import Malformed
from agentbus.runtime import inbound as inbound_module
from agentbus.runtime.turns import FEW, FIXED, FLOOD, FRAMES, QUANTUM, SOME, Turns

KEYS = st.sampled_from(["a", "b", "c"])


def drain(turns: Turns[Any]) -> list[Any]:
    taken = []
    while turns.waiting:
        taken += turns.step(1)
    return taken


@given(st.lists(st.tuples(KEYS, st.integers(0, 3 * QUANTUM))))
def test_everything_comes_out_once_and_each_key_keeps_its_order(frames: list[tuple[str, int]]) -> None:
    turns: Turns[tuple[str, int]] = Turns()
    pushed = defaultdict(list)
    for n, (key, size) in enumerate(frames):
        assert turns.push(key, (key, n), size)
        pushed[key].append((key, n))
    assert turns.waiting == len(frames)
    taken = drain(turns)
    assert len(taken) == len(frames) and turns.waiting == 0
    for key, items in pushed.items():
        assert [item for item in taken if item[0] == key] == items


def test_a_flood_waits_behind_itself() -> None:
    """Four thousand frames of one key wait; one frame of another is next but for one turn of the flood's."""
    turns: Turns[str] = Turns()
    for _ in range(FRAMES):
        turns.push("flood", "flood", 500)
    turns.push("quiet", "quiet", 500)
    taken = drain(turns)
    assert taken.index("quiet") <= QUANTUM // (500 + FIXED) + 1


@given(st.lists(st.integers(0, 60_000), min_size=30, max_size=60), st.lists(st.integers(0, 60_000), min_size=30))
def test_two_floods_share_by_what_they_cost(one: list[int], other: list[int]) -> None:
    """While both wait, neither is ahead of the other by more than a turn and a frame."""
    turns: Turns[tuple[str, int]] = Turns()
    for key, sizes in (("one", one), ("other", other)):
        for size in sizes:
            turns.push(key, (key, size), size)
    spent = {"one": 0, "other": 0}
    left = {"one": len(one), "other": len(other)}
    while min(left.values()) > 0:
        (item,) = turns.step(1)
        spent[item[0]] += item[1] + FIXED
        left[item[0]] -= 1
        assert abs(spent["one"] - spent["other"]) <= 2 * (QUANTUM + 60_000 + FIXED)


def test_a_key_may_have_so_many_frames_waiting_and_so_many_bytes() -> None:
    turns: Turns[int] = Turns(frames=3, size=1000)
    assert [turns.push("a", n, 10) for n in range(4)] == [True, True, True, False]
    assert turns.push("b", 1, 900) and not turns.push("b", 2, 200)
    assert turns.waiting == 4
    assert turns.push("c", 9, 5000), "one frame always fits: its size has its own limit"
    assert len(drain(turns)) == 5
    assert turns.push("a", 1, 10), "what was taken makes room"


@given(st.lists(st.tuples(KEYS, st.integers(0, 3 * QUANTUM))), st.booleans(), st.integers(1, 70))
def test_steps_of_any_length_lose_nothing(frames: list[tuple[str, int]], crowd: bool, most: int) -> None:
    turns: Turns[int] = Turns()
    for n, (key, size) in enumerate(frames):
        turns.push(key, n, size)
    taken: list[int] = []
    for _ in range(10 * len(frames) + 10):
        step = turns.step(most, crowd=crowd)
        assert len(step) <= most
        taken += step
    assert sorted(taken) == list(range(len(frames))) and turns.waiting == 0


def test_in_a_crowd_a_flood_has_few_in_each_step_and_alone_it_has_all() -> None:
    """Everybody else waits for the end of a step: a flood must not make it long."""
    turns: Turns[str] = Turns()
    for _ in range(FRAMES):
        turns.push("flood", "flood", 500)
    assert turns.step(64, crowd=False) == ["flood"] * 64
    for _ in range(SOME):
        turns.push("quiet", "quiet", 500)
    step = turns.step(64, crowd=True)
    assert step.count("flood") == FEW and step.count("quiet") == SOME
    assert turns.step(64, crowd=True) == ["flood"] * FEW
    while turns.waiting > FLOOD:
        turns.step(64, crowd=True)
    assert len(turns.step(64, crowd=True)) == SOME, "what is left is no more than anybody may have under way"
    assert len(turns.step(64, crowd=False)) == 64


def test_in_a_crowd_nobody_makes_a_step_long_for_the_others() -> None:
    """A peer with much under way, honest or not: who asks for one thing waits for a few of its frames, and no more."""
    turns: Turns[str] = Turns()
    for _ in range(FLOOD):
        turns.push("busy", "busy", 500)
    turns.push("quiet", "quiet", 500)
    assert sorted(turns.step(64, crowd=True)) == ["busy"] * SOME + ["quiet"]
    for key in "abcdefghijkl":
        for _ in range(SOME):
            turns.push(key, key, 500)
    assert len(turns.step(64, crowd=True)) == 64, "many peers fill a step together"


def test_a_key_that_was_served_leaves_nothing_behind() -> None:
    turns: Turns[int] = Turns()
    for key in range(1000):
        turns.push(key, key, 1)
    drain(turns)
    assert not turns._queues and not turns._order


class Note(BaseModel): ...


class _Connection:
    def __init__(self, number: int, peer: bytes) -> None:
        self.id, self.peer = number, peer
        self.dropped = False

    def drop(self, *, keep_out: bool = True) -> None:
        self.dropped = True


async def test_everything_that_a_node_is_sent_takes_turns(net: Any) -> None:
    """A flood of a directory's own frames over thirty connections of one key: somebody else's is next all the same."""
    inbound, taken = net._node.inbound, []
    flood = [_Connection(1_000_000 + n, b"f" * 32) for n in range(30)]
    quiet = _Connection(2_000_000, b"q" * 32)
    for n in range(3000):
        inbound.received(flood[n % 30], b"\x02" * 200, lambda c, f: taken.append(c.peer))
    inbound.received(quiet, b"\x02" * 200, lambda c, f: taken.append(c.peer))
    await net.settle(200)
    assert len(taken) == 3001
    at_once = inbound_module.AT_ONCE
    assert taken.index(b"q" * 32) <= at_once + QUANTUM // (200 + FIXED) + 1
    assert not any(connection.dropped for connection in [*flood, quiet])


async def test_who_does_not_stop_loses_its_own_connection_only(net: Any) -> None:
    inbound = net._node.inbound
    flood, quiet = _Connection(1_000_000, b"f" * 32), _Connection(2_000_000, b"q" * 32)
    for _ in range(FRAMES + 2000):
        inbound.received(flood, b"\x02" * 200, lambda c, f: None)
    inbound.received(quiet, b"\x02" * 200, lambda c, f: None)
    await net.settle(300)
    assert flood.dropped and not quiet.dropped
    assert "backpressure.connection" in net.verdicts()


@pytest.mark.parametrize("error", [RuntimeError(), Malformed("malformed.frame", "an answer of more than a frame")])
async def test_a_frame_that_nobody_can_judge_costs_its_own_connection_only(net: Any, error: Exception) -> None:
    """A fault that a peer has found: the frames of others, in the same step, are judged all the same."""
    inbound, taken = net._node.inbound, []
    flood, quiet = _Connection(1_000_000, b"f" * 32), _Connection(2_000_000, b"q" * 32)

    def take(connection: Any, frame: bytes) -> None:
        if connection is flood:
            raise error
        taken.append(frame)

    for _ in range(inbound_module.AT_ONCE + 10):
        inbound.received(flood, b"\x02" * 200, take)
        inbound.received(quiet, b"\x02" * 200, take)
    await net.settle(50)
    assert len(taken) == inbound_module.AT_ONCE + 10
    assert flood.dropped and not quiet.dropped


@given(st.integers(1, 40))
def test_a_large_frame_comes_out_of_a_crowd_in_one_step(quanta: int) -> None:
    turns: Turns[str] = Turns()
    for _ in range(FRAMES):
        turns.push("flood", "flood", 500)
    turns.step(64, crowd=True)
    turns.push("quiet", "quiet", quanta * QUANTUM)
    assert "quiet" in turns.step(64, crowd=True)


async def test_what_comes_in_one_step_is_told_apart(net: Any) -> None:
    """Two receipts to each of a hundred sends, and they arrive together: the first is not taken for the final one."""
    agent: Agent[Any] = Agent("sink")

    @agent.handler
    async def take(request: Note, ctx: Context[Any]) -> None: ...

    async with net.serve(agent):
        alice = net.user("alice", scopes=[])
        receipts = await asyncio.gather(*(alice.send("sink", Note(), ack="handled") for _ in range(100)))
    assert {receipt.level for receipt in receipts} == {"handled"}
