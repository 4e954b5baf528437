"""Reading a log's folder without writing to it, locking it or believing it.

Rule 1: damage is reported with its place and reading goes on behind it where that is possible: an auditor wants to know
all of it.
Rule 2: nothing here is verified but that a blob or box is the one of its digest.
Rule 3: a log that is being written reads whole: the checkpoint is read first, then the entries' extent is taken, then
blobs and boxes are read, because a writer puts things down in the opposite order. A record at the very end that is only
half there, and that no checkpoint covers, is left out and named in ``unfinished``: it is being written, or a crash cut
it.
Rule 4: memory is a window of each file and 16 bytes for each blob and box.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from agentbus.crypto.box import ERASED, KEY, box_name, open_box
from agentbus.crypto.note import Checkpoint
from agentbus.errors import LogError, Malformed
from agentbus.log.checkpoint import read_checkpoint
from agentbus.log.entry import EntryKind, PeerCheckpoint, decode_entry
from agentbus.log.index import Index, Place
from agentbus.log.records import (
    BOX_HEAD,
    HEAD,
    KEYS,
    MAX_RECORD,
    Bad,
    Record,
    blob_segment,
    box_segment,
    entry_segment,
)  # fmt: skip
from agentbus.log.scanning import (
    WINDOW,
    Unit,
    count_entries,
    extents_of,
    hop,
    hop_kind,
    scan_file,
    units_of,
    without_unfinished,
)

CODES: Final = {
    "log.missing": "There is no log in this folder.",
}

STATEMENT: Final = b"\x95\x03"
"""How an encoded instance statement begins: an array of five, the first of them ``statements.INSTANCE``."""
RECENT: Final = 256
"""Blobs that are remembered; with chains of at most 64 KiB below 16 MiB, and mostly below one."""


class Damage(NamedTuple):
    """A place in a segment where no good record stands."""

    segment: str
    offset: int
    reason: str
    torn: bool = False

    def __str__(self) -> str:
        return f"{self.segment} at byte {self.offset}: {self.reason}{' (torn tail)' if self.torn else ''}"


class Numbered(NamedTuple):
    """An entry's bytes and the position they stand at."""

    position: int
    data: bytes


class Box(NamedTuple):
    """What became of a box: its content, or None with whether its key was erased, or what is wrong with it."""

    data: bytes | None
    erased: bool = False
    problem: str = ""


NO_BOX: Final = Box(None)


class Look(NamedTuple):
    """A first look at a log: taken of all that are judged together before any of them is read."""

    note: bytes | None
    extents: list[int]


def look(folder: Path) -> Look:
    """The checkpoint, and behind it in time how far the entries go."""
    note = _bytes_of(folder / "checkpoint")
    return Look(note, extents_of(folder))


