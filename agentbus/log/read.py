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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from agentbus.crypto.box import ERASED
from agentbus.crypto.note import Checkpoint
from agentbus.errors import AgentBusError, LogError, Malformed
from agentbus.log.boxes import Box, BoxReader
from agentbus.log.checkpoint import read_checkpoint
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Entry, Message, Received, Sent
from agentbus.log.index import Damage, Index, Piece, index_blobs, index_boxes
from agentbus.log.outline import NOTHING, UNIT, Note, Outline, outline_of
from agentbus.log.records import HEAD, MAX_RECORD, Bad, Record, blob_segment, box_segment, entry_segment
from agentbus.log.scanning import (
    Place,
    Unit,
    count_entries,
    extents_of,
    is_plain,
    scan_file,
    stretches,
    units_of,
    without_unfinished,
)
from agentbus.wire.header import Header, decode_header
from agentbus.wire.limits import LIMITS

CODES: Final = {
    "log.missing": "There is no log in this folder.",
}

RECENT: Final = 256
"""Blobs that are remembered; with chains of at most 64 KiB below 16 MiB, and mostly below one."""


class Numbered(NamedTuple):
    """An entry's bytes and the position they stand at."""

    position: int
    data: bytes


class Logged(NamedTuple):
    """A message as an entry holds it."""

    entry: Message
    header: Header


