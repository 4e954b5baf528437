"""What hopping through a log's entries tells: how many there are, where, and whose checkpoints they keep."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from agentbus.errors import Malformed
from agentbus.log.decoding import decode_entry, kind_of
from agentbus.log.entry import EntryKind, PeerCheckpoint
from agentbus.log.records import Record, entry_segment
from agentbus.log.scanning import Place, Unit, hop, record_end, scan_file
from agentbus.log.tiles import WIDTH

UNIT: Final = 32 * WIDTH
"""Entries that are read at once: a whole number of tiles, so that parts of the tree fit together."""


class Note(NamedTuple):
    """A checkpoint of another log that an entry keeps."""

    position: int
    note: bytes
    instant: int  # when it was kept


class Outline(NamedTuple):
    """All entries, without what they say."""

    entries: int
    units: list[Unit]
    notes: list[Note]
    extents: list[int]  # how far each segment was read
    whole: bool  # the last segment was read to a record's end


NOTHING: Final = Outline(0, [], [], [], True)


def outline_of(folder: Path, extents: Sequence[int], before: Outline = NOTHING) -> Outline:
    """The entries up to these extents, found by hopping from length to length.

    Args:
        folder: The log's.
        extents: How far each segment is read.
        before: What was found up to where these segments went before.
    """
    starts = [unit.place for unit in before.units]
    notes = list(before.notes)
    position, whole = before.entries, before.whole
    for number, extent in list(enumerate(extents))[max(len(before.extents) - 1, 0) :]:
        path = folder / entry_segment(number)
        start = before.extents[number] if number < len(before.extents) else 0
        with path.open("rb") as file:
            offset = -1
            for offset, head in hop(file, extent, start):
                if position % UNIT == 0:
                    starts.append(Place(number, offset))
                if kind_of(head) == EntryKind.PEER_CHECKPOINT:
                    notes += _note(path, offset, extent, position)
                position += 1
            if offset >= 0:
                whole = record_end(file, offset) == extent
    units = [Unit(place, at * UNIT, min(UNIT, position - at * UNIT)) for at, place in enumerate(starts)]
    return Outline(position, units, notes, list(extents), whole)


def _note(path: Path, offset: int, extent: int, position: int) -> list[Note]:
    """The note that an entry keeps, if it does."""
    with path.open("rb") as file:
        found = next(scan_file(file, offset, extent), None)
    if isinstance(found, Record):
        with suppress(Malformed):
            entry = decode_entry(found.data)
            if isinstance(entry, PeerCheckpoint):
                return [Note(position, entry.note, entry.instant)]
    return []