class LogFolder:
    """What a folder holds. Make one with :func:`read_log`. It can be pickled, so that several processes read it."""

    def __init__(self, folder: Path, early: Look | None = None) -> None:
        early = early or look(folder)
        self.folder = folder
        self.note = early.note
        self.damage: list[Damage] = []
        """Damage of the blobs, boxes and files; that of entries is found by :meth:`entries`."""
        self.unfinished: list[Damage] = []
        """Records at the very end of their series that are only half there; an entry only where none is covered."""
        self.statements: list[bytes] = []
        """Digests of blobs that look like instance statements."""
        self._extents = [path.stat().st_size for path in self._segments(entry_segment)]
        self._early = early.extents
        self._leave_unfinished()
        self._blobs = Index(self._scan_blobs())
        self._boxes = Index(self._scan_boxes())
        self._recent: dict[bytes, bytes] = {}
        self._window: tuple[int, int, bytes] = (0, 0, b"")  # of the boxes: segment, offset, bytes
        self._keys: tuple[int, bytes] = (0, b"")  # of their keys: offset, bytes

    @property
    def said(self) -> Checkpoint | None:
        """What the checkpoint note says, nobody's signature looked at; None where there is none or it is no note."""
        try:
            return read_checkpoint(self.note) if self.note is not None else None
        except Malformed:
            return None

    @property
    def origin(self) -> str | None:
        """Whose log the checkpoint note says this is."""
        return self.said.origin if self.said else None

    # ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────

    def entries(self, unit: Unit | None = None) -> Iterator[Numbered | Damage]:
        """The entries in order, or those of one unit, and the damage between them.

        Behind a record with a bad checksum it goes on; where a length cannot be right, with the next segment.
        """
        start, position = (unit.place, unit.position) if unit else (Place(0, 0), 0)
        end = position + unit.entries if unit else None
        for number in range(start.segment, len(self._extents)):
            name, base = entry_segment(number), start.offset if number == start.segment else 0
            with (self.folder / name).open("rb") as file:
                for found in scan_file(file, base, self._extents[number]):
                    if position == end:
                        return
                    if isinstance(found, Bad):
                        yield Damage(name, found.offset, found.reason, found.torn and number == len(self._extents) - 1)
                    else:
                        yield Numbered(position, found.data)
                    position += 1

    @property
    def extents(self) -> list[int]:
        """How far each segment of entries was read."""
        return list(self._extents)

    @property
    def settled(self) -> int:
        """How many entries were here before any of the logs that are judged together was read.

        What stands behind them in time is in what was read of the other logs, however fast all are written.
        """
        return count_entries(self.folder, without_unfinished(self.folder, self._early))

    @property
    def size(self) -> int:
        """How many entries were read."""
        return count_entries(self.folder, self._extents)

    def end_before(self, position: int) -> None:
        """Leave out the entries from this position on."""
        behind = self.units(position)[1:2] if position else self.units(1)[:1]
        for unit in behind:
            self._extents = [*self._extents[: unit.place.segment], unit.place.offset]

    def units(self, count: int) -> list[Unit]:
        """All entries in parts of ``count``, found by hopping from length to length."""
        return units_of(self.folder, self._extents, count)

    def after(self, position: int) -> Iterator[Numbered | Damage]:
        """The entries from a position on, and the damage between them."""
        for unit in self.units(position)[1:] if position else self.units(1 << 30):
            yield from self.entries(unit)

    def later(self) -> Iterator[bytes]:
        """The entries that were written since the extents were taken, as far as they are whole now."""
        last = len(self._extents) - 1
        for number, path in list(enumerate(self._segments(entry_segment)))[max(last, 0) :]:
            with path.open("rb") as file:
                for found in scan_file(file, self._extents[last] if number == last else 0, path.stat().st_size):
                    if isinstance(found, Record):
                        yield found.data

    def notes(self) -> Iterator[tuple[int, bytes, int]]:
        """The checkpoints of other logs that entries keep, each with its position before and its instant behind it.

        An entry is read as far as it has to be, and whether it is covered by this log's checkpoint is not said here.
        """
        position = 0
        for number, extent in enumerate(self._extents):
            with (self.folder / entry_segment(number)).open("rb") as file:
                for data in hop_kind(file, extent, EntryKind.PEER_CHECKPOINT):
                    if data is not None:
                        with suppress(Malformed):
                            entry = decode_entry(data)
                            if isinstance(entry, PeerCheckpoint):
                                yield position, entry.note, entry.instant
                    position += 1

    def entry_at(self, position: int) -> bytes | None:
        """One entry, or None where it is not there or damaged."""
        for number, extent in enumerate(self._extents):
            with (self.folder / entry_segment(number)).open("rb") as file:
                for offset in hop(file, extent):
                    if position == 0:
                        found = next(scan_file(file, offset, extent))
                        return found.data if isinstance(found, Record) else None
                    position -= 1
        return None

    # ── blobs and boxes ──────────────────────────────────────────────────────────────────────────────────────────

    def blob(self, digest: bytes) -> bytes | None:
        """The blob of this digest, or None. The newest are remembered: chains and handovers are asked for again."""
        known = self._recent.get(digest)
        if known is not None:
            return known
        for place in self._blobs.places(digest):
            with (self.folder / blob_segment(place.segment)).open("rb") as file:
                file.seek(place.offset)
                (length, _) = HEAD.unpack(file.read(HEAD.size))
                data = file.read(length)[32:]
            if hashlib.sha256(data).digest() == digest:
                if len(self._recent) >= RECENT:
                    self._recent.clear()
                self._recent[digest] = data
                return data
        return None

    def box(self, name: bytes) -> Box:
        """What became of the box of this name."""
        for place in self._boxes.places(name):
            record = self._box_record(place)
            if len(record) < BOX_HEAD.size or box_name(record[BOX_HEAD.size :]) != name:
                continue
            (_, slot) = BOX_HEAD.unpack_from(record)
            key = self._key(slot)
            if key == ERASED:
                return Box(None, erased=True)
            try:
                return Box(open_box(record[BOX_HEAD.size :], key))
            except LogError as error:
                return Box(None, problem=error.message)
        return NO_BOX

    def box_bytes(self, name: bytes) -> tuple[bytes, bytes] | None:
        """A box as it stands on the disk, and its key; None where it is not there or was erased."""
        for place in self._boxes.places(name):
            record = self._box_record(place)
            if box_name(record[BOX_HEAD.size :]) == name:
                key = self._key(BOX_HEAD.unpack_from(record)[1])
                return (record[BOX_HEAD.size :], key) if key != ERASED else None
        return None

    def digests(self) -> Iterator[bytes]:
        """The digests of all blobs."""
        for path in self._segments(blob_segment):
            with path.open("rb") as file:
                for found in scan_file(file, 0, path.stat().st_size):
                    if isinstance(found, Record):
                        yield found.data[:32]

    def _key(self, slot: int) -> bytes:
        """The key in a slot; zeros where it was destroyed or never was."""
        at = slot * KEY - self._keys[0]
        if not 0 <= at < len(self._keys[1]):
            self._keys, at = (slot * KEY, self._read_keys(slot * KEY)), 0
        return self._keys[1][at : at + KEY].ljust(KEY, b"\0")

    def _read_keys(self, offset: int) -> bytes:
        try:
            with (self.folder / KEYS).open("rb") as file:
                file.seek(offset)
                return file.read(WINDOW // 16)
        except (FileNotFoundError, OverflowError, OSError):
            return b""

    def _box_record(self, place: Place) -> bytes:
        """A box's record, by way of a window, because boxes stand in the order of the entries that name them."""
        segment, base, data = self._window
        at = place.offset - base
        if segment != place.segment or at < 0 or at + HEAD.size > len(data) or not _whole(data, at):
            with (self.folder / box_segment(place.segment)).open("rb") as file:
                file.seek(place.offset)
                data = file.read(WINDOW)
                if not _whole(data, 0):
                    data += file.read(MAX_RECORD)
            self._window = (place.segment, place.offset, data)
            at = 0
        (length, _) = HEAD.unpack_from(data, at)
        return data[at + HEAD.size : at + HEAD.size + length]

    def _scan_blobs(self) -> Iterator[tuple[bytes, Place]]:
        paths = self._segments(blob_segment)
        for number, path in enumerate(paths):
            with path.open("rb") as file:
                for found in scan_file(file, 0, path.stat().st_size):
                    if isinstance(found, Bad):
                        self._bad(path.name, found, last=number == len(paths) - 1)
                        continue
                    digest, data = found.data[:32], found.data[32:]
                    if hashlib.sha256(data).digest() != digest:
                        self.damage.append(Damage(path.name, found.offset, "a blob is not the one of its digest"))
                        continue
                    if data.startswith(STATEMENT):
                        self.statements.append(digest)
                    yield digest, Place(number, found.offset)

    def _scan_boxes(self) -> Iterator[tuple[bytes, Place]]:
        paths = self._segments(box_segment)
        for number, path in enumerate(paths):
            with path.open("rb") as file:
                for found in scan_file(file, 0, path.stat().st_size):
                    if isinstance(found, Bad):
                        self._bad(path.name, found, last=number == len(paths) - 1)
                    elif len(found.data) <= BOX_HEAD.size:
                        self.damage.append(Damage(path.name, found.offset, "this is no box"))
                    else:
                        yield found.data[:32], Place(number, found.offset)

    def _bad(self, name: str, found: Bad, *, last: bool) -> None:
        where = self.unfinished if found.unfinished and last else self.damage
        where.append(Damage(name, found.offset, found.reason, found.torn and last))

    def _leave_unfinished(self) -> None:
        """End before an entry that is only half there, unless the checkpoint covers it."""
        before = without_unfinished(self.folder, self._extents)
        if before == self._extents or count_entries(self.folder, before) < (self.said.size if self.said else 0):
            return
        missing = f"{self._extents[-1] - before[-1]} bytes of an entry that is not whole"
        self.unfinished.append(Damage(entry_segment(len(before) - 1), before[-1], missing, torn=True))
        self._extents = before

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────

    def file(self, name: str) -> bytes | None:
        """A file of the folder, such as a tile; None where it is not there."""
        return _bytes_of(self.folder / name)

    def _segments(self, name: Callable[[int], str]) -> list[Path]:
        """The files of one series; a number that is left out is damage, and what follows it is not read."""
        found = sorted(self.folder.glob(name(0).replace("0" * 8, "[0-9]" * 8)))
        for number, path in enumerate(found):
            if path.name != name(number):
                self.damage.append(Damage(name(number), 0, "this segment is missing and later ones are there"))
                return found[:number]
        return found


def read_log(folder: Path, early: Look | None = None) -> LogFolder:
    """Read a log's folder.

    Args:
        folder: A node's log.
        early: What :func:`look` gave before any of the logs that are judged together was read.

    Raises:
        LogError: ``log.missing``.
    """
    require_log(folder)
    return LogFolder(folder, early)


def require_log(folder: Path) -> None:
    """Return when a folder holds a log, without reading it.

    Raises:
        LogError: ``log.missing``.
    """
    if not (folder / entry_segment(0)).is_file():
        raise LogError("log.missing", f"{folder} holds no {entry_segment(0)}; name the folder of a node's log")


def _whole(data: bytes, at: int) -> bool:
    return at + HEAD.size <= len(data) and at + HEAD.size + HEAD.unpack_from(data, at)[0] <= len(data)


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
