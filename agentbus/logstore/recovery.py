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

from agentbus.crypto.merkle import Frontier, leaf_hash
from agentbus.log.records import HEAD, Bad, Record, blob_segment, entry_segment, scan
from agentbus.logstore.segments import Position, damaged, sync_folder


class Covered(NamedTuple):
    """What the last checkpoint vouches for."""

    size: int
    root: bytes
    entries: Position
    blobs: Position


class Found(NamedTuple):
    """What the folder holds, once it is fit to be written."""

    frontier: Frontier
    entries: Position
    blobs: Position
    places: dict[bytes, Position]  # where each blob's record begins
    cut: int  # bytes that were cut


def recover(folder: Path, covered: Covered) -> Found:
    """Read everything, cut what a crash left torn.

    Raises:
        LogError: ``log.damaged``, naming the record.
    """
    frontier = Frontier()
    roots: list[bytes] = [frontier.root()] if covered.size == 0 else []

    def entry(_: Position, record: Record) -> None:
        frontier.append(leaf_hash(record.data))
        if frontier.size == covered.size:
            roots.append(frontier.root())

    places: dict[bytes, Position] = {}

    def blob(place: Position, record: Record) -> None:
        if hashlib.sha256(record.data[32:]).digest() != record.data[:32]:
            raise damaged(blob_segment(place.segment), place.offset, "a blob is not the one of its digest")
        places.setdefault(record.data[:32], place)

    entries_end, entries_cut = _read(folder, entry_segment, covered.entries, entry)
    if not roots:
        raise damaged(
            entry_segment(entries_end.segment),
            entries_end.offset,
            f"ends after {frontier.size} entries, {covered.size} were signed over",
        )
    if roots[0] != covered.root:
        raise damaged(entry_segment(0), 0, f"the root of the first {covered.size} entries is not the one signed")
    blobs_end, blobs_cut = _read(folder, blob_segment, covered.blobs, blob)
    return Found(frontier, entries_end, blobs_end, places, entries_cut + blobs_cut)


def _read(
    folder: Path, name: Callable[[int], str], covered: Position, take: Callable[[Position, Record], None]
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
