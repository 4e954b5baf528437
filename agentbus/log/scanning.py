"""Finding the records of segment files that may be large, may be damaged and may be written at this moment.

Rule 1: memory is a window of a file, unless one record is longer.
Rule 2: nothing here says what is wrong with a log; it says where records are, and where none are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from agentbus.log.entry import MAX_ENTRY, kind_of
from agentbus.log.index import Place
from agentbus.log.records import HEAD, MAX_RECORD, Bad, Record, entry_segment, scan

WINDOW: Final = 1024 * 1024
"""Bytes of a file that are in memory at once, unless one record is longer."""


class Unit(NamedTuple):
    """A part of the entries that can be read apart from the others."""

    place: Place
    position: int  # of its first entry
    entries: int


def extents_of(folder: Path) -> list[int]:
    """How far each segment of entries goes now."""
    found: list[int] = []
    while (path := folder / entry_segment(len(found))).is_file():
        found.append(path.stat().st_size)
    return found


def units_of(folder: Path, extents: Sequence[int], count: int) -> list[Unit]:
    """All entries up to these extents in parts of ``count``, found by hopping from length to length."""
    units: list[Unit] = []
    position, start, first = 0, Place(0, 0), 0
    for number, extent in enumerate(extents):
        with (folder / entry_segment(number)).open("rb") as file:
            for offset in hop(file, extent):
                if position - first == count:
                    units.append(Unit(start, first, count))
                    first = position
                if position == first:
                    start = Place(number, offset)
                position += 1
    return [*units, Unit(start, first, position - first)] if position > first else units


def count_entries(folder: Path, extents: Sequence[int]) -> int:
    """How many entries there are up to these extents."""
    return sum(unit.entries for unit in units_of(folder, extents, 1 << 30))


def without_unfinished(folder: Path, extents: Sequence[int]) -> list[int]:
    """The extents, without a record at the very end that begins as an entry does and of which a part is missing."""
    number = len(extents) - 1
    if number < 0 or not extents[number]:
        return list(extents)
    extent = extents[number]
    with (folder / entry_segment(number)).open("rb") as file:
        last = max(hop(file, extent))
        file.seek(last)
        head = file.read(min(HEAD.size, extent - last))
    length = HEAD.unpack(head)[0] if len(head) == HEAD.size else MAX_ENTRY
    whole = not 0 < length <= MAX_ENTRY or last + HEAD.size + length <= extent
    return list(extents) if whole else [*extents[:number], last]


def scan_file(file: BinaryIO, start: int, end: int) -> Iterator[Record | Bad]:
    """The records of a file between two offsets, as :func:`agentbus.log.records.scan` finds them, window by window."""
    at, window = start, WINDOW
    while at < end:
        file.seek(at)
        data = file.read(min(window, end - at))
        whole = at + len(data) >= end or not data
        grown = False
        after: int | None = None
        for found in scan(data):
            if isinstance(found, Record):
                yield Record(at + found.offset, found.data)
                after = found.offset + HEAD.size + len(found.data)
            elif not whole and found.torn and (found.after is None or found.after >= len(data)):
                at, window, grown = at + found.offset, window if found.offset else 2 * window, True
                break
            else:
                torn, unfinished = found.torn and whole, found.unfinished and whole
                yield found._replace(offset=at + found.offset, torn=torn, unfinished=unfinished)
                after = found.after
        if grown:
            continue
        if whole or after is None:
            return
        at, window = at + after, WINDOW


def hop(file: BinaryIO, end: int) -> Iterator[int]:
    """The offsets at which records begin, by their lengths alone, as :func:`scan_file` counts them."""
    at, base, data = 0, 0, b""
    while at < end:
        if at + HEAD.size > base + len(data):
            file.seek(at)
            base, data = at, file.read(min(WINDOW, end - at))
        yield at
        if at + HEAD.size > base + len(data):
            return
        (length, _) = HEAD.unpack_from(data, at - base)
        at += HEAD.size + length
        if not 0 < length <= MAX_RECORD:
            return


def whole_records(file: BinaryIO, end: int) -> int:
    """Where the last record ends that is whole: up to there a file can be copied while somebody writes it."""
    last = 0
    for at in hop(file, end):
        file.seek(at)
        head = file.read(HEAD.size)
        after = at + HEAD.size + HEAD.unpack(head)[0] if len(head) == HEAD.size else end + 1
        if after > end:
            return at
        last = after
    return max(last, 0)


def hop_kind(file: BinaryIO, end: int, kind: int) -> Iterator[bytes | None]:
    """For each record that :func:`hop` finds, its bytes where it claims to be an entry of this kind, else None."""
    at, base, data = 0, 0, b""
    while at < end:
        if at + HEAD.size + 4 > base + len(data):
            file.seek(at)
            base, data = at, file.read(min(WINDOW, end - at))
        if len(data) - (at - base) < HEAD.size:
            yield None
            return
        (length, _) = HEAD.unpack_from(data, at - base)
        start, found = at + HEAD.size, None
        if kind_of(data[start - base : start - base + 4]) == kind and length <= MAX_RECORD:
            file.seek(start)
            found = file.read(length)
        yield found
        if not 0 < length <= MAX_RECORD:
            return
        at = start + length
