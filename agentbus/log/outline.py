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
from agentbus.log.scanning import Place, Unit, hop, scan_file
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


def outline_of(folder: Path, extents: Sequence[int]) -> Outline:
    """The entries up to these extents, found by hopping from length to length."""
    starts: list[Place] = []
    notes: list[Note] = []
    position = 0
    for number, extent in enumerate(extents):
        path = folder / entry_segment(number)
        with path.open("rb") as file:
            for offset, head in hop(file, extent):
                if position % UNIT == 0:
                    starts.append(Place(number, offset))
                if kind_of(head) == EntryKind.PEER_CHECKPOINT:
                    notes += _note(path, offset, extent, position)
                position += 1
    units = [Unit(place, at * UNIT, min(UNIT, position - at * UNIT)) for at, place in enumerate(starts)]
    return Outline(position, units, notes)


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
