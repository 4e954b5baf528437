"""Joining senders' and receivers' logs: what one says was sent against what the other says came.

Rule 1: only message digests join. Rule 2: a finding is explained by something that a log says, or it names the party
whose log contradicts a signature, or it says that nobody can tell: a lost frame leaves the same traces whoever lost it.
Rule 3: what is not here is not judged: a message to a node whose log was not given is counted, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from agentbus.delegation.statements import Instance
from agentbus.log.entry import ACCEPTED
from agentbus.log.read import LogFolder
from agentbus.log.report import Report, Verdict
from agentbus.log.sides import Line, Side, Who, frame_digests, homes_of, read_side
from agentbus.wire.ids import PrincipalId, b64

What = Literal["lost", "unreceipted", "denied", "extra", "reordered", "gap", "two"]
Blame = Literal["explained", "party", "undecidable"]
WHAT: Final[Mapping[What, str]] = {
    "lost": "sent by one log, and not in the other",
    "unreceipted": "taken, and never answered",
    "denied": "refused by its receiver, with a code",
    "extra": "received under the sender's signature, and not in the sender's log",
    "reordered": "taken after a later one of the same sender",
    "gap": "a number of the node's own sequence is not in its log",
    "two": "two messages signed under one number",
}
_KEPT: Final = 10_000  # findings that are listed one by one


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not simply agree."""

    what: What
    blame: Blame
    party: str  # the side, or what it is blamed on; empty where nobody can tell
    why: str
    digest: bytes | None
    sender: str
    recipient: str
    log: str  # the side that says so
    position: int  # its entry there

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "what": self.what, "blame": self.blame, "party": self.party or None, "why": self.why,
            "message": b64(self.digest) if self.digest else None, "sender": self.sender, "recipient": self.recipient,
            "log": self.log, "position": self.position,
        }  # fmt: skip

    def __str__(self) -> str:
        who = f"{PrincipalId(self.sender).short} → {PrincipalId(self.recipient).short}"
        blame = self.party if self.blame != "undecidable" else "undecidable"
        return f"{self.log} entry {self.position}: {self.what}, {who}: {self.why} [{blame}]"


@dataclass
class Reconciliation:
    """What joining the logs gave.

    Attributes:
        joined: Messages that both logs have.
        unjoined: Messages whose other side's log is not here.
        findings: The rest, in the order of the logs.
        more: Findings beyond those that are listed.
    """

    joined: int = 0
    unjoined: int = 0
    findings: list[Finding] = field(default_factory=list)
    more: int = 0

    @property
    def ok(self) -> bool:
        """Whether the logs agree, but for what they explain."""
        return not self.more and all(finding.blame == "explained" for finding in self.findings)

    def counts(self) -> dict[str, dict[str, int]]:
        """What → blame → how many."""
        found: dict[str, dict[str, int]] = {what: {} for what in WHAT}
        for finding in self.findings:
            found[finding.what][finding.blame] = found[finding.what].get(finding.blame, 0) + 1
        return found

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "ok": self.ok, "joined": self.joined, "unjoined": self.unjoined, "counts": self.counts(),
            "more": self.more, "findings": [finding.as_dict() for finding in self.findings],
        }  # fmt: skip

    def verdict(self) -> Verdict:
        """COMPLETE: negative where a party is to blame; not judged where nobody can tell, or there was nothing."""
        blamed = [str(f) for f in self.findings if f.blame == "party"]
        unclear = [f for f in self.findings if f.blame == "undecidable"]
        reasons = [
            f"{len(unclear)} of which nobody can tell what became; `agentbus log reconcile` lists them"
            if unclear else "",
            f"{self.unjoined} messages were to or from nodes whose logs are not here" if self.unjoined else "",
        ]  # fmt: skip
        reason = "; ".join(filter(None, reasons))
        if blamed:
            return Verdict(False, self.joined, blamed, reason)
        return Verdict(True if self.joined and not unclear else None, self.joined, [], reason or "nothing to join")


