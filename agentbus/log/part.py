"""What reading a part of a log finds: small, so that several processes can read parts and one puts them together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from agentbus.log.fates import Fates
from agentbus.log.report import Tally


class Absent(NamedTuple):
    """A body, or the result of a step, that is not there any more."""

    position: int
    commitment: bytes | None  # of the body; None for a step's result
    digest: bytes  # of the message it belongs to


class Kept(NamedTuple):
    """A note of another node's log that an entry keeps."""

    position: int
    note: bytes
    instant: int  # when its keeper had it


@dataclass(slots=True, order=True)
class Run:
    """Numbers that follow each other without a gap."""

    first: int
    last: int
    position: int  # of the entry with the first


def follow(runs: list[Run], seq: int, position: int) -> None:
    """One more number of a list of runs."""
    if runs and runs[-1].last + 1 == seq:
        runs[-1].last = seq
    else:
        runs.append(Run(seq, seq, position))


@dataclass
class Part:
    """What was found in one part. Tallies of all parts are added up; the rest is put in order of positions."""

    position: int = 0
    entries: int = 0
    intact: Tally = field(default_factory=Tally)
    judged: dict[str, Tally] = field(default_factory=dict)
    missing: Tally = field(default_factory=Tally)
    inputs: Tally = field(default_factory=Tally)  # of replay
    messages: int = 0
    bodiless: int = 0  # refused, and so kept without their bodies
    absent: list[Absent] = field(default_factory=list)
    redacted: set[bytes] = field(default_factory=set)  # commitments
    log_keys: dict[bytes, int] = field(default_factory=dict)  # that this node's own messages name, and where first
    runs: dict[tuple[str, str], list[Run]] = field(default_factory=dict)  # (instance, to whom) → seqs
    fates: Fates = field(default_factory=Fates)  # of what was sent and waits
    kept: list[Kept] = field(default_factory=list)
    groups: list[bytes] = field(default_factory=list)  # roots of 256 leaves each, as far as no record was damaged
    rest: list[bytes] = field(default_factory=list)  # leaves behind the last of them
    partial: dict[int, bytes] = field(
        default_factory=dict
    )  # size → root over the leaves since the last multiple of 256
    latest: int = 0  # the latest instant that an entry is dated to
    latest_at: dict[int, int] = field(default_factory=dict)  # size → the same over the entries before it
    behind: tuple[int, int] | None = None  # the earliest and the latest instant of entries that no checkpoint covers
    broken: int | None = None  # the position of the first record that could not be read

    def run(self, instance: str, to: str, seq: int, position: int) -> list[Run]:
        """A message with this number; gives the list that further ones of these two go into."""
        runs = self.runs.setdefault((instance, to), [])
        follow(runs, seq, position)
        return runs

    def add(self, other: Part) -> None:
        """Take what the next part found."""
        for mine, theirs in (
            (self.intact, other.intact), (self.missing, other.missing), (self.inputs, other.inputs),
        ):  # fmt: skip
            mine.add(theirs)
        for name, tally in other.judged.items():
            self.judged.setdefault(name, Tally()).add(tally)
        self.entries += other.entries
        self.latest_at |= {size: max(self.latest, at) for size, at in other.latest_at.items()}
        self.latest = max(self.latest, other.latest)
        if other.behind is not None:
            mine_behind = self.behind or other.behind
            self.behind = min(mine_behind[0], other.behind[0]), max(mine_behind[1], other.behind[1])
        self.messages += other.messages
        self.bodiless += other.bodiless
        self.absent += other.absent
        self.redacted |= other.redacted
        for key, position in other.log_keys.items():
            self.log_keys.setdefault(key, position)
        for key_, runs in other.runs.items():
            mine_ = self.runs.setdefault(key_, [])
            if mine_ and mine_[-1].last + 1 == runs[0].first:
                mine_[-1].last = runs[0].last
                runs = runs[1:]
            mine_ += runs
        self.fates.join(other.fates)
        self.kept += other.kept
        if self.broken is None:
            self.groups += other.groups
            self.rest = other.rest
            self.partial |= other.partial
            self.broken = other.broken
