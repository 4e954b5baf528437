"""One log as a side of a conversation: what its node sent and received, when it ran, and what it says it forgot."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agentbus.crypto.keys import checked_key
from agentbus.crypto.merkle import leaf_hash
from agentbus.delegation.statements import Instance
from agentbus.errors import AgentBusError
from agentbus.log.checkpoint import parse_origin, read_checkpoint, verify_checkpoint
from agentbus.log.entry import (
    ACCEPTED,
    Close,
    Dropped,
    Entry,
    Gap,
    Open,
    Receipt,
    Received,
    Refused,
    Sent,
    Step,
    StepKind,
    Unsent,
)
from agentbus.log.fates import awaited, settles
from agentbus.log.read import LogFolder
from agentbus.wire.frame import Envelope, encode_frame
from agentbus.wire.header import Header, Kind, decode_header
from agentbus.wire.limits import LIMITS, SECOND

ROUND_A_STOP: Final = 5 * SECOND  # what was under way to a process that stops may be lost without a word


Who = tuple[str, bytes | None]
"""An instance: its principal and the id that it chose. Another principal may choose the same id."""


class Line(NamedTuple):
    """One message, as one side logged it; of its header only what joining needs."""

    position: int
    instant: int
    code: str  # the receiver's verdict; empty for what was sent
    sender: str
    sender_instance: bytes
    recipient: str
    recipient_instance: bytes | None
    seq: int
    peer_seq: int
    issued_at: int
    deadline: int
    level: str  # what answer its sender waits for; empty for none

    @property
    def source(self) -> Who:
        """The instance that sent it."""
        return self.sender, self.sender_instance

    @property
    def target(self) -> Who:
        """The instance that it is for."""
        return self.recipient, self.recipient_instance


def line_of(position: int, instant: int, header: Header, code: str, known: dict[str, str]) -> Line:
    """A logged message as a line; texts that stand in many of them are kept once, in ``known``."""
    once = known.setdefault
    level = awaited(header)
    return Line(
        position, instant, once(code, code), once(header.sender, header.sender), header.sender_instance,
        once(header.recipient, header.recipient), header.recipient_instance, header.seq, header.peer_seq,
        header.issued_at, header.deadline, once(level, level),
    )  # fmt: skip


@dataclass(slots=True)
class Run:
    """From one OPEN to the next: when the process wrote."""

    first: int
    last: int
    closed: bool = False


@dataclass(slots=True)
class Side:
    """What one log says."""

    name: str
    node: str | None
    sent: dict[bytes, Line] = field(default_factory=dict)  # by message digest, in the order of the log
    received: dict[bytes, Line] = field(default_factory=dict)
    unsent: dict[bytes, str] = field(default_factory=dict)
    refused: dict[bytes, str] = field(default_factory=dict)  # by SHA-256 of the frame: the code
    dropped: int = 0  # refused frames that were only counted
    answered: set[bytes] = field(default_factory=set)  # messages that an accepted answer names
    settled: set[bytes] = field(default_factory=set)  # of them, those that got the answer they waited for, or an error
    given_up: dict[bytes, str] = field(default_factory=dict)  # messages that nobody answered, and why
    replied: set[bytes] = field(default_factory=set)  # messages that an answer sent from here names
    concluded: set[bytes] = field(default_factory=set)  # of them, those whose answer it is, or that got an error
    cancelled: set[bytes] = field(default_factory=set)  # messages that were called off here
    ended: dict[bytes, str] = field(default_factory=dict)  # handlers that ended without a frame, and why
    newest: dict[tuple[Who, Who], int] = field(default_factory=dict)  # by pair: the greatest number taken
    forgot: list[tuple[int, int, str]] = field(default_factory=list)  # spans of time, and what took them
    runs: list[Run] = field(default_factory=list)
    last: int = 0
    note: bytes | None = None  # its checkpoint
    _known: dict[str, str] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Take in one more entry."""
        if isinstance(entry, Open):
            self.runs.append(Run(entry.instant, entry.instant))
        elif isinstance(entry, Gap):
            self.forgot.append((self.last, entry.instant, entry.reason))
        elif isinstance(entry, Sent | Received):
            self._message(entry)
        elif isinstance(entry, Unsent):
            self.unsent[entry.digest] = entry.reason
        elif isinstance(entry, Receipt) and entry.receipt is None:
            self.given_up[entry.digest] = entry.code
        elif isinstance(entry, Refused):
            self.refused[entry.digest] = entry.code
        elif isinstance(entry, Dropped):
            self.dropped += entry.frames
        elif isinstance(entry, Step) and entry.step == StepKind.END:
            self.ended[entry.digest] = entry.name
        self.last = max(self.last, entry.instant)
        if self.runs:
            self.runs[-1].last = max(self.runs[-1].last, entry.instant)
            self.runs[-1].closed = isinstance(entry, Close)

    def _message(self, entry: Sent | Received) -> None:
        header = decode_header(entry.header, LIMITS)
        digest = leaf_hash(entry.header)
        if isinstance(entry, Sent):
            self.sent.setdefault(digest, line_of(entry.position, entry.instant, header, "", self._known))
            if header.in_reply_to is not None:
                (self.cancelled if header.kind == Kind.CANCEL else self.replied).add(header.in_reply_to)
                asked = self.received.get(header.in_reply_to)
                if asked is not None and settles(header, asked.level):
                    self.concluded.add(header.in_reply_to)
            return
        before = self.received.get(digest)
        if before is None or before.code != ACCEPTED:
            line = line_of(entry.position, entry.instant, header, entry.code, self._known)
            self.received[digest] = line
            pair = (line.source, line.target)
            self.newest[pair] = max(self.newest.get(pair, 0), line.peer_seq)
        if header.in_reply_to is not None and entry.code == ACCEPTED:
            self.answered.add(header.in_reply_to)
            asked = self.sent.get(header.in_reply_to)
            if asked is not None and settles(header, asked.level):
                self.settled.add(header.in_reply_to)

    def may_take(self, line: Line) -> bool:
        """Whether a message for it can be under way where its log ends: there is time, and nothing later came."""
        later = self.newest.get((line.source, line.target), 0) > line.peer_seq
        return not later and line.deadline > self.last and bool(self.runs) and not self.runs[-1].closed

    def wrote(self, instant: int) -> bool:
        """Whether the process ran at an instant, and not just before it stopped."""
        return any(run.first <= instant < run.last - ROUND_A_STOP for run in self.runs) or (
            bool(self.runs) and not self.runs[-1].closed and self.runs[-1].first <= instant < self.runs[-1].last
        )

    def stopped(self, line: Line) -> bool:
        """Whether the process had stopped when a message for it was sent, or did: nothing later of the pair came."""
        later = self.newest.get((line.source, line.target), 0) > line.peer_seq
        return not later and not self.wrote(line.instant)

    def power(self, instant: int) -> bool:
        """Whether a loss of power took what was written at an instant."""
        return any(first - ROUND_A_STOP <= instant <= last and why == "power" for first, last, why in self.forgot)


