"""Peers keep each other's checkpoints, and use them against whoever shows another history."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, Context, Request
from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash
from agentbus.errors import DeadlineExceeded, LogError, Malformed
from agentbus.log.checkpoint import read_checkpoint, sign_checkpoint
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import PeerCheckpoint, Receipt, Received, Sent
from agentbus.logstore.files import FileLog
from agentbus.logstore.memory import MemoryLog
from agentbus.runtime.witnessing import decode_notes, encode_notes
from agentbus.testing import Attacker, Network
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
        assert [(kept.note, note) for kept, note in mine.forks] == [(first, other)]
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


def show(peer: Attacker, *notes: bytes) -> None:
    """From now on every frame of a peer's node carries these notes, and what comes back is no concern of its own."""
    peer.node.inbound._witness = lambda connection, message: None
    peer.node._engine.notes_for = lambda route: encode_notes(notes)


async def test_a_note_under_another_key_keeps_nothing_of_a_log_from_being_kept(net: Network) -> None:
    """While dave's node is down, mallory, who has a copy of his key file, starts one with a log key of her own."""
    async with net.serve(carol):
        mine, _ = logs(net)
        thief = await net._invite("dave")
        log = thief.node.recorder.log
        assert isinstance(log, MemoryLog)
        great = sign_checkpoint(log.origin, 10**12, b"r" * 32, log._key)
        show(thief, great)
        await thief.request("carol", Ask(question="?"))
        await thief.aclose()
        dave = await net._invite("dave", thief.voice.identity)
        own = dave.node.recorder.log.checkpoint()
        await dave.request("carol", Ask(question="?"))
        net._node.recorder.flush()
        net._node.witnessing.save()
        assert [entry.note for entry in entries(mine, PeerCheckpoint)] == [great, own]
        assert {kept.note for kept in mine.kept_notes()} == {great, own} and not mine.forks
        told = decode_header(dave.received[-1].envelope.header, LIMITS)
        assert told.checkpoint_digest == hashlib.sha256(own).digest()  # the other's note is no mark of this one
        await dave.aclose()


async def test_a_note_of_this_nodes_name_under_another_key_makes_it_read_and_stop_nothing(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mallory signs notes of carol's node with her own key: nothing is computed before the signature is verified."""
    async with net.serve(carol):
        mine, hers = logs(net)
        asked: list[int] = []
        real = mine.root_at
        monkeypatch.setattr(mine, "root_at", lambda size: asked.append(size) or real(size))
        note = mine.checkpoint()
        forged = sign_checkpoint(mine.origin, 10**12, b"r" * 32, hers._key)
        show(net.attacker, forged, note[:-10] + b"AAAAAAAA=\n", note)
        await mallory_asks(net)
        await mallory_asks(net)
        assert asked == [read_checkpoint(note).size]  # only its own note, and once
        assert net._node.recorder.failed is None and not entries(mine, PeerCheckpoint)


async def test_nobody_stops_a_good_log_by_a_note_over_what_cannot_be_read(tmp_path: Path) -> None:
    """Carol's disk lost a tile, and another has gone bad; mallory shows her the notes she signed."""
    key = SigningKey(b"l" * 32)
    log = FileLog.open(tmp_path, key=key, origin="agentbus.local.test/local/1", now=0)
    async with await Network._start("local.test", log=log) as net, net.serve(carol):
        await mallory_asks(net)
        old = log.checkpoint()
        await mallory_asks(net)
        log.checkpoint()
        tiles = [path for path in (tmp_path / "tile" / "0").rglob("*") if path.is_file()]
        for harm in (lambda path: path.write_bytes(bytes(len(path.read_bytes()))), lambda path: path.unlink()):
            for path in tiles:
                harm(path)
            show(net.attacker, old)
            await mallory_asks(net)
            assert net._node.recorder.failed is None and not (tmp_path / "rolled-back.note").exists()
            with pytest.raises(LogError) as caught:
                log.root_at(read_checkpoint(old).size)
            assert caught.value.code == "log.damaged"


async def test_of_forks_one_pair_for_a_size_is_kept_and_few_in_all(net: Network) -> None:
    """Mallory signs histories without end, of one size and of many, and under other epochs."""
    async with net.serve(carol):
        mine, hers = logs(net)

        async def forks(origin: str, size: int, *roots: bytes) -> None:
            for root in roots:
                show(net.attacker, sign_checkpoint(origin, size, root * 32, hers._key))
                await net.advance(1)
                await mallory_asks(net)

        await forks(hers.origin, 5, b"a", b"b", b"c", b"d", b"e")
        assert len(mine.forks) == 1 and len(entries(mine, PeerCheckpoint)) == 2
        for size in range(6, 16):
            await forks(hers.origin, size, b"a", b"b")
        assert [kept.size for kept, _ in mine.forks] == [5, 6, 7, 8]
        for epoch in range(2, 10):
            for size in (5, 6, 7):
                await forks(f"agentbus.local.test/mallory/{epoch}", size, b"a", b"b")
        assert len(mine.forks) == 16


async def test_of_one_connection_only_so_many_notes_a_second_are_looked_at(net: Network) -> None:
    """Mallory fills every frame with notes, each of which costs a signature and an entry."""
    async with net.serve(carol):
        mine, hers = logs(net)
        size = 1
        for second in (1, 2):
            for _ in range(10):
                notes = [sign_checkpoint(hers.origin, size + at, b"r" * 32, hers._key) for at in range(3)]
                size += 3
                show(net.attacker, *notes)
                await mallory_asks(net)
            assert len(entries(mine, PeerCheckpoint)) == 8 * second
            await net.advance(1)


async def test_who_shows_many_logs_pushes_out_its_own_and_nobody_elses(net: Network) -> None:
    async with net.serve(carol):
        mine, hers = logs(net)
        dave = await net._invite("dave")
        dave.node.recorder.log.checkpoint()
        await dave.request("carol", Ask(question="?"))
        for epoch in range(1, 41):
            show(net.attacker, sign_checkpoint(f"agentbus.local.test/mallory/{epoch}", 9, b"r" * 32, hers._key))
            await mallory_asks(net)
            await net.advance(1)
            if epoch % 7 == 0:
                net._node.witnessing.save()
        net._node.witnessing.save()
        kept = sorted((int(one.origin.rpartition("/")[2]), one.by.rpartition("/")[2]) for one in mine.kept_notes())
        assert kept == [(1, "dave"), *((epoch, "mallory") for epoch in range(25, 41))]
        await dave.aclose()


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
