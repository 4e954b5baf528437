"""Finding the records of segment files that may be large, may be damaged and may be written at this moment.

Rule 1: memory is a window of a file, unless one record is longer.
Rule 2: nothing here says what is wrong with a log; it says where records are, and where none are.
Rule 3: what is good is taken in stretches: a log has millions of records, and a step for each of them costs more than
its checksum.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from agentbus.log.entry import MAX_ENTRY
from agentbus.log.records import HEAD, MAX_RECORD, Bad, Record, entry_segment, scan

WINDOW: Final = 256 * 1024
"""Bytes of a file that are in memory at once, unless one record is longer."""
_CLAIM: Final = 4  # bytes of a record that say of which kind of entry it claims to be


class Place(NamedTuple):
    """Where a record begins."""

    segment: int
    offset: int


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
            for offset, _ in hop(file, extent):
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


def without_unfinished(folder: Path, extents: Sequence[int], known: Sequence[int] = ()) -> list[int]:
    """The extents, without a record at the very end that begins as an entry does and of which a part is missing.

    Args:
        folder: The log's.
        extents: How far each segment goes.
        known: Where a record is known to end in each of the first segments.
    """
    number = len(extents) - 1
    start = known[number] if 0 <= number < len(known) else 0
    if number < 0 or extents[number] <= start:
        return list(extents)
    extent = extents[number]
    with (folder / entry_segment(number)).open("rb") as file:
        last = max(offset for offset, _ in hop(file, extent, start))
        file.seek(last)
        head = file.read(min(HEAD.size, extent - last))
    length = HEAD.unpack(head)[0] if len(head) == HEAD.size else MAX_ENTRY
    whole = not 0 < length <= MAX_ENTRY or last + HEAD.size + length <= extent
    return list(extents) if whole else [*extents[:number], last]


class Stretch(NamedTuple):
    """Good records that follow each other."""

    offsets: list[int]  # of their length fields
    records: list[bytes]


def stretches(file: BinaryIO, start: int, end: int) -> Iterator[Stretch | Bad]:
    """The records of a file between two offsets: the good ones, and what stands between them.

    Behind a record with a bad checksum it goes on; where a length cannot be right nothing after it can be found, and
    that is the last item.
    """
    at, size = start, WINDOW
    while at < end:
        file.seek(at)
        data = file.read(min(size, end - at))
        if not data:
            return
        whole = at + len(data) >= end
        good, stopped = _good(data, at)
        if good.records:
            yield good
        if stopped == len(data):
            at, size = at + stopped, WINDOW
            continue
        found = next(scan(data, stopped))
        assert isinstance(found, Bad)
        if not whole and found.torn and (found.after is None or found.after >= len(data)):
            # perhaps only the window cuts it: again, from where it begins, or with more
            at, size = at + stopped, WINDOW if stopped else 2 * size
            continue
        torn, unfinished = found.torn and whole, found.unfinished and whole
        yield found._replace(offset=at + found.offset, torn=torn, unfinished=unfinished)
        if found.after is None:
            return
        at, size = at + found.after, WINDOW


def _good(data: bytes, base: int) -> tuple[Stretch, int]:
    """The good records that a window begins with, and where in it they end."""
    offsets: list[int] = []
    records: list[bytes] = []
    at, end, head = 0, len(data), HEAD.size
    unpack, crc32 = HEAD.unpack_from, zlib.crc32
    found_at, found = offsets.append, records.append
    while at + head <= end:
        length, checksum = unpack(data, at)
        after = at + head + length
        if not 0 < length <= MAX_RECORD or after > end:
            break
        record = data[at + head : after]
        if crc32(record) != checksum:
            break
        found_at(base + at)
        found(record)
        at = after
    return Stretch(offsets, records), at


def scan_file(file: BinaryIO, start: int, end: int) -> Iterator[Record | Bad]:
    """The same records one by one."""
    for found in stretches(file, start, end):
        if isinstance(found, Bad):
            yield found
        else:
            yield from map(Record, found.offsets, found.records)


def hop(file: BinaryIO, end: int, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Where records begin, by their lengths alone, as :func:`scan_file` counts them; each with its first bytes."""
    at, base, data = start, start, b""
    unpack, head = HEAD.unpack_from, HEAD.size
    peek = head + _CLAIM
    while at < end:
        local = at - base
        if local + peek > len(data):
            file.seek(at)
            base, local, data = at, 0, file.read(min(WINDOW, end - at))
        yield at, data[local + head : local + peek]
        if local + head > len(data):
            return
        (length, _) = unpack(data, local)
        if not 0 < length <= MAX_RECORD:
            return
        at += head + length


def record_end(file: BinaryIO, start: int) -> int | None:
    """Where the record ends that begins here, by its length; None where that is not there or cannot be right."""
    file.seek(start)
    head = file.read(HEAD.size)
    length = HEAD.unpack(head)[0] if len(head) == HEAD.size else 0
    return start + HEAD.size + length if 0 < length <= MAX_RECORD else None


def whole_records(file: BinaryIO, end: int) -> int:
    """Where the last record ends that is whole: up to there a file can be copied while somebody writes it."""
    last = 0
    for at, _ in hop(file, end):
        file.seek(at)
        head = file.read(HEAD.size)
        after = at + HEAD.size + HEAD.unpack(head)[0] if len(head) == HEAD.size else end + 1
        if after > end:
            return at
        last = after
    return last
