"""Peers as witnesses: every node hands its newest checkpoint to those it speaks with, and keeps theirs.

Rule 1: a note travels in the note section of an ordinary frame, to each peer at most once a second, and nobody waits
for it. It proves itself: the section is covered by no other signature.
Rule 2: a note is kept when the log key that its sender's own statement names signed it for the sender's own node: in
the log as PEER_CHECKPOINT, and beside it as the mark that this peer's log must have reached. A node's name is anybody's
to take, so a log is its origin *and* its key: under another key it is another log.
Rule 3: whoever we meet again, or who shows an older note than we hold, is shown the newest we hold of it. Who is shown
a note of its own that it cannot have signed in this history stops: it was restored from a backup.
Rule 4: two notes over one size with two roots are kept side by side, in the log and in a file of their own: that is the
proof of a fork, and it needs no word of ours.
Rule 5: nothing is computed for a note before its signature is verified, and of one connection only so many notes a
second are looked at. How many logs and forks are kept is bounded for each principal: nobody pushes out another's.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple

from agentbus.crypto.keys import checked_key
from agentbus.crypto.note import Checkpoint
from agentbus.delegation.messages import VerifiedMessage
from agentbus.errors import AgentBusError, BadSignature, LogError, Malformed
from agentbus.log.base import KeptNote
from agentbus.log.checkpoint import parse_origin, read_checkpoint, verify_checkpoint
from agentbus.runtime.record import Recorder
from agentbus.transport.base import Connection
from agentbus.wire.limits import LIMITS, SECOND

CODES: Final = {
    "malformed.notes": "A note section is up to three notes, each behind its length of 16 bits.",
}

NOTES: Final = 3
PEERS: Final = 4096  # connections and instances that are remembered
LOGS: Final = 16  # of which one principal's notes are kept: as many processes and epochs as it has in use at a time
EACH_SECOND: Final = 8  # notes of one connection that are looked at; an honest peer shows two
_U16: Final = struct.Struct(">H")
logger = logging.getLogger("agentbus.log")


def encode_notes(notes: Sequence[bytes]) -> bytes:
    """A note section; as many of the notes as fit."""
    section = b""
    for note in notes[:NOTES]:
        if len(section) + 2 + len(note) <= LIMITS.note:
            section += _U16.pack(len(note)) + note
    return section


def decode_notes(section: bytes) -> list[bytes]:
    """The notes of a section; nobody's signature has been looked at.

    Raises:
        Malformed: ``malformed.notes``.
    """
    notes: list[bytes] = []
    at = 0
    while at < len(section):
        if len(section) - at < 2 or len(notes) == NOTES:
            raise Malformed("malformed.notes", "bytes are left over")
        (length,) = _U16.unpack_from(section, at)
        at += 2 + length
        if not length or at > len(section):
            raise Malformed("malformed.notes", "a note is empty or cut off")
        notes.append(section[at - length : at])
    return notes


class LogId(NamedTuple):
    """A log of another node: whoever takes its name does not have its key."""

    origin: str
    key: bytes  # raw public log key


class Held(NamedTuple):
    """The newest note of a log, and its digest."""

    said: Checkpoint
    note: bytes
    digest: bytes


class Witnessing:
    """What one node keeps of others' logs, and tells of its own.

    Args:
        recorder: The node's hand on its log.
        now: The clock, microseconds.
        logs_at: CURVE key → names and log keys of the nodes that are there, where that is known.
    """

    def __init__(
        self,
        recorder: Recorder,
        now: Callable[[], int],
        logs_at: Callable[[bytes], Collection[tuple[str, bytes]]] = lambda key: (),
    ) -> None:
        self._recorder, self._now, self._logs_at = recorder, now, logs_at
        self._log_key = checked_key(recorder.log.log_key)
        self._greeted: OrderedDict[int, None] = OrderedDict()  # connections that were shown what we hold of their peer
        self._held: dict[LogId, Held] = {}
        self._shown: dict[str, OrderedDict[LogId, None]] = {}  # principal → logs it showed, the newest last
        self._unsaved: dict[LogId, KeptNote | None] = {}  # None: to be forgotten
        for kept in recorder.log.kept_notes():
            self._held[LogId(kept.origin, kept.log_key)] = _held(read_checkpoint(kept.note), kept.note)
            self._show(kept.by, LogId(kept.origin, kept.log_key))
        self._looked: OrderedDict[int, tuple[int, int]] = OrderedDict()  # connection → second, notes looked at in it
        self._told: OrderedDict[bytes | int, tuple[int, bytes]] = OrderedDict()  # peer → when, which of ours
        self._answers: OrderedDict[bytes | int, bytes] = OrderedDict()  # peer → its own newer note
        self._logs: OrderedDict[bytes, LogId] = OrderedDict()  # instance id → its node's log
        self._mine: OrderedDict[bytes, None] = OrderedDict()  # notes of this log that it is known to lead to

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def notes_for(self, connection: Connection) -> bytes:
        """The note section of the next frame over a connection; mostly empty."""
        peer = _who(connection)
        own = self._recorder.log.published
        last = self._told.get(peer)
        greeted = connection.id in self._greeted
        if greeted and (own is None or (last is not None and last[1] is own)) and not self._answers:
            return b""  # for nearly every frame
        notes, second = [], self._now() // SECOND
        if own is not None and (last is None or (last[1] is not own and last[0] != second)):
            notes.append(own)
            _remember(self._told, peer, (second, own))
        answer = self._answers.pop(peer, None)
        if not greeted:  # it may have been set back since we last spoke
            _remember(self._greeted, connection.id, None)
            answer = answer or self._newest_of(connection)
        return encode_notes(notes if answer is None else [*notes, answer])

    def _newest_of(self, connection: Connection) -> bytes | None:
        """The newest note held of the node at the other end, in its newest epoch."""
        there = self._logs_at(connection.peer) if connection.peer is not None else ()
        held = []
        for log, one in self._held.items() if there else ():
            origin = parse_origin(log.origin)
            if (origin.node, log.key) in there:
                held.append((origin.epoch, one.note))
        return max(held)[1] if held else None

    def held_of(self, instance_id: bytes) -> bytes | None:
        """The digest of the newest note held of the node in which an instance lives: what a header tells it."""
        log = self._logs.get(instance_id)
        held = self._held.get(log) if log is not None else None
        return held.digest if held is not None else None

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def received(self, connection: Connection, message: VerifiedMessage) -> None:
        """Look at the notes that came with a verified message. What is wrong with one is nobody else's business."""
        try:
            notes = decode_notes(message.envelope.note)
        except Malformed:
            return
        for note in notes:
            if not self._may_look(connection):
                return
            try:
                said = read_checkpoint(note)
                if said.origin != self._recorder.log.origin or not self._of_mine(said, note):
                    self._of_peer(connection, message, said, note)
            except AgentBusError as error:
                # Nobody has to act on it: processes of one identity share a key, so one is told of another's log, too.
                logger.info("a checkpoint from %s was not kept: %s", message.header.sender, error)

    def _may_look(self, connection: Connection) -> bool:
        """Count a note of this connection; False when it has had all of this second's."""
        second, count = self._looked.get(connection.id, (0, 0))
        now = self._now() // SECOND
        count = count + 1 if second == now else 1
        _remember(self._looked, connection.id, (now, count))
        return count <= EACH_SECOND

    def _of_peer(self, connection: Connection, message: VerifiedMessage, said: Checkpoint, note: bytes) -> None:
        sender, origin = message.sender, parse_origin(said.origin)
        if origin.node != sender.node or origin.domain != message.header.sender.split("/")[2]:
            raise Malformed("malformed.notes", f"a note of {said.origin} from node {sender.node}")
        verify_checkpoint(note, said.origin, checked_key(sender.log_key))
        log = LogId(said.origin, sender.log_key)
        _remember(self._logs, sender.instance_id, log)
        kept = KeptNote(log.origin, log.key, sender.principal, said.size, note)
        held = self._held.get(log)
        if held is None or said.size > held.said.size:
            self._held[log] = _held(said, note)
            self._unsaved[log] = kept
            self._recorder.peer_checkpoint(note, connection=connection.peer, now=self._now())
        elif said.size < held.said.size:
            _remember(self._answers, _who(connection), held.note)
        elif said.root != held.said.root and self._recorder.log.keep_fork(kept._replace(note=held.note), note):
            self._recorder.peer_checkpoint(note, connection=connection.peer, now=self._now())
            logger.error("%s signed two histories of %d entries; both are kept", said.origin, said.size)
        self._show(sender.principal, log)

    def _show(self, principal: str, log: LogId) -> None:
        """A principal showed this log: beyond so many, what it showed longest ago is held for nobody any more."""
        mine = self._shown.setdefault(principal, OrderedDict())
        _remember(mine, log, None)
        if len(mine) > LOGS:
            old, _ = mine.popitem(last=False)
            if not any(old in others for others in self._shown.values()):
                self._held.pop(old, None)
                self._unsaved[old] = None

    def _of_mine(self, said: Checkpoint, note: bytes) -> bool:
        """A peer shows a note of this node's log. In an honest history the log leads to it.

        Returns:
            False: this log's key did not sign it, so it is of another log with the same name.
        """
        log = self._recorder.log
        if note in self._mine:
            return True
        try:
            verify_checkpoint(note, said.origin, self._log_key)
        except BadSignature:
            return False
        try:
            root = log.root_at(said.size)
        except LogError as error:  # this node's own trouble, and no word of what it signed
            logger.warning("a checkpoint that a peer holds of this log could not be compared: %s", error)
            return True
        if root == said.root:
            _remember(self._mine, note, None)
            return True
        log.roll_back(note)
        rolled = LogError("log.rolled_back", f"a peer holds a checkpoint over {said.size} entries that this log left")
        self._recorder.fail(rolled)
        return True

    # ── beside the log ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def unsaved(self) -> bool:
        """Whether :meth:`save` has something to do."""
        return bool(self._unsaved)

    def save(self) -> None:
        """Keep the newest notes beside the log, durably; off the loop."""
        unsaved, self._unsaved = self._unsaved, {}
        for log, kept in unsaved.items():
            if kept is None:
                self._recorder.log.drop_note(*log)
            else:
                self._recorder.log.keep_note(kept)


def _held(said: Checkpoint, note: bytes) -> Held:
    return Held(said, note, hashlib.sha256(note).digest())


def _who(connection: Connection) -> bytes | int:
    return connection.peer if connection.peer is not None else connection.id


def _remember(table: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > PEERS:
        table.popitem(last=False)
