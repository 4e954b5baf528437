"""What a log says about the work of one agent: each message it took, and everything that was not determined by it.

Rule 1: nothing is believed here that verifying the log would not say as well; who replays verifies first.
Rule 2: order is the log's: an entry stands behind whatever it depends on.
Rule 3: bodies and results are fetched when they are needed; what is kept of a message is what its entries hold.

A message's answers are SENT entries that name it as ``in_reply_to``; what its handler asked of others are SENT entries
that name it as ``cause``, and what came back are RECEIVED entries that name those.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from agentbus.crypto.merkle import leaf_hash
from agentbus.errors import AgentBusError
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import ACCEPTED, Open, Outcome, Received, Sent, Step, StepKind
from agentbus.log.read import LogFolder, Numbered
from agentbus.wire.header import ANSWERING, OPENING, Header, Kind, decode_header
from agentbus.wire.limits import LIMITS

HANDLED: Final = frozenset({Kind.REQUEST, Kind.SEND, Kind.STREAM})
"""Kinds that a handler is started for."""
FINAL: Final = frozenset({Kind.REPLY, Kind.ERROR, Kind.END})
"""Kinds after which a handler says nothing more."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One logged message, without its bytes."""

    position: int
    instant: int
    header: Header
    body: bytes | None  # the name of its box

    @property
    def kind(self) -> Kind:
        """What it is."""
        return Kind(self.header.kind)


@dataclass(slots=True)
class Asked:
    """A message that a handler sent, and what came of it."""

    frame: Frame
    digest: bytes
    answers: list[Frame] = field(default_factory=list)
    lost: Step | None = None  # it failed, and no frame says so
    closed: bool = False  # the handler heard nothing more of it


@dataclass(slots=True)
class Recorded:
    """One message that an agent took, and all that its handler took and gave."""

    frame: Frame
    digest: bytes
    chain: bytes  # the blob's digest
    handover: bytes | None
    directory_size: int
    run: int  # which start of the process
    start: int  # the position at which its handler began
    end: int | None = None  # the position at which it ended; None: the process ended first
    ended: Step | None = None  # an END entry
    steps: list[Step] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    answers: list[Frame] = field(default_factory=list)  # replies, items, ends and errors, and the handled receipt
    overlaps: bool = False  # with another handler of the same agent

    @property
    def interrupted(self) -> bool:
        """Whether something else than the handler itself ended it."""
        return self.ended is not None and self.ended.outcome == Outcome.CANCELLED


def read_record(log: LogFolder, agent: str, *, apart: Collection[str] = ()) -> list[Recorded]:
    """The messages that an agent took, in the order in which their handlers were started.

    Args:
        agent: Its full id.
        apart: Message types whose handlers share nothing with others, and so overlap with none.
    """
    record = _Record(agent)
    for item in log.entries():
        if isinstance(item, Numbered):
            record.add(item.data)
    found = sorted(record.messages.values(), key=lambda message: message.start)
    _mark_overlaps([message for message in found if message.frame.header.action not in apart])
    return found


class _Record:
    """What was read so far."""

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._run = 0
        self.messages: dict[bytes, Recorded] = {}
        self._asked: dict[bytes, Asked] = {}

    def add(self, data: bytes) -> None:
        try:
            entry = decode_entry(data)
            header = decode_header(entry.header, LIMITS) if isinstance(entry, Sent | Received) else None
        except AgentBusError:
            return  # the verdicts name it
        if isinstance(entry, Open):
            self._run += 1
        elif isinstance(entry, Step):
            self._step(entry)
        elif isinstance(entry, Received) and header is not None and entry.code == ACCEPTED:
            self._received(entry, header)
        elif isinstance(entry, Sent) and header is not None and header.sender == self._agent:
            self._sent(entry, header)

    def _received(self, entry: Received, header: Header) -> None:
        frame = Frame(entry.position, entry.instant, header, entry.body)
        if header.kind in OPENING:
            if header.recipient == self._agent and header.kind in HANDLED:
                digest = leaf_hash(entry.header)
                made = Recorded(
                    frame, digest, entry.chain, entry.handover, entry.directory_size, self._run, entry.position
                )
                self.messages.setdefault(digest, made)
            return
        asked = self._asked.get(header.in_reply_to or b"")
        if asked is not None and header.kind in ANSWERING and not asked.closed:
            asked.answers.append(frame)
            asked.closed = header.kind in FINAL

    def _sent(self, entry: Sent, header: Header) -> None:
        frame = Frame(entry.position, entry.instant, header, entry.body)
        if header.kind in OPENING:
            message = self.messages.get(header.cause or b"")
            digest = leaf_hash(entry.header)
            if message is not None and digest not in self._asked:  # a frame may be sent twice
                asked = self._asked[digest] = Asked(frame, digest)
                message.asked.append(asked)
            return
        if header.kind == Kind.CANCEL:
            asked_before = self._asked.get(header.in_reply_to or b"")
            if asked_before is not None:
                asked_before.closed = True
            return
        message = self.messages.get(header.in_reply_to or b"")
        if message is None or (message.end is not None and message.ended is None):
            return
        if header.kind in FINAL or header.kind == Kind.ITEM or _is_handled(header):
            message.answers.append(frame)
            if header.kind != Kind.ITEM and message.end is None:
                message.end = entry.position

    def _step(self, step: Step) -> None:
        message = self.messages.get(step.digest)
        if message is None:
            return
        if step.step == StepKind.START:
            message.start = step.position
        elif step.step == StepKind.END:
            message.ended, message.end = step, step.position
        elif step.step == StepKind.LOST:
            asked = self._asked.get(step.given or b"")
            if asked is not None and not asked.closed:
                asked.lost, asked.closed = step, True
        else:
            message.steps.append(step)


def _is_handled(header: Header) -> bool:
    return header.kind == Kind.RECEIPT and header.action == "handled"


def _mark_overlaps(messages: list[Recorded]) -> None:
    """Whose handlers ran at the same time; one whose end nobody saw ran until its process ended."""
    open_until: dict[int, tuple[float, Recorded]] = {}  # by run: who ends last so far
    for message in messages:
        ends = float("inf") if message.end is None else message.end
        latest = open_until.get(message.run)
        if latest is not None and message.start < latest[0]:
            message.overlaps = latest[1].overlaps = True
        if latest is None or ends > latest[0]:
            open_until[message.run] = (ends, message)


def _gives(step: Step) -> bool:
    """Whether a step of this kind and outcome has a result, or an error, to give."""
    if step.outcome == Outcome.ERROR:
        return True
    gives = (StepKind.CALL, StepKind.ITEM, StepKind.SEED, StepKind.DELEGATE)
    return step.outcome == Outcome.RESULT and step.step in gives


def boxes(message: Recorded) -> Iterator[tuple[str, int, bytes | None]]:
    """Every box that replaying a message needs: what it is, the entry that names it, and its name."""
    yield "its body", message.frame.position, message.frame.body
    for step in message.steps:
        if step.result is not None or _gives(step):
            yield f"the result of step {step.name!r}", step.position, step.result
    for asked in message.asked:
        yield f"the body of the {asked.frame.header.action} it sent", asked.frame.position, asked.frame.body
        for answer in asked.answers:
            yield f"the answer to its {asked.frame.header.action}", answer.position, answer.body
        if asked.lost is not None:
            yield f"the failure of its {asked.frame.header.action}", asked.lost.position, asked.lost.result
    for answer in message.answers:
        yield "its answer", answer.position, answer.body