class Indexed(NamedTuple):
    """One segment of blobs or boxes, to be indexed."""

    blobs: bool
    number: int
    last: bool


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

    def __init__(self, folder: Path, early: Look | None = None, before: LogFolder | None = None) -> None:
        early = early or look(folder)
        self.folder = folder
        self.born = (folder / entry_segment(0)).stat().st_ino
        """What another log in the same place does not have."""
        self.note = early.note
        self._gaps: list[Damage] = []
        self._cut: list[Damage] = []  # an entry at the very end that is only half there
        self._extents = [path.stat().st_size for path in self._segments(entry_segment)]
        self._early = early.extents
        self._before = before if before is not None and self._continues(before) else None
        self._leave_unfinished()
        self._recent: dict[bytes, bytes] = {}
        self._outline: Outline | None = None
        self._found: tuple[Index, Index] | None = None
        self._reader: BoxReader | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be read again, or was made for this process."""
        fresh: dict[str, Any] = {"_recent": {}, "_outline": None, "_found": None, "_reader": None, "_before": None}
        return {**self.__dict__, **fresh}

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

    @property
    def damage(self) -> list[Damage]:
        """Damage of the blobs, boxes and files; that of entries is found by :meth:`entries`."""
        pieces = self.pieces  # finding them finds what is missing between them
        return [*self._gaps, *(one for piece in pieces for one in piece.damage)]

    @property
    def unfinished(self) -> list[Damage]:
        """Records at the very end of their series that are only half there; an entry only where none is covered."""
        return [*self._cut, *(one for piece in self.pieces for one in piece.unfinished)]

    @property
    def statements(self) -> list[bytes]:
        """Digests of blobs that look like instance statements."""
        return [digest for piece in self._indexes[0].pieces for digest in piece.statements]

    # ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────

    def entries(self, unit: Unit | None = None, start: int = 0) -> Iterator[Numbered | Damage]:
        """The entries in order, or those of one unit, from position ``start`` on; and the damage between them."""
        position = unit.position if unit else 0
        for found in self.runs(unit):
            if isinstance(found, Damage):
                if position >= start:
                    yield found
                position += 1
                continue
            for at, data in enumerate(found, position):
                if at >= start:
                    yield Numbered(at, data)
            position += len(found)

    def runs(self, unit: Unit | None = None) -> Iterator[Sequence[bytes] | Damage]:
        """The same, as many entries at once as stand together in a window of their file.

        Behind a record with a bad checksum it goes on; where a length cannot be right, with the next segment.
        """
        first = unit.place if unit else Place(0, 0)
        left = unit.entries if unit else 1 << 63
        for number in range(first.segment, len(self._extents)):
            name, base = entry_segment(number), first.offset if number == first.segment else 0
            with (self.folder / name).open("rb") as file:
                for found in stretches(file, base, self._extents[number]):
                    if left <= 0:
                        return
                    if isinstance(found, Bad):
                        left -= 1
                        yield Damage(name, found.offset, found.reason, found.torn and number == len(self._extents) - 1)
                        continue
                    records = found.records[:left]
                    left -= len(records)
                    yield records

    @property
    def extents(self) -> list[int]:
        """How far each segment of entries was read."""
        return list(self._extents)

    @property
    def settled(self) -> int:
        """How many entries were here before any of the logs that are judged together was read.

        What stands behind them in time is in what was read of the other logs, however fast all are written.
        """
        early = without_unfinished(self.folder, self._early)
        return self.size if early == self._extents else count_entries(self.folder, early)

    @property
    def size(self) -> int:
        """How many entries were read."""
        return self.outline().entries

    def end_before(self, position: int) -> None:
        """Leave out the entries from this position on."""
        behind = self.units(position)[1:2] if position else self.units(1)[:1]
        for unit in behind:
            self._extents = [*self._extents[: unit.place.segment], unit.place.offset]
            self._outline = None

    def units(self, count: int) -> list[Unit]:
        """All entries in parts of ``count``, found by hopping from length to length."""
        return self.outline().units if count == UNIT else units_of(self.folder, self._extents, count)

    def after(self, position: int) -> Iterator[Numbered | Damage]:
        """The entries from a position on, and the damage between them."""
        for unit in self.outline().units[position // UNIT :]:
            yield from self.entries(unit, position)

    def later(self) -> Iterator[bytes]:
        """The entries that were written since the extents were taken, as far as they are whole now."""
        last = len(self._extents) - 1
        for number, path in list(enumerate(self._segments(entry_segment)))[max(last, 0) :]:
            with path.open("rb") as file:
                for found in scan_file(file, self._extents[last] if number == last else 0, path.stat().st_size):
                    if isinstance(found, Record):
                        yield found.data

    def decoded(self, start: int = 0) -> Iterator[Entry]:
        """The entries that can be read, from position ``start`` on; the others are the verdicts' business."""
        for item in self.after(start):
            if isinstance(item, Numbered):
                with suppress(AgentBusError):
                    yield decode_entry(item.data)

    def messages(self, unit: Unit | None = None, start: int = 0) -> Iterator[Logged]:
        """The messages among them, or among those of one unit, as far as entry and header can be read."""
        for item in self.entries(unit) if unit else self.after(start):
            if isinstance(item, Numbered):
                with suppress(AgentBusError):
                    entry = decode_entry(item.data)
                    if isinstance(entry, Sent | Received):
                        yield Logged(entry, decode_header(entry.header, LIMITS))

    def entry_at(self, position: int) -> bytes | None:
        """One entry, or None where it is not there or damaged."""
        found = next(self.after(position), None)
        return found.data if isinstance(found, Numbered) else None

    def notes(self) -> list[Note]:
        """The checkpoints of other logs that entries keep.

        An entry is read as far as it has to be, and whether it is covered by this log's checkpoint is not said here.
        """
        return self.outline().notes

    def outline(self) -> Outline:
        """How many entries there are and where, found by hopping from length to length; remembered."""
        if self._outline is None:
            before = self._before.outline() if self._before is not None else NOTHING
            self._outline = outline_of(self.folder, self._extents, before)
        return self._outline

    # ── reading on ───────────────────────────────────────────────────────────────────────────────────────────────

    def grown(self) -> LogFolder:
        """This log as it is now; only what was written since is read.

        It is read from its beginning where it is not this one that goes on: it has become shorter, or there is damage
        in what was read, which is looked at again rather than passed on.
        """
        now = LogFolder(self.folder, before=self)
        if now._before is not None:
            now._read_on(now._before)
        return now

    def _continues(self, before: LogFolder) -> bool:
        """Whether this is the log of ``before``, at least as long, and nothing was found wrong with what that read."""
        was, now = before._extents, self._extents
        if self.born != before.born or before.damage or not before.outline().whole or len(now) < len(was):
            return False
        return was[:-1] == now[: len(was) - 1] and was[-1] <= now[len(was) - 1]

    def _read_on(self, before: LogFolder) -> None:
        """Count and index what is new, and let go of what that began with."""
        indexes = []
        self.outline()
        for index, blobs in zip(before._indexes, (True, False), strict=True):
            parts = [part for part in self.to_index() if part.blobs is blobs]
            behind = [(part, index.end(part.number)) for part in parts[index.last :]]
            indexes.append(index.grown(self.index(part, start) for part, start in behind))
        self._found = indexes[0], indexes[1]
        self._recent, self._before = dict(before._recent), None

    # ── blobs and boxes ──────────────────────────────────────────────────────────────────────────────────────────

    def blob(self, digest: bytes) -> bytes | None:
        """The blob of this digest, or None. The newest are remembered: chains and handovers are asked for again."""
        known = self._recent.get(digest)
        if known is not None:
            return known
        for place in self._indexes[0].places(digest):
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

    def digests(self) -> Iterator[bytes]:
        """The digests of all blobs."""
        for path in self._segments(blob_segment):
            with path.open("rb") as file:
                for found in scan_file(file, 0, path.stat().st_size):
                    if isinstance(found, Record):
                        yield found.data[:32]

    def box(self, name: bytes) -> Box:
        """What became of the box of this name."""
        return self.boxes.box(name)

    def box_bytes(self, name: bytes) -> tuple[bytes, bytes] | None:
        """A box as it stands on the disk, and its key; None where it is not there or was erased."""
        found = self.boxes.find(name)
        return found if found is not None and found[1] != ERASED else None

    @property
    def boxes(self) -> BoxReader:
        """What opens the boxes."""
        if self._reader is None:
            self._reader = BoxReader(self.folder, self._indexes[1])
        return self._reader

    @property
    def pieces(self) -> list[Piece]:
        """The index of each segment, in the order of :meth:`to_index`; of a log that was read on, perhaps several."""
        return [piece for index in self._indexes for piece in index.pieces]

    @property
    def _indexes(self) -> tuple[Index, Index]:
        """Of the blobs, and of the boxes."""
        if self._found is None:
            self.adopt((part, self.index(part)) for part in self.to_index())
        assert self._found is not None
        return self._found

    def to_index(self) -> list[Indexed]:
        """The segments of blobs and boxes; each can be indexed by another process."""
        found = []
        for blobs, name in ((True, blob_segment), (False, box_segment)):
            count = len(self._segments(name))
            found += [Indexed(blobs, number, number == count - 1) for number in range(count)]
        return found

    def index(self, part: Indexed, start: int = 0) -> Piece:
        """The index of one segment, from where a record of it begins."""
        if part.blobs:
            return index_blobs(self.folder / blob_segment(part.number), part.number, part.last, start)
        return index_boxes(self.folder / box_segment(part.number), part.number, part.last, start)

    def adopt(self, found: Iterable[tuple[Indexed, Piece]]) -> None:
        """Use the index that others made of the parts that :meth:`to_index` named."""
        pieces = list(found)
        blobs, boxes = ([piece for part, piece in pieces if part.blobs is one] for one in (True, False))
        self._found = Index(blobs), Index(boxes)

    def _leave_unfinished(self) -> None:
        """End before an entry that is only half there, unless the checkpoint covers it."""
        known = self._before.outline() if self._before is not None else NOTHING
        before = without_unfinished(self.folder, self._extents, known.extents)
        if before == self._extents:
            return
        if outline_of(self.folder, before, known).entries < (self.said.size if self.said else 0):
            return
        missing = f"{self._extents[-1] - before[-1]} bytes of an entry that is not whole"
        self._cut.append(Damage(entry_segment(len(before) - 1), before[-1], missing, torn=True))
        self._extents = before

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────

    def file(self, name: str) -> bytes | None:
        """A file of the folder, such as a tile; None where it is not there."""
        return _bytes_of(self.folder / name)

    def _segments(self, name: Callable[[int], str]) -> list[Path]:
        """The files of one series; a number that is left out is damage, and what follows it is not read."""
        found = sorted(self.folder.glob(name(0).replace("0" * 8, "[0-9]" * 8)))
        for number, path in enumerate(found):
            if path.name != name(number) or not is_plain(path):
                missing = "this segment is missing and later ones are there"
                gap = Damage(name(number), 0, missing if path.name != name(number) else "this is a link, or no file")
                if gap not in self._gaps:
                    self._gaps.append(gap)
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
    if not is_plain(folder / entry_segment(0)):
        raise LogError("log.missing", f"{folder} holds no {entry_segment(0)}; name the folder of a node's log")


def _bytes_of(path: Path) -> bytes | None:
    """A small file of a log; None where there is none, or something that no log has under this name."""
    if not is_plain(path):
        return None
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RECORD + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return data if len(data) <= MAX_RECORD else None