def read_side(log: LogFolder, name: str, start: int = 0) -> Side:
    """Everything a log says of messages, from an entry on. What cannot be read is the verdicts' business."""
    node: str | None = None
    if log.origin is not None:
        try:
            node = parse_origin(log.origin).node
        except AgentBusError:
            node = None
    side = Side(name, node, note=log.note)
    for entry in log.decoded(start):
        with suppress(AgentBusError):
            side.add(entry)
    return side


def frame_digests(log: LogFolder, wanted: Collection[bytes]) -> dict[bytes, bytes]:
    """SHA-256 of the frames of sent messages, by message digest: what a log that refused one names it by."""
    found: dict[bytes, bytes] = {}
    for entry in log.decoded() if wanted else ():
        if isinstance(entry, Sent) and (digest := leaf_hash(entry.header)) in wanted:
            parts = [log.blob(entry.chain), log.blob(entry.handover) if entry.handover is not None else b""]
            body = log.box(entry.body).data if entry.body is not None else None
            if body is not None and parts[0] is not None and parts[1] is not None:
                envelope = Envelope(entry.header, entry.proof, parts[0], parts[1], entry.note, body[:32], body[32:])
                found[digest] = hashlib.sha256(encode_frame(envelope)).digest()
    return found


def homes_of(sides: Sequence[Side], instances: Iterable[Instance]) -> dict[Who, str]:
    """Which side each instance lives on.

    A statement may name any node that nobody owns, so what it says counts only where the log key that it names signed
    the side's checkpoint. And a log may hold as sent what others sent: that counts where no statement says otherwise.

    Args:
        sides: The logs that are here.
        instances: The instances' statements, verified.
    """
    kept: dict[tuple[str, bytes], list[str]] = {}
    stated: dict[Who, list[str]] = {}
    for one in instances:
        named = (one.node, one.log_key)
        if named not in kept:
            kept[named] = [side.name for side in sides if _keeps(side, *named)]
        if kept[named]:
            stated[one.principal, one.instance_id] = kept[named]
    homes: dict[Who, str] = {}
    for side in sides:
        for line in side.sent.values():
            if side.name in stated.get(line.source, [side.name]):
                homes[line.source] = side.name
    for who, names in stated.items():
        homes.setdefault(who, names[0])
    return homes


def _keeps(side: Side, node: str, log_key: bytes) -> bool:
    """Whether a side is the log of this node under this key."""
    if side.note is None or side.node != node:
        return False
    try:
        verify_checkpoint(side.note, read_checkpoint(side.note).origin, checked_key(log_key))
    except AgentBusError:
        return False
    return True
