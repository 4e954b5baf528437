"""Where logs that are being written are cut, so that what is read of them agrees.

Rule 1: nothing is kept of a log that another one, as far as it was read, should know of and cannot yet: neither a
message whose sender's log was read before it was sent, nor a checkpoint over more than was read of the log that signed.
Rule 2: only what came after the first look at all of them is ever cut away. What was there by then is judged as it is,
or whoever leaves something out could have it cut from the others' logs as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from agentbus.crypto.merkle import leaf_hash
from agentbus.delegation.statements import Instance
from agentbus.errors import AgentBusError, Malformed
from agentbus.log.checkpoint import read_checkpoint
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Sent
from agentbus.log.read import LogFolder, Numbered
from agentbus.log.sides import homes_of, read_side


class _Need(NamedTuple):
    """An entry, and the entry of another log that stands before it in time; None: it is not there."""

    log: str
    position: int
    other: str
    wanted: int | None


def cut_where_they_agree(logs: Mapping[str, LogFolder], statements: Iterable[Instance]) -> None:
    """Shorten the logs, each by what the others cannot know of yet; nothing where none is written.

    Args:
        logs: By name, each read with what :func:`agentbus.log.read.look` gave before any was read.
        statements: The instance statements beside them, verified: they say which node an instance lives in.
    """
    if len(logs) < 2:
        return
    settled = {name: log.settled for name, log in logs.items()}
    ends = {name: log.size for name, log in logs.items()}
    if settled == ends:
        return
    needs = _needs(logs, settled, statements)
    changed = True
    while changed:
        changed = False
        for mine, position, other, wanted in needs:
            if position < ends[mine] and (wanted is None or wanted >= ends[other]):
                ends[mine], changed = position, True
    for name, log in logs.items():
        log.end_before(ends[name])


def _needs(logs: Mapping[str, LogFolder], settled: Mapping[str, int], statements: Iterable[Instance]) -> list[_Need]:
    """What the entries that are not settled stand on."""
    tails = {name: read_side(log, name, settled[name]) for name, log in logs.items()}
    homes = homes_of(list(tails.values()), statements)
    owners = {log.origin: name for name, log in logs.items()}
    needs, heads = [], dict[str, dict[bytes, list[tuple[str, int]]]]()
    for name, tail in tails.items():
        for digest, line in tail.received.items():
            home = homes.get(line.source)
            if home is None or home == name:
                continue
            sent = tails[home].sent.get(digest)
            if sent is not None:
                needs.append(_Need(name, line.position, home, sent.position))
            else:
                heads.setdefault(home, {}).setdefault(digest, []).append((name, line.position))
        for position, note in _notes(logs[name], settled[name]):
            try:
                said = read_checkpoint(note)
            except Malformed:
                continue
            if said.size and owners.get(said.origin, name) != name:
                needs.append(_Need(name, position, owners[said.origin], said.size - 1))
    for home, wanted in heads.items():
        known = _sent_before(logs[home], settled[home], wanted)
        needs += [
            _Need(name, position, home, None)
            for digest, places in wanted.items()
            if digest not in known
            for name, position in places
        ]
    return needs


def _notes(log: LogFolder, start: int) -> Iterable[tuple[int, bytes]]:
    return ((position, note) for position, note, _ in log.notes() if position >= start)


def _sent_before(log: LogFolder, end: int, wanted: Collection[bytes]) -> set[bytes]:
    """Which of these messages are among the first entries of a log."""
    found: set[bytes] = set()
    for item in log.entries():
        if not isinstance(item, Numbered):
            continue
        if item.position >= end:
            break
        try:
            entry = decode_entry(item.data)
        except AgentBusError:
            continue
        if isinstance(entry, Sent) and (digest := leaf_hash(entry.header)) in wanted:
            found.add(digest)
    return found
