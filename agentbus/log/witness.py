"""What others kept of a log: signed notes that it must agree with, and must have reached.

Rule 1: evidence is a note that the log's own key signed. What somebody merely says about a log is none.
Rule 2: two notes of one origin that cannot both be prefixes of one history are a fork, whoever holds the log.
Rule 3: one principal's node may have had two log keys, so a note counts against a log only under that log's own
key: the one that signed its checkpoint, or that those who speak in it name. Another key under the same name is another
log; it is said, and blames nobody.
Rule 4: notes cover what they are about. What lies behind the largest of them is named, never called good.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from agentbus.crypto.keys import checked_key
from agentbus.crypto.note import Checkpoint
from agentbus.errors import AgentBusError
from agentbus.log.checkpoint import parse_origin, read_checkpoint, verify_checkpoint
from agentbus.log.report import Tally, Verdict
from agentbus.wire.limits import LIMITS, SECOND


class Held(NamedTuple):
    """A note of somebody's log, and who has it."""

    holder: str  # the log that keeps it
    position: int | None  # in which entry; None: beside the log
    note: bytes
    said: Checkpoint
    instant: int | None = None  # when its holder had it, by the holder's clock
    key: bytes = b""  # raw: the log key that signed it
    by: frozenset[str] = frozenset()  # the principals whose statements name this key for this node

    @property
    def where(self) -> str:
        """For a person to find it."""
        return f"{self.holder} entry {self.position}" if self.position is not None else f"{self.holder} (kept beside)"


class Notes:
    """Notes of many logs, each under a key that an instance statement names for its node.

    Args:
        log_keys: From a node's name to the log keys that instance statements name for it, and whose statements.
    """

    def __init__(self, log_keys: Mapping[str, Iterable[tuple[str, bytes]]]) -> None:
        self._keys: dict[str, dict[bytes, set[str]]] = {}
        for node, named in log_keys.items():
            for who, key in named:
                self._keys.setdefault(node, {}).setdefault(key, set()).add(who)
        self._held: dict[str, dict[tuple[int, bytes, bytes], Held]] = {}

    def add(self, holder: str, position: int | None, note: bytes, instant: int | None = None) -> None:
        """A note that ``holder`` keeps; one that no log key signed is no evidence and is left out."""
        try:
            said = read_checkpoint(note)
            mine = self._held.setdefault(said.origin, {})
            for key, by in self._keys.get(parse_origin(said.origin).node, {}).items():
                if (said.size, said.root, key) in mine:
                    continue
                try:
                    verify_checkpoint(note, said.origin, checked_key(key))
                except AgentBusError:
                    continue
                mine[said.size, said.root, key] = Held(holder, position, note, said, instant, key, frozenset(by))
                return
        except AgentBusError:
            return

    def of(self, origin: str) -> list[Held]:
        """The notes of a log, shortest first."""
        return sorted(self._held.get(origin, {}).values(), key=lambda held: (held.said.size, held.said.root))

    def sizes(self, origin: str) -> set[int]:
        """At which sizes the log's root is needed to compare."""
        return {held.said.size for held in self._held.get(origin, {}).values()}

    def forks(self, but: Iterable[tuple[str, bytes]] = ()) -> list[str]:
        """Logs of which two notes about one size differ; those in ``but`` are judged with their entries.

        Args:
            but: Origins and log keys.
        """
        found = []
        judged = set(but)
        for origin in sorted(self._held):
            held = self.of(origin)
            for key in sorted({one.key for one in held if (origin, one.key) not in judged}):
                mine = [one for one in held if one.key == key]
                found += [
                    f"{origin}, under a key of {', '.join(sorted(one.by))}, signed two histories of {one.said.size}"
                    f" entries: {one.where} and {two.where}"
                    for one, two in zip(mine, mine[1:], strict=False)
                    if _contradict(one, two)
                ]
        return found


def _contradict(one: Held, two: Held) -> bool:
    return one.said.size == two.said.size and one.said.root != two.said.root


def count_for(held: Iterable[Held], keys: Collection[bytes]) -> list[Held]:
    """The notes that count for a log: those that one of its own keys signed."""
    return [one for one in held if one.key in keys]


def forward_dated(held: Iterable[Held], latest_at: Mapping[int, int]) -> list[str]:
    """Checkpoints that others had before the instant to which an entry under them is dated."""
    return [
        f"an entry before {one.said.size} is dated {(latest - one.instant) // SECOND} s after {one.where} had it"
        for one in held
        if one.instant is not None
        and (latest := latest_at.get(one.said.size)) is not None
        and latest > one.instant + LIMITS.skew
    ]


def judge_notes(
    held: list[Held], *, entries: int, covered: int, root_at: Callable[[int], bytes | None], strange: int = 0
) -> tuple[Verdict, Verdict]:
    """NOT-FORKED and NOT-TRUNCATED of one log.

    Args:
        held: What others keep of it.
        entries: How many it has here.
        covered: How many its own checkpoint covers.
        root_at: The root over so many of its entries as they are here; None where damage makes that unknowable.
        strange: How many more there are of logs of the same name, under other keys.
    """
    nobody = "nobody's log that was given holds a checkpoint of it"
    apart = [f"{strange} checkpoints of its name under other log keys do not count"] if strange else []
    if not held:
        nobody = "; ".join([nobody, *apart])
        return Verdict(None, reason=nobody), Verdict(None, reason=nobody)
    forked, cut = Tally(), Tally()
    unknown = 0
    for one in held:
        cut.checked += 1
        if one.said.size > entries:
            cut.problem(f"{one.where} has a checkpoint over {one.said.size} entries, {entries} are here")
            continue
        root = root_at(one.said.size)
        if root is None:
            unknown += 1
            continue
        forked.checked += 1
        if root != one.said.root:
            forked.problem(f"{one.where} has a checkpoint over {one.said.size} entries with another root")
    for one, two in zip(held, held[1:], strict=False):
        if _contradict(one, two):
            forked.problem(f"two histories of {one.said.size} entries were signed: {one.where} and {two.where}")
    most = min(held[-1].said.size, entries)
    reasons = [f"{entries - most} entries behind it are not covered"] if most < max(entries, covered) else []
    reasons += [f"{unknown} checkpoints not compared, for records under them are damaged"] if unknown else []
    reason = "; ".join([f"others' newest checkpoint is over {held[-1].said.size} entries", *reasons, *apart])
    return forked.verdict(nothing="no checkpoint could be compared", reason=reason), cut.verdict(reason=reason)