def reconcile(
    sides: Sequence[Side],
    homes: Mapping[Who, str],
    *,
    frames: Callable[[Side, set[bytes]], Mapping[bytes, bytes]] = lambda side, wanted: {},
) -> Reconciliation:
    """Join logs.

    Args:
        sides: Each log, as :func:`agentbus.log.sides.read_side` read it; verified before.
        homes: Instance → the name of the side it lives on.
        frames: The frame digests of messages that a side sent.
    """
    return _Join(sides, homes, frames).run()


def reconcile_logs(logs: Mapping[str, LogFolder], statements: Iterable[Instance]) -> Reconciliation:
    """Read logs and join them.

    Args:
        logs: By the names they are to have in the findings.
        statements: The instance statements found beside them, verified: they say which node an instance lives in.
    """
    sides = [read_side(log, name) for name, log in logs.items()]
    homes = homes_of(sides, statements)
    return reconcile(sides, homes, frames=lambda side, wanted: frame_digests(logs[side.name], wanted))


def joined(report: Report, found: Reconciliation) -> Report:
    """A report on several logs whose COMPLETE also says what joining them gave."""
    alone, together = report["COMPLETE"], found.verdict()
    answers = {alone.ok, together.ok}
    ok = False if False in answers else None if together.ok is None else alone.ok
    problems = [*alone.problems, *together.problems]
    complete = Verdict(ok, alone.checked + together.checked, problems, together.reason)
    return Report({**report, "COMPLETE": complete})


