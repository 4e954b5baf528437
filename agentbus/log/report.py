"""What an auditor is told: separate verdicts, never one "OK"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

VERDICTS: Final = {
    "AUTHENTIC": "Every message carries its sender's signature over exactly these bytes.",
    "KEY-VALID": "The keys counted when the message was judged, as far as the directory had said then.",
    "AUTHORISED": "The chain behind each accepted message holds: it only narrows, is in time and ends at the sender.",
    "INTACT": "No record that the checkpoint covers was changed, moved or lost; blobs are those of their digests.",
    "NOT-FORKED": "Checkpoints of this log that others kept agree with it.",
    "NOT-TRUNCATED": "The log is as long as the longest anybody saw it.",
    "COMPLETE": "Every instance's sequence has no gap without a reason, and senders' and receivers' logs join.",
    "REDACTED": "Bodies that were erased with a redaction entry: a count, never negative.",
    "MISSING": "Bodies that are absent without a redaction entry.",
    "REPLAYABLE": "All recorded inputs are there.",
}
_KEPT: Final = 1000  # problems that are listed one by one; a log damaged all over needs no longer list


_LAST: Final = datetime.max.replace(tzinfo=UTC)


def moment(instant: int) -> datetime:
    """An instant (microseconds) for people; one beyond every calendar, which a log may hold, is the calendar's last."""
    try:
        return datetime.fromtimestamp(instant / 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return _LAST


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer: yes, no, or not judged and why."""

    ok: bool | None
    checked: int = 0
    problems: list[str] = field(default_factory=list)
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"ok": self.ok, "checked": self.checked, "problems": list(self.problems), "reason": self.reason}


class Report(Mapping[str, Verdict]):
    """Verdicts by name; all of :data:`VERDICTS` are there. One that is negative makes ``ok`` False."""

    def __init__(self, verdicts: Mapping[str, Verdict]) -> None:
        self._verdicts = {name: verdicts.get(name, Verdict(None, reason="not judged")) for name in VERDICTS}

    @property
    def ok(self) -> bool:
        """Whether no verdict is negative."""
        return all(verdict.ok is not False for verdict in self._verdicts.values())

    def __getitem__(self, name: str) -> Verdict:
        return self._verdicts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._verdicts)

    def __len__(self) -> int:
        return len(self._verdicts)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values: ``{"ok", "verdicts": {name: …}}``."""
        return {"ok": self.ok, "verdicts": {name: verdict.as_dict() for name, verdict in self.items()}}

    def __repr__(self) -> str:
        signs = {True: "yes", False: "NO", None: "-"}
        return f"<Report {' '.join(f'{name}={signs[verdict.ok]}' for name, verdict in self.items())}>"


class Tally:
    """Collects what becomes one verdict."""

    def __init__(self) -> None:
        self.checked = 0
        self._problems: list[str] = []
        self._more = 0

    @property
    def bad(self) -> bool:
        """Whether there is a problem."""
        return bool(self._problems)

    def problem(self, text: str) -> None:
        """Something that makes the verdict negative."""
        if len(self._problems) < _KEPT:
            self._problems.append(text)
        else:
            self._more += 1

    def add(self, other: Tally) -> None:
        """Take what another one collected."""
        self.checked += other.checked
        self._more += other._more
        for text in other._problems:
            self.problem(text)

    def verdict(self, *, nothing: str = "nothing to check", reason: str = "") -> Verdict:
        """Negative with a problem; not judged where nothing was checked; else positive."""
        if self._problems:
            more = f"{self._more} more problems" if self._more else ""
            reason = "; ".join(part for part in (reason, more) if part)
            return Verdict(False, self.checked, list(self._problems), reason)
        return Verdict(True, self.checked, [], reason) if self.checked else Verdict(None, 0, [], reason or nothing)


def merge(reports: Mapping[str, Report]) -> Report:
    """One report over several logs; a problem names its log.

    One negative makes it negative; where another log was not judged, the reason says so.
    """
    if len(reports) == 1:
        return next(iter(reports.values()))
    merged: dict[str, Verdict] = {}
    for name in VERDICTS:
        parts = {log: report[name] for log, report in reports.items()}
        answers = [part.ok for part in parts.values()]
        judged = [answer for answer in answers if answer is not None]
        merged[name] = Verdict(
            all(judged) if judged else None,
            sum(part.checked for part in parts.values()),
            [f"{log}: {text}" for log, part in parts.items() for text in part.problems],
            _reasons({log: part.reason for log, part in parts.items()}),
        )
    return Report(merged)


def _reasons(by_log: Mapping[str, str]) -> str:
    """Each reason once, with the logs it is about unless it is about all of them."""
    logs: dict[str, list[str]] = {}
    for log, reason in by_log.items():
        logs.setdefault(reason, []).append(log)
    if len(logs) == 1:
        return next(iter(logs))
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in logs.items() if reason)
