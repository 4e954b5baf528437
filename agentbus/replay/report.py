"""What a replay found: one status for each message, and the first place where each came out otherwise."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from xml.etree.ElementTree import Element, SubElement, tostring

from agentbus.log.report import moment
from agentbus.wire.ids import b64

Status = Literal["same", "equivalent", "different", "missing", "extra", "not replayable"]
STATUSES: Final[tuple[Status, ...]] = ("same", "equivalent", "different", "missing", "extra", "not replayable")
DIFFERENCES: Final = frozenset({"different", "missing", "extra"})


@dataclass(frozen=True, slots=True)
class Divergence:
    """A place where a run left the record: what it is about, what stands there and what came instead."""

    what: str
    expected: str | None  # None: the record has nothing there
    got: str | None  # None: the run did not come there

    @property
    def status(self) -> Status:
        """What it makes of its message."""
        if self.expected is None:
            return "extra"
        return "missing" if self.got is None else "different"

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected or 'nothing'}, got {self.got or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Result:
    """One message."""

    position: int  # of the message in the log
    instant: int
    digest: bytes
    action: str
    sender: str
    status: Status
    divergence: Divergence | None = None
    reason: str = ""  # why it is not replayable

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        found = self.divergence
        return {
            "position": self.position,
            "time": moment(self.instant).isoformat(),
            "message": b64(self.digest),
            "action": self.action,
            "sender": self.sender,
            "status": self.status,
            "what": found.what if found else None,
            "expected": found.expected if found else None,
            "got": found.got if found else None,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class ReplayReport:
    """One replay.

    Attributes:
        agent: The agent's full id.
        log: The folder.
        mode: ``stub``, ``live`` or ``shadow``.
        timing: ``instant``, ``original`` or ``xN``.
        egress: What kept the run from the network: ``namespace``, ``guard``, or ``open`` in live mode.
        results: In the order in which the handlers were started.
    """

    agent: str
    log: str
    mode: str
    timing: str
    egress: str
    results: list[Result] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many messages have each status."""
        found = Counter(result.status for result in self.results)
        return {status: found[status] for status in STATUSES}

    @property
    def first(self) -> Result | None:
        """The first message that came out otherwise."""
        return next((result for result in self.results if result.status in DIFFERENCES), None)

    @property
    def ok(self) -> bool:
        """Whether something was compared, and nothing differs."""
        counts = self.counts
        return self.first is None and counts["same"] + counts["equivalent"] > 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        first = self.first
        return {
            "ok": self.ok,
            "agent": self.agent,
            "log": self.log,
            "mode": self.mode,
            "timing": self.timing,
            "egress": self.egress,
            "messages": len(self.results),
            "counts": self.counts,
            "first": first.as_dict() if first else None,
            "results": [result.as_dict() for result in self.results],
        }

    def lines(self, most: int = 20) -> list[str]:
        """For people: the counts, then what came out otherwise.

        Args:
            most: How many messages are listed.

        Returns:
            Lines of text.
        """
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items() if count)
        lines = [f"{self.agent}, {self.mode}, {self.timing}: {len(self.results)} messages: {counts or 'none'}"]
        shown = [result for result in self.results if result.status not in ("same", "equivalent")]
        for result in shown[:most]:
            lines.append(f"  entry {result.position:<7} {result.action:16} {result.status}")
            lines.append(f"      {result.divergence or result.reason}")
        if len(shown) > most:
            lines.append(f"  and {len(shown) - most} more; --json shows all")
        return lines

    def junit(self) -> str:
        """As JUnit XML: a test case for each message."""
        counts = self.counts
        failures = sum(counts[status] for status in DIFFERENCES)
        suite = Element(
            "testsuite", name=f"replay of {self.agent} ({self.mode})", tests=str(len(self.results)),
            failures=str(failures), errors="0", skipped=str(counts["not replayable"]),
        )  # fmt: skip
        for result in self.results:
            name = f"entry {result.position}: {result.action} from {result.sender}"
            case = SubElement(suite, "testcase", classname=_clean(self.agent), name=_clean(name), time="0")
            if result.status in DIFFERENCES:
                failure = SubElement(case, "failure", type=result.status, message=_clean(str(result.divergence)))
                failure.text = _clean(str(result.divergence))
            elif result.status == "not replayable":
                SubElement(case, "skipped", message=_clean(result.reason))
        return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(suite, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    """Without what XML 1.0 cannot hold: text of messages comes from anywhere."""
    return "".join(
        c if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" else "\ufffd"
        for c in text
    )
