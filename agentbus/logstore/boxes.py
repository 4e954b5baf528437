"""Boxes on the disk: their segments, and beside them the one file of keys, in which a key can be overwritten.

Rule 1: a key is written before its box, and a box before the entry that names it.
Rule 2: erasing writes zeros over the key in place and returns when the disk has them. The box stays and opens no more.
Rule 3: a node that only writes keeps nothing of what it wrote; once one box was looked for, 16 bytes of each.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from agentbus.crypto.box import ERASED, KEY, box_name, close_box, open_box
from agentbus.errors import LogError
from agentbus.log.index import Index, index_boxes
from agentbus.log.records import BOX_HEAD, KEYS, box_segment, encode_records
from agentbus.logstore.recovery import record_at
from agentbus.logstore.segments import Position, Segments, damaged

_POOL: Final = 64  # keys drawn at once


class Boxes:
    """The boxes of one log, written by its one writer.

    Args:
        folder: The log's.
        end: Where the last good box ends.
    """

    def __init__(self, folder: Path, end: Position) -> None:
        self._folder = folder
        self._segments = Segments(folder, box_segment, end)
        self._keys = os.open(folder / KEYS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._slots = -(-os.fstat(self._keys).st_size // KEY)  # a torn key at the end belongs to no box
        self._pending: dict[bytes, tuple[bytes, bytes]] = {}  # name → box, key
        self._pool: list[bytes] = []
        self._index = Index([])
        self._looking = threading.Lock()  # held while they grow; never waited for by who writes
        self.pending_bytes = 0

    @property
    def end(self) -> Position:
        """Where the last written box ends."""
        return self._segments.end

    def put(self, data: bytes) -> bytes:
        """Close ``data`` into a box that :meth:`write` writes; returns its name."""
        if not self._pool:
            drawn = os.urandom(KEY * _POOL)
            self._pool = [drawn[at : at + KEY] for at in range(0, len(drawn), KEY)]
        key = self._pool.pop()
        return self.adopt(close_box(data, key), key)

    def adopt(self, box: bytes, key: bytes) -> bytes:
        """Take a box that was closed elsewhere, with its key."""
        name = box_name(box)
        self._pending[name] = (box, key)
        self.pending_bytes += len(box)
        return name

    def write(self) -> None:
        """Write the boxes that wait: keys first.

        Raises:
            LogError: ``log.write``.
        """
        if not self._pending:
            return
        slot = self._slots
        try:
            _write_all(self._keys, b"".join(key for _, key in self._pending.values()), slot * KEY)
        except OSError as error:
            raise LogError("log.write", f"{self._folder}: {error.strerror}; free the disk and restart") from error
        self._slots += len(self._pending)
        head = BOX_HEAD.pack
        rows = [head(name, slot + at) + box for at, (name, (box, _)) in enumerate(self._pending.items())]
        self._segments.write(encode_records(rows))
        self._pending = {}
        self.pending_bytes = 0

    def sync(self) -> None:
        """Return when what was written would survive the loss of power.

        Raises:
            LogError: ``log.write``.
        """
        try:
            os.fdatasync(self._keys)
        except OSError as error:
            raise LogError("log.write", f"{self._folder}: {error.strerror}; replace the disk") from error
        self._segments.sync()

    def get(self, name: bytes) -> bytes | None:
        """What a box holds; None where there is none or its key was destroyed. Another thread may write meanwhile.

        Raises:
            LogError: ``log.damaged``, ``log.box``.
        """
        waiting = self._pending.get(name)
        if waiting is not None:
            return open_box(*waiting)
        found = self._find(name)
        if found is None:
            return None
        place, slot = found
        key = os.pread(self._keys, KEY, slot * KEY)
        if key == ERASED:
            return None
        box = record_at(self._folder, box_segment(place.segment), place)[BOX_HEAD.size :]
        if box_name(box) != name:
            raise LogError("log.damaged", f"{box_segment(place.segment)} at byte {place.offset}: another box")
        return open_box(box, key)

    def erase(self, name: bytes) -> bool:
        """Destroy a written box's key; False where there is none. Another thread may write meanwhile.

        Raises:
            LogError: ``log.write``.
        """
        found = self._find(name)
        if found is None or os.pread(self._keys, KEY, found[1] * KEY) == ERASED:
            return False
        try:
            _write_all(self._keys, ERASED, found[1] * KEY)
            os.fdatasync(self._keys)
        except OSError as error:
            raise LogError("log.write", f"{self._folder}: {error.strerror}; free the disk and try again") from error
        return True

    def close(self) -> None:
        """Let go of the files."""
        self._segments.close()
        os.close(self._keys)

    def _find(self, name: bytes) -> tuple[Position, int] | None:
        """Where a written box is, and the slot of its key."""
        with self._looking:
            last = self._segments.end.segment
            for number in range(self._index.last, last + 1):
                piece = index_boxes(self._folder / box_segment(number), number, number == last, self._index.end(number))
                if piece.damage:
                    raise damaged(*piece.damage[0][:3])
                if piece.digests:
                    self._index = self._index.grown([piece])
            for place in self._index.places(name):
                data = record_at(self._folder, box_segment(place.segment), Position(*place))
                found, slot = BOX_HEAD.unpack_from(data)
                if found == name:
                    return Position(*place), slot
            return None


def _write_all(fd: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        done = os.pwrite(fd, rest, offset)
        rest, offset = rest[done:], offset + done