class _Join:
    def __init__(
        self,
        sides: Sequence[Side],
        homes: Mapping[Who, str],
        frames: Callable[[Side, set[bytes]], Mapping[bytes, bytes]],
    ) -> None:
        self._sides, self._homes, self._frames = sides, homes, frames
        self._by_name = {side.name: side for side in sides}
        self.found = Reconciliation()

    def run(self) -> Reconciliation:
        for side in self._sides:
            for finding in (*self._sent(side), *self._received(side), *self._gaps(side), *self._order(side)):
                if len(self.found.findings) < _KEPT:
                    self.found.findings.append(finding)
                else:
                    self.found.more += 1
        return self.found

    def _home(self, instance: Who) -> Side | None:
        return self._by_name.get(self._homes.get(instance, ""))

    # ── what one side sent ───────────────────────────────────────────────────────────────────────────────────────

    def _sent(self, side: Side) -> Iterator[Finding]:
        lost: list[tuple[bytes, Line, Side]] = []
        for digest, line in side.sent.items():
            other = self._home(line.target)
            if digest in side.unsent and (other is None or digest not in other.received):
                yield _finding("lost", "explained", side.name, f"never left: {side.unsent[digest]}", digest, line, side)
                continue
            if other is None:
                self.found.unjoined += 1
            elif digest in other.received:
                self.found.joined += 1
                there = other.received[digest]
                if there.code != ACCEPTED:
                    yield _denied(digest, line, side, there, other)
                    continue
            else:
                lost.append((digest, line, other))
                continue
            if line.level:
                yield from self._unanswered(digest, line, side, other)
        refused = self._frames(side, {digest for digest, _, other in lost if other.refused})
        for digest, line, other in lost:
            yield self._lost(digest, line, side, other, refused.get(digest))

    def _lost(self, digest: bytes, line: Line, side: Side, other: Side, frame: bytes | None) -> Finding:
        """In the sender's log, and not in the receiver's: whose fault, if that can be told."""
        if digest in side.answered or digest in other.replied:
            why = f"{other.name} answered it under its signature, and its log leaves it out"
            return _finding("lost", "party", other.name, why, digest, line, side)
        if frame is not None and frame in other.refused:
            why = f"{other.name} refused the frame: {other.refused[frame]}"
            return _finding("lost", "explained", side.name, why, digest, line, side)
        if other.power(line.instant):
            return _finding("lost", "explained", "power", f"{other.name} lost power then", digest, line, side)
        if other.stopped(line):
            return _finding("lost", "explained", other.name, f"{other.name} had stopped, or did", digest, line, side)
        if other.may_take(line):
            why = f"under way where {other.name} ends: it runs, and there is time left"
            return _finding("lost", "explained", "", why, digest, line, side)
        why = "lost on the way, held back, or left out"
        if other.dropped:
            why += f"; {other.name} refused {other.dropped} frames that it only counted"
        return _finding("lost", "undecidable", "", why, digest, line, side)

    def _unanswered(self, digest: bytes, line: Line, side: Side, other: Side | None) -> Iterator[Finding]:
        """Taken, and the answer that was waited for did not come back: what the logs say about why."""
        if digest in side.settled or line.deadline > side.last:
            return  # answered, or there was still time when the log ends
        if digest in side.cancelled:
            yield _finding("unreceipted", "explained", side.name, "called off by its sender", digest, line, side)
        elif other is None:
            yield _finding("unreceipted", "explained", "", "the receiver's log is not here", digest, line, side)
        elif digest in other.concluded:
            return  # the answer was sent: where it went is told of the answer
        elif digest in other.ended:
            yield _finding("unreceipted", "explained", other.name, other.ended[digest], digest, line, side)
        elif other.power(line.instant):
            yield _finding("unreceipted", "explained", "power", f"{other.name} lost power", digest, line, side)
        elif not other.wrote(min(line.deadline, other.last)):
            yield _finding("unreceipted", "explained", other.name, f"{other.name} stopped first", digest, line, side)
        else:
            why = f"{other.name} took it and says nowhere how it ended"
            why += f"; {side.name} gave it up: {side.given_up[digest]}" if digest in side.given_up else ""
            yield _finding("unreceipted", "party", other.name, why, digest, line, side)

    # ── what one side received ───────────────────────────────────────────────────────────────────────────────────

    def _received(self, side: Side) -> Iterator[Finding]:
        for digest, line in side.received.items():
            other = self._home(line.source)
            if other is None:
                self.found.unjoined += 1
            elif digest not in other.sent:
                blame, party, why = ("party", other.name, f"{other.name} signed it, and its log leaves it out")
                if other.power(line.instant) or other.power(line.issued_at):
                    blame, party, why = ("explained", "power", f"{other.name} lost power, and this with it")
                yield _finding("extra", blame, party, why, digest, line, side)  # type: ignore[arg-type]

    # ── sequences ────────────────────────────────────────────────────────────────────────────────────────────────

    def _gaps(self, side: Side) -> Iterator[Finding]:
        """A node numbers what each instance sends from 1, without a gap, and logs it before it leaves."""
        numbers: dict[Who, dict[int, tuple[bytes, Line]]] = {}
        for digest, line in side.sent.items():
            mine = numbers.setdefault(line.source, {})
            before = mine.get(line.seq)
            if before is not None:
                why = f"number {line.seq} stands at entry {before[1].position}, too"
                yield _finding("two", "party", side.name, why, digest, line, side)
            mine[line.seq] = (digest, line)
        for mine in numbers.values():
            expected = 1
            for number in sorted(mine):
                line = mine[number][1]
                if number > expected:
                    power = any(why == "power" for _, _, why in side.forgot)
                    what = f"numbers {expected} to {number - 1}" if number - 1 > expected else f"number {expected}"
                    blame: Blame = "explained" if power else "party"
                    party = "power" if power else side.name
                    yield _finding("gap", blame, party, f"{what} of its sequence", None, line, side)
                expected = number + 1

    def _order(self, side: Side) -> Iterator[Finding]:
        newest: dict[tuple[Who, Who], int] = {}
        for digest, line in side.received.items():
            pair = (line.source, line.target)
            if line.peer_seq < newest.get(pair, 0):
                why = f"number {line.peer_seq} after {newest[pair]}; a network may do that"
                yield _finding("reordered", "explained", "", why, digest, line, side)
            newest[pair] = max(newest.get(pair, 0), line.peer_seq)


def _denied(digest: bytes, line: Line, side: Side, there: Line, other: Side) -> Finding:
    party = other.name if there.code.startswith(("unavailable.", "backpressure.")) else side.name
    return _finding("denied", "explained", party, f"{other.name}: {there.code}", digest, line, side)


def _finding(what: What, blame: Blame, party: str, why: str, digest: bytes | None, line: Line, side: Side) -> Finding:
    return Finding(what, blame, party, why, digest, line.sender, line.recipient, side.name, line.position)
