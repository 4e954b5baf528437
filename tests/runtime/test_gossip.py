"""Peers that ask too much or say what nobody asked for pay for it, and a head is compared only for what it proves."""

from __future__ import annotations

from typing import Any

import pytest

from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError, Malformed, Unavailable
from agentbus.runtime.gossip import ANSWER_EVERY, ASK_EVERY, Gossip
from agentbus.testing import ManualClock
from agentbus.testing.draw import draw_world
from agentbus.wire.limits import SECOND
from agentbus.wire.sync import decode_sync, encode_sync


class Peer:
    """A connection whose frames are kept instead of sent."""

    def __init__(self, number: int = 1) -> None:
        self.id, self.sent = number, list[bytes]()

    def offer(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True

    @property
    def operations(self) -> list[str]:
        return [decode_sync(frame)[0] for frame in self.sent]


class Node:
    """A node's view with one head, and what it was charged and asked to compare."""

    def __init__(self) -> None:
        world = draw_world("carol")
        self.trust: Trust = world.trust.accept_head(world.head())
        self.clock = ManualClock()
        self.charged: list[int] = []
        self.compared: list[bytes] = []
        self.failing: AgentBusError | None = None
        self.gossip = Gossip(self, self.clock, spawn=self.run, charge=lambda c: self.charged.append(c.id))

    def run(self, work: Any) -> None:
        with pytest.raises(StopIteration):
            work.send(None)

    async def refresh(self) -> None:
        return None

    def head_of(self, size: int) -> bytes | None:
        return None

    async def compare(self, note: bytes) -> None:
        self.compared.append(note)
        if self.failing is not None:
            raise self.failing


def test_a_peer_is_asked_once_a_minute_whatever_it_names() -> None:
    node, peer = Node(), Peer()
    for size in range(1000):
        node.gossip.named(peer, size)  # type: ignore[arg-type]
    assert peer.operations == ["head-at"]
    node.clock.advance(ASK_EVERY / SECOND)
    node.gossip.named(peer, 1)  # type: ignore[arg-type]
    assert peer.operations == ["head-at"] * 2 and node.charged == []


def test_who_asks_more_than_once_a_second_pays() -> None:
    node, peer = Node(), Peer()
    for _ in range(5):
        node.gossip.received(peer, encode_sync("head-at", 0, 7))  # type: ignore[arg-type]
    assert peer.operations == ["head-of"] and node.charged == [1] * 4
    node.clock.advance(ANSWER_EVERY / SECOND)
    node.gossip.received(peer, encode_sync("head-at", 0, 7))  # type: ignore[arg-type]
    assert peer.operations == ["head-of"] * 2
    assert node.trust.head is not None and decode_sync(peer.sent[0])[2] == [node.trust.head.note]


def test_an_answer_that_nobody_asked_for_is_not_looked_at() -> None:
    node, peer = Node(), Peer()
    node.gossip.received(peer, encode_sync("head-of", 0, b"note"))  # type: ignore[arg-type]
    assert node.charged == [1] and node.compared == []
    node.gossip.named(peer, 1)  # type: ignore[arg-type]
    for _ in range(3):
        node.gossip.received(peer, encode_sync("head-of", 0, b"note"))  # type: ignore[arg-type]
    assert node.compared == [b"note"] and node.charged == [1] * 3


@pytest.mark.parametrize(
    "frame",
    [
        b"\x02",
        b"\x02\xc0",
        encode_sync("push", 0, b"", [], [], []),
        encode_sync("refused", 0, "x", "y"),
        encode_sync("poll", 1, 0, b"", b""),
    ],
)
def test_whatever_else_a_peer_says_of_the_directory_is_not_heard(frame: bytes) -> None:
    """A peer cannot push entries, or pass for the directory."""
    node, peer = Node(), Peer()
    node.gossip.named(peer, 1)  # type: ignore[arg-type]
    node.gossip.received(peer, frame)  # type: ignore[arg-type]
    assert node.charged == [1] and node.compared == [] and peer.operations == ["head-at"]


def test_junk_for_a_head_costs_and_a_head_that_cannot_be_judged_does_not() -> None:
    for failing, cost in ((Malformed("malformed.note"), [1]), (Unavailable("unavailable.directory_behind"), [])):
        node, peer = Node(), Peer()
        node.failing = failing
        node.gossip.named(peer, 1)  # type: ignore[arg-type]
        node.gossip.received(peer, encode_sync("head-of", 0, b"note"))  # type: ignore[arg-type]
        assert node.charged == cost


def test_what_is_kept_of_a_connection_goes_with_it() -> None:
    node = Node()
    for number in range(6000):
        node.gossip.named(Peer(number), 1)  # type: ignore[arg-type]
    assert len(node.gossip._asked) <= 4096
    for number in range(6000):
        node.gossip.lost(Peer(number))  # type: ignore[arg-type]
    assert not node.gossip._asked and not node.gossip._open
