"""What a log's folder holds when it is opened: where the good records end, and what to do about the rest.

Rule 1: what a checkpoint covers is never changed. If it cannot be read, nobody writes here again.
Rule 2: beyond the checkpoint only a torn record at the very end is cut, because that is what a crash in the middle of a
write leaves; it was never acknowledged. The bytes are kept beside the log.
Rule 3: every record is read. A log that starts without looking finds its damage when it is asked to prove something.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from agentbus.crypto.merkle import leaf_hash
from agentbus.disk import sync_folder
from agentbus.log.decoding import kind_of
from agentbus.log.index import Index, Piece, piece_of
from agentbus.log.records import BOX_HEAD, HEAD, Bad, Record, blob_segment, box_segment, entry_segment, scan
from agentbus.logstore.segments import Position, damaged
from agentbus.logstore.tilefiles import TileFiles


class Covered(NamedTuple):
    """What the last checkpoint vouches for."""

    size: int
    root: bytes
    entries: Position
    blobs: Position
    boxes: Position


class Found(NamedTuple):
    """What the folder holds, once it is fit to be written."""

    size: int  # entries, those beyond the checkpoint too
    last_kind: int  # of the last entry; 0 where there is none
    tiles: TileFiles  # over what the checkpoint covers
    entries: Position
    blobs: Position
    boxes: Position
    known: Index  # where the blobs are
    cut: int  # bytes that were cut


def recover(folder: Path, covered: Covered) -> Found:
    """Read everything, cut what a crash left torn.

    Raises:
        LogError: ``log.damaged``, naming the record or tile; ``log.write``.
    """
    entries, blobs = _Entries(folder, covered), _Blobs()

    def box(place: Position, record: Record) -> None:
        if hashlib.sha256(record.data[BOX_HEAD.size :]).digest() != record.data[:32]:
            raise damaged(box_segment(place.segment), place.offset, "a box is not the one of its name")

    entries_end, entries_cut = _read(folder, entry_segment, covered.entries, entries.take, entries.pause)
    entries.finish(entries_end)
    blobs_end, blobs_cut = _read(folder, blob_segment, covered.blobs, blobs.take, blobs.pause)
    boxes_end, boxes_cut = _read(folder, box_segment, covered.boxes, box)
    cut = entries_cut + blobs_cut + boxes_cut
    index = Index(blobs.pieces)
    return Found(entries.size, entries.last, entries.tiles, entries_end, blobs_end, boxes_end, index, cut)


class _Entries:
    """Takes entries in order: counts them, and hashes those that the checkpoint covers into tiles."""

    def __init__(self, folder: Path, covered: Covered) -> None:
        self.size = self.last = 0
        self.tiles = TileFiles(folder)
        self._covered = covered
        self._waiting: list[bytes] = []

    def take(self, _: Position, record: Record) -> None:
        self.size += 1
        self.last = kind_of(record.data)
        if self.size <= self._covered.size:
            self._waiting.append(record.data)
            if len(self._waiting) == 4096:
                self.pause()

    def pause(self) -> None:
        """Hash what was taken, and compare the tiles that became full."""
        self.tiles.extend([leaf_hash(data) for data in self._waiting], self._waiting)
        self._waiting = []
        self.tiles.check(last=False)

    def finish(self, end: Position) -> None:
        """What is covered is here, whole, and what was signed."""
        self.pause()
        size = self._covered.size
        if self.size < size:
            raise damaged(entry_segment(end.segment), end.offset, f"ends after {self.size} entries, {size} were signed")
        if self.tiles.tree.root() != self._covered.root:
            raise damaged(entry_segment(0), 0, f"the root of the first {size} entries is not the one signed")
        self.tiles.check(last=True)


class _Blobs:
    """Takes blobs in order, and indexes one segment after the other."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._places: list[tuple[bytes, int]] = []

    def take(self, place: Position, record: Record) -> None:
        if hashlib.sha256(record.data[32:]).digest() != record.data[:32]:
            raise damaged(blob_segment(place.segment), place.offset, "a blob is not the one of its digest")
        self._places.append((record.data[:8], place.offset))

    def pause(self) -> None:
        self.pieces.append(piece_of(len(self.pieces), self._places, 0))
        self._places = []


def _read(
    folder: Path,
    name: Callable[[int], str],
    covered: Position,
    take: Callable[[Position, Record], None],
    pause: Callable[[], None] = lambda: None,
) -> tuple[Position, int]:
    """Every good record of a series in order; the position after the last one and how much was cut behind it."""
    number, end, cut = 0, Position(0, 0), 0
    while (path := folder / name(number)).exists():
        data = path.read_bytes()
        last = not (folder / name(number + 1)).exists()
        end = Position(number, len(data))
        for found in scan(data):
            place = Position(number, found.offset)
            if isinstance(found, Record):
                take(place, found)
                continue
            if place < covered or not found.torn or not last:
                raise damaged(name(number), found.offset, found.reason)
            _cut(folder, name(number), found, data)
            end, cut = place, len(data) - found.offset
            break
        pause()
        number += 1
    if len(list(folder.glob(name(0).replace("0" * 8, "[0-9]" * 8)))) != number:
        raise damaged(name(number), 0, "this segment is missing and later ones are there")
    if end < covered:
        raise damaged(name(end.segment), end.offset, "ends before what was signed over")
    return end, cut


def _cut(folder: Path, name: str, torn: Bad, data: bytes) -> None:
    """Keep the torn bytes, then cut them off."""
    kept = folder / f"{name}.{torn.offset}.torn"
    kept.write_bytes(data[torn.offset :])
    fd = os.open(folder / name, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, torn.offset)
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_folder(folder)


def record_at(folder: Path, name: str, place: Position) -> bytes:
    """The record that begins at a place, as it stands on the disk; its caller knows by what to check it."""
    with (folder / name).open("rb") as file:
        file.seek(place.offset)
        length = HEAD.unpack(file.read(HEAD.size))[0]
        return file.read(length)
