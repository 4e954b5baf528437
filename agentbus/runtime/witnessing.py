"""Peers as witnesses: every node hands its newest checkpoint to those it speaks with, and keeps theirs.

Rule 1: a note travels in the note section of an ordinary frame, to each peer at most once a second, and nobody waits
for it. It proves itself: the section is covered by no other signature.
Rule 2: a note is kept when the log key that its sender's own statement names signed it for the sender's own node: in
the log as PEER_CHECKPOINT, and beside it as the mark that this peer's log must have reached.
Rule 3: whoever we meet again, or who shows an older note than we hold, is shown the newest we hold of it. Who is shown
a note of its own that it cannot have signed in this history stops: it was restored from a backup.
Rule 4: two notes over one size with two roots are kept side by side, in the log and in a file of their own: that is the
proof of a fork, and it needs no word of ours.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from agentbus.crypto.keys import checked_key
from agentbus.crypto.note import Checkpoint
from agentbus.delegation.messages import VerifiedMessage
from agentbus.errors import AgentBusError, LogError, Malformed
from agentbus.log.checkpoint import parse_origin, read_checkpoint, verify_checkpoint
from agentbus.runtime.record import Recorder
from agentbus.transport.base import Connection
from agentbus.wire.limits import LIMITS, SECOND

CODES: Final = {
    "malformed.notes": "A note section is up to three notes, each behind its length of 16 bits.",
}

NOTES: Final = 3
PEERS: Final = 4096  # connections and instances that are remembered
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
        node_of: CURVE key → the name of the node that is there, where that is known.
    """

    def __init__(
        self, recorder: Recorder, now: Callable[[], int], node_of: Callable[[bytes], str | None] = lambda key: None
    ) -> None:
        self._recorder, self._now, self._node_of = recorder, now, node_of
        self._greeted: OrderedDict[int, None] = OrderedDict()  # connections that were shown what we hold of their peer
        self._held: dict[str, Held] = {}
        for origin, note in recorder.log.kept_notes().items():
            self._held[origin] = _held(read_checkpoint(note), note)
        self._told: OrderedDict[bytes | int, tuple[int, bytes]] = OrderedDict()  # peer → when, which of ours
        self._answers: OrderedDict[bytes | int, bytes] = OrderedDict()  # peer → its own newer note
        self._origins: OrderedDict[bytes, str] = OrderedDict()  # instance id → its node's log
        self._mine: OrderedDict[bytes, None] = OrderedDict()  # notes of this log that it is known to lead to
        self._unsaved: dict[str, tuple[int, bytes]] = {}

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
        node = self._node_of(connection.peer) if connection.peer is not None else None
        if node is None:
            return None
        held = [(parse_origin(origin).epoch, one.note) for origin, one in self._held.items() if f"/{node}/" in origin]
        return max(held)[1] if held else None

    def held_of(self, instance_id: bytes) -> bytes | None:
        """The digest of the newest note held of the node in which an instance lives: what a header tells it."""
        held = self._held.get(self._origins.get(instance_id, ""))
        return held.digest if held is not None else None

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def received(self, connection: Connection, message: VerifiedMessage) -> None:
        """Look at the notes that came with a verified message. What is wrong with one is nobody else's business."""
        try:
            notes = decode_notes(message.envelope.note)
        except Malformed:
            return
        for note in notes:
            try:
                said = read_checkpoint(note)
                if said.origin == self._recorder.log.origin:
                    self._of_mine(said, note)
                else:
                    self._of_peer(connection, message, said, note)
            except AgentBusError as error:
                # Nobody has to act on it: processes of one identity share a key, so one is told of another's log, too.
                logger.info("a checkpoint from %s was not kept: %s", message.header.sender, error)

    def _of_peer(self, connection: Connection, message: VerifiedMessage, said: Checkpoint, note: bytes) -> None:
        sender, origin = message.sender, parse_origin(said.origin)
        if origin.node != sender.node or origin.domain != message.header.sender.split("/")[2]:
            raise Malformed("malformed.notes", f"a note of {said.origin} from node {sender.node}")
        verify_checkpoint(note, said.origin, checked_key(sender.log_key))
        _remember(self._origins, sender.instance_id, said.origin)
        held = self._held.get(said.origin)
        if held is None or said.size > held.said.size:
            self._held[said.origin] = _held(said, note)
            self._unsaved[said.origin] = (said.size, note)
            self._recorder.peer_checkpoint(note, connection=connection.peer, now=self._now())
        elif said.size < held.said.size:
            _remember(self._answers, _who(connection), held.note)
        elif said.root != held.said.root:
            self._recorder.peer_checkpoint(note, connection=connection.peer, now=self._now())
            self._recorder.log.keep_fork(held.note, note)
            logger.error("%s signed two histories of %d entries; both are kept", said.origin, said.size)

    def _of_mine(self, said: Checkpoint, note: bytes) -> None:
        """A peer shows a note of this node's log. In an honest history the log leads to it."""
        log = self._recorder.log
        if note in self._mine or log.root_at(said.size) == said.root:
            _remember(self._mine, note, None)
            return
        log.roll_back(note)
        error = LogError("log.rolled_back", f"a peer holds a checkpoint over {said.size} entries that this log left")
        self._recorder.fail(error)

    # ── beside the log ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def unsaved(self) -> bool:
        """Whether :meth:`save` has something to do."""
        return bool(self._unsaved)

    def save(self) -> None:
        """Keep the newest notes beside the log, durably; off the loop."""
        unsaved, self._unsaved = self._unsaved, {}
        for origin, (size, note) in unsaved.items():
            self._recorder.log.keep_note(origin, size, note)


def _held(said: Checkpoint, note: bytes) -> Held:
    return Held(said, note, hashlib.sha256(note).digest())


def _who(connection: Connection) -> bytes | int:
    return connection.peer if connection.peer is not None else connection.id


def _remember(table: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > PEERS:
        table.popitem(last=False)
