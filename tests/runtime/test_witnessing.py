"""Peers keep each other's checkpoints, and use them against whoever shows another history."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, Context, Request
from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash
from agentbus.errors import DeadlineExceeded, LogError, Malformed
from agentbus.log.checkpoint import read_checkpoint, sign_checkpoint
from agentbus.log.entry import PeerCheckpoint, Receipt, Received, Sent, decode_entry
from agentbus.logstore.memory import MemoryLog
from agentbus.runtime.witnessing import decode_notes, encode_notes
from agentbus.testing import Network
from agentbus.wire.header import decode_header
from agentbus.wire.limits import LIMITS


class Answer(BaseModel):
    text: str


class Ask(Request[Answer]):
    question: str


carol = Agent("carol")


@carol.handler
async def ask(request: Ask, ctx: Context) -> Answer:
    return Answer(text=request.question)


def logs(net: Network) -> tuple[MemoryLog, MemoryLog]:
    mine, hers = net._node.recorder.log, net.attacker.node.recorder.log
    assert isinstance(mine, MemoryLog) and isinstance(hers, MemoryLog)
    return mine, hers


def entries(log: MemoryLog, kind: type[Any]) -> list[Any]:
    return [entry for entry in map(decode_entry, log) if isinstance(entry, kind)]


async def mallory_asks(net: Network) -> None:
    """The attacker behaves: an ordinary request from her node to carol's, and the answer."""
    await net.attacker.request("carol", Ask(question="how much?"))
    for node in (net._node, net.attacker.node):
        node.recorder.flush()


async def test_a_new_checkpoint_goes_with_the_next_frame_to_each_peer_and_is_kept(net: Network) -> None:
    async with net.serve(carol):
        mine, hers = logs(net)
        await mallory_asks(net)
        assert not entries(mine, PeerCheckpoint) and not entries(hers, PeerCheckpoint)
        notes = hers.checkpoint(), mine.checkpoint()
        await mallory_asks(net)
        kept = entries(mine, PeerCheckpoint)[0], entries(hers, PeerCheckpoint)[0]
        assert (kept[0].note, kept[1].note) == notes
        await mallory_asks(net)  # the same checkpoint is not told twice
        assert [len(entries(log, PeerCheckpoint)) for log in (mine, hers)] == [1, 1]
        last = decode_header(entries(mine, Received)[-1].header, LIMITS)
        assert last.sender.endswith("/mallory") and last.checkpoint_digest == hashlib.sha256(notes[1]).digest()


async def test_a_peer_hears_of_new_checkpoints_at_most_once_a_second(net: Network) -> None:
    async with net.serve(carol):
        mine, hers = logs(net)
        for _ in range(5):
            hers.checkpoint()
            await mallory_asks(net)
        assert len(entries(mine, PeerCheckpoint)) == 1
        await net.advance(1)
        hers.checkpoint()
        await mallory_asks(net)
        assert len(entries(mine, PeerCheckpoint)) == 2


async def test_who_was_set_back_is_shown_its_own_newer_note_and_stops(net: Network) -> None:
    """Mallory's disk was restored to an hour ago; carol's node holds what she signed since."""
    async with net.serve(carol):
        mine, hers = logs(net)
        older = hers.checkpoint()
        await mallory_asks(net)
        await net.advance(1)
        newer = hers.checkpoint()
        await mallory_asks(net)
        assert [entry.note for entry in entries(mine, PeerCheckpoint)] == [older, newer]
        await net.advance(1)
        size = read_checkpoint(older).size
        restored = MemoryLog(key=hers._key, origin=hers.origin)
        restored.append(hers._entries[:size])
        assert restored.checkpoint() == older
        net.attacker.node.recorder.log = restored
        for _ in range(2):  # the answer that brings the note is given to nobody, and nothing more is asked
            with pytest.raises(LogError) as caught:
                await net.attacker.request("carol", Ask(question="more?"))
            assert caught.value.code == "log.rolled_back" and restored.published == older


async def test_two_histories_of_one_size_are_kept_side_by_side(net: Network) -> None:
    """Mallory signs one history for carol, and shows another afterwards."""
    async with net.serve(carol):
        mine, hers = logs(net)
        first = hers.checkpoint()
        await mallory_asks(net)
        await net.advance(1)
        other = sign_checkpoint(hers.origin, read_checkpoint(first).size, b"r" * 32, hers._key)
        hers.published = other
        await mallory_asks(net)
        assert mine.forks == [(first, other)]
        assert [entry.note for entry in entries(mine, PeerCheckpoint)] == [first, other]


@pytest.mark.parametrize("which", ["another node", "another key", "junk", "left over"])
async def test_a_note_that_is_not_the_senders_own_is_not_kept(net: Network, which: str) -> None:
    """Mallory hands in notes about somebody else's log, or by a key that is not her node's."""
    async with net.serve(carol):
        mine, hers = logs(net)
        note = {
            "another node": sign_checkpoint("agentbus.local.test/victim/1", 9, b"r" * 32, hers._key),
            "another key": sign_checkpoint(hers.origin, 9, b"r" * 32, SigningKey(b"x" * 32)),
            "junk": b"junk",
            "left over": b"",
        }[which]
        engine = net.attacker.node._engine
        engine.notes_for = lambda route: encode_notes([note]) if note else b"\x00"
        await mallory_asks(net)
        assert not entries(mine, PeerCheckpoint) and not mine.forks
        mine.append([b"\x94\x0a" + bytes([0xCD]) + len(mine._entries).to_bytes(2, "big") + b"\x00\xa0"])  # it goes on


def test_a_section_holds_up_to_three_notes_that_fit() -> None:
    assert decode_notes(encode_notes([b"a", b"bb"])) == [b"a", b"bb"] and decode_notes(b"") == []
    assert decode_notes(encode_notes([b"x" * 600, b"y" * 600, b"z"])) == [b"x" * 600, b"z"]
    assert len(decode_notes(encode_notes([b"a"] * 9))) == 3
    for bad in (b"\0", b"\0\0", b"\0\2a", encode_notes([b"a"]) * 4):
        with pytest.raises(Malformed) as caught:
            decode_notes(bad)
        assert caught.value.code == "malformed.notes"


async def test_a_message_that_nobody_answers_in_time_is_on_the_record(net: Network) -> None:
    silent, asked = Agent("silent"), asyncio.Event()

    @silent.handler
    async def never(request: Ask, ctx: Context) -> Answer:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with net.serve(silent):
        alice = net.user("alice", scopes=[])
        waiting = asyncio.create_task(alice.request("silent", Ask(question="?"), timeout=5))
        await asked.wait()
        await net.advance(6)
        with pytest.raises(DeadlineExceeded):
            await waiting
        mine = net._node.recorder.log
        assert isinstance(mine, MemoryLog)
        found = entries(mine, Receipt)
        assert [(one.receipt, one.code) for one in found] == [(None, "deadline.exceeded")]
        sent = [leaf_hash(one.header) for one in entries(mine, Sent)]
        assert found[0].digest in sent
