"""What became of the messages that a node sent and that wait for an answer, as its own log says it.

Rule 1: a question is settled by a RECEIVED entry of the answer that it waits for (the reply, the end of the stream, the
receipt of the level asked for), by a RECEIPT entry, by an UNSENT entry, or by a SENT cancel. Whatever else came back
says that it was taken, and settles nothing.
Rule 2: a node writes one of these when a question's time is over at the latest, as long as it runs. So a question that
nothing settles, in a log that was written on beyond its time by the same process, was settled by what is missing here.
Rule 3: an error's code stands in a body, which may be erased. So an error settles by its RECEIPT entry, which has the
code, and the RECEIPT entry is worth what the RECEIVED entry that it names is: neither goes without the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agentbus.log.entry import ACCEPTED, Entry, Open, Receipt, Received, Sent, Unsent
from agentbus.wire.header import Header, Kind
from agentbus.wire.limits import LIMITS

ACK: Final = 1  # the extension that says which receipt a send waits for
REPLY: Final = "reply"
END: Final = "end"


def awaited(header: Header) -> str:
    """What settles a message: ``reply``, ``end`` or the level of a receipt; empty where nothing is waited for."""
    if header.kind == Kind.REQUEST:
        return REPLY
    if header.kind == Kind.STREAM:
        return END
    if header.kind != Kind.SEND:
        return ""
    level = next((e[2].decode("ascii", "replace") for e in header.extensions if e[0] == ACK), "handled")
    return "" if level == "sent" else level


def settles(header: Header, level: str) -> bool:
    """Whether an answer is the last one to a message that waits for ``level``; an error always is."""
    if header.kind == Kind.RECEIPT:
        return header.action == level
    return header.kind == Kind.ERROR or header.kind == {REPLY: Kind.REPLY, END: Kind.END}.get(level)


class Question(NamedTuple):
    """A message that waits."""

    position: int
    deadline: int
    level: str


@dataclass(slots=True)
class Life:
    """A process that wrote: where it began, and the latest instant in what it wrote."""

    position: int
    last: int = 0


@dataclass(slots=True)
class Fates:
    """Open questions of one part of a log, and what answers in it that is asked in an earlier one."""

    open: dict[bytes, Question] = field(default_factory=dict)
    errors: dict[bytes, bytes] = field(default_factory=dict)  # digest of an error that came → of what it answers
    lives: list[Life] = field(default_factory=list)  # the first goes on from the part before, until an OPEN
    said: list[tuple[bytes, Header | None]] = field(default_factory=list)  # what settles a question of an earlier part
    claims: list[tuple[int, Receipt]] = field(default_factory=list)  # RECEIPT entries about errors of earlier parts

    def add(self, entry: Entry, header: Header | None, digest: bytes, position: int) -> None:
        """One more entry; ``header`` and ``digest``, its bytes' leaf hash: of a message."""
        if isinstance(entry, Open) or not self.lives:
            self.lives.append(Life(position if isinstance(entry, Open) else -1))
        life = self.lives[-1]
        if entry.instant > life.last:
            life.last = entry.instant
        if header is None:
            if isinstance(entry, Unsent):
                self._settle(entry.digest, None)
            elif isinstance(entry, Receipt):
                self._claim(position, entry)
        elif isinstance(entry, Sent):
            level = awaited(header)
            if level:
                self.open[digest] = Question(position, header.deadline, level)
            elif header.kind == Kind.CANCEL and header.in_reply_to is not None:
                self._settle(header.in_reply_to, None)
        elif header.in_reply_to is not None and isinstance(entry, Received) and entry.code == ACCEPTED:
            if header.kind == Kind.ERROR:
                self.errors[digest] = header.in_reply_to
            elif header.kind in (Kind.REPLY, Kind.END, Kind.RECEIPT):
                self._settle(header.in_reply_to, header)

    def _settle(self, digest: bytes, by: Header | None) -> None:
        question = self.open.get(digest)
        if question is None:
            self.said.append((digest, by))
        elif by is None or settles(by, question.level):
            del self.open[digest]

    def _claim(self, position: int, entry: Receipt) -> None:
        if entry.receipt is None:
            self._settle(entry.digest, None)
        elif self.errors.get(entry.receipt) == entry.digest:
            del self.errors[entry.receipt]
            self._settle(entry.digest, None)
        else:
            self.claims.append((position, entry))

    def join(self, later: Fates) -> None:
        """Take what the next part found."""
        if later.lives and later.lives[0].position < 0 and self.lives:
            self.lives[-1].last = max(self.lives[-1].last, later.lives[0].last)
            self.lives += later.lives[1:]
        else:
            self.lives += later.lives
        for digest, by in later.said:
            self._settle(digest, by)
        self.errors |= later.errors
        for position, entry in later.claims:
            self._claim(position, entry)
        for digest, question in later.open.items():
            self.open[digest] = question
        self.said = []  # what was settled before it was asked, in no order that a log can have

    def problems(self) -> Iterator[str]:
        """What is missing, once all parts were joined."""
        for position, entry in self.claims:
            yield f"entry {position}: says {entry.code} by an answer that is not here"
        for question in self.open.values():
            life = max((one for one in self.lives if one.position <= question.position), key=lambda one: one.position)
            if life.last > question.deadline + LIMITS.skew:
                yield f"entry {question.position}: what became of this message stands nowhere, and its time was over"
