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
from stat import S_ISREG
from typing import BinaryIO, Final, NamedTuple

from agentbus.log.entry import MAX_ENTRY
from agentbus.log.records import HEAD, MAX_RECORD, SEGMENT, Bad, Record, entry_segment, only_zeros, scan

WINDOW: Final = 256 * 1024
"""Bytes of a file that are in memory at once, unless one record is longer."""
LARGEST: Final = HEAD.size + MAX_RECORD
"""Bytes of the longest record: no window has to be larger."""
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


def is_plain(path: Path) -> bool:
    """Whether this is a file itself: no link, which may lead anywhere, and no pipe or device, which may never end."""
    try:
        return S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def extents_of(folder: Path) -> list[int]:
    """How far each segment of entries goes now."""
    found: list[int] = []
    while is_plain(path := folder / entry_segment(len(found))):
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
        local = 0  # within the window: many bad records in it cost one read of it
        while True:
            good, stopped = _good(data, at, local)
            if good.records:
                yield good
            if stopped == len(data):
                at, size = at + stopped, WINDOW
                break
            found = next(scan(data, stopped))
            assert isinstance(found, Bad)
            torn = found.torn and whole
            if not whole and found.torn and (found.after is None or found.after >= len(data)):
                if stopped or size < LARGEST:
                    # perhaps only the window cuts it: again, from where it begins, or with more
                    at, size = at + stopped, WINDOW if stopped else min(2 * size, LARGEST)
                    break
                torn = _zeros_behind(file, at + (found.after or 0), end)
            yield found._replace(offset=at + found.offset, torn=torn, unfinished=found.unfinished and whole)
            if found.after is None:
                return
            local = found.after


def _zeros_behind(file: BinaryIO, at: int, end: int) -> bool:
    """Whether nothing but zeros follows; where more follows than a segment holds, nobody looks."""
    if end - at > SEGMENT:
        return False
    file.seek(at)
    while at < end and (data := file.read(min(WINDOW, end - at))):
        if not only_zeros(data, 0):
            return False
        at += len(data)
    return True


def _good(data: bytes, base: int, start: int) -> tuple[Stretch, int]:
    """The good records from a place in a window on, and where in it they end."""
    offsets: list[int] = []
    records: list[bytes] = []
    at, end, head = start, len(data), HEAD.size
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
