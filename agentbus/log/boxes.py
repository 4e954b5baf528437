"""Reading boxes where they stand, without believing their names.

Boxes stand in the order of the entries that name them. So the one behind the last is looked at first, through a window
of its file, and only where it is not the one, the index is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from agentbus.crypto.box import ERASED, KEY, open_box
from agentbus.errors import LogError
from agentbus.log.index import Index
from agentbus.log.records import BOX_HEAD, HEAD, KEYS, MAX_RECORD, box_segment
from agentbus.log.scanning import WINDOW, Place, is_plain

_START: Final = Struct(HEAD.format + BOX_HEAD.format.removeprefix(">"))
"""Before a box: its record's length and checksum, its name, and its key's slot."""


class Box(NamedTuple):
    """What became of a box: its content, or None with whether its key was erased, or what is wrong with it."""

    data: bytes | None
    erased: bool = False
    problem: str = ""


NO_BOX: Final = Box(None)


class BoxReader:
    """Opens the boxes of one folder.

    Args:
        folder: The log's.
        index: Where its boxes are.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self._folder = folder
        self._index = index
        self._window: tuple[int, int, bytes] = (0, 0, b"")  # segment, offset, bytes
        self._next = 0  # within the window: behind the box that was found last
        self._keys: tuple[int, bytes] = (0, b"")  # offset, bytes

    def begin(self) -> None:
        """Forget where the last box was: what is found from here on depends on nothing before."""
        self._next = len(self._window[2])

    def box(self, name: bytes) -> Box:
        """What became of the box of this name."""
        found = self.find(name)
        if found is None:
            return NO_BOX
        box, key = found
        if key == ERASED:
            return Box(None, erased=True)
        try:
            return Box(open_box(box, key))
        except LogError as error:
            return Box(None, problem=error.message)

    def contents(self, names: Sequence[bytes | None]) -> list[bytes | None]:
        """What several boxes hold, in order; None where :meth:`box` says why it cannot be had."""
        found = [self.find(name) if name is not None else None for name in names]
        contents: list[bytes | None] = []
        for one in found:
            if one is None or one[1] == ERASED:
                contents.append(None)
                continue
            try:
                contents.append(open_box(*one))
            except LogError:
                contents.append(None)
        return contents

    def find(self, name: bytes) -> tuple[bytes, bytes] | None:
        """The box of this name as it stands on the disk, and its key, zeros where it was erased; None: no such box."""
        if (found := self._here(name, self._next)) is not None:
            return found
        for place in self._index.places(name):
            if (found := self._here(name, self._move(place))) is not None:
                return found
        return None

    def _here(self, name: bytes, at: int) -> tuple[bytes, bytes] | None:
        """The box at a place of the window and its key, if it is whole and the one of this name."""
        window = self._window[2]
        start = at + _START.size
        if start > len(window):
            return None
        length, _, named, slot = _START.unpack_from(window, at)
        end = at + HEAD.size + length
        if named != name or end > len(window):
            return None
        box = window[start:end]
        if sha256(box).digest() != name:
            return None
        self._next = end
        base, keys = self._keys
        at = slot * KEY - base
        return box, keys[at : at + KEY] if 0 <= at <= len(keys) - KEY else self._key(slot)

    def _move(self, place: Place) -> int:
        """Where in the window a record begins; another window, where it does not stand whole in this one."""
        segment, base, data = self._window
        at = place.offset - base
        if segment != place.segment or not at >= 0 or not _whole(data, at):
            with (self._folder / box_segment(place.segment)).open("rb") as file:
                file.seek(place.offset)
                data = file.read(WINDOW)
                if not _whole(data, 0):
                    data += file.read(MAX_RECORD)
            self._window, at = (place.segment, place.offset, data), 0
        return at

    def _key(self, slot: int) -> bytes:
        """The key in a slot; zeros where it was destroyed or never was."""
        keys = self._read_keys(slot * KEY)
        self._keys = (slot * KEY, keys)
        return keys[:KEY].ljust(KEY, b"\0")

    def _read_keys(self, offset: int) -> bytes:
        try:
            if not is_plain(self._folder / KEYS):
                return b""
            with (self._folder / KEYS).open("rb") as file:
                file.seek(offset)
                return file.read(WINDOW // 16)
        except (FileNotFoundError, OverflowError, OSError):
            return b""


def _whole(data: bytes, at: int) -> bool:
    return at + HEAD.size <= len(data) and at + HEAD.size + HEAD.unpack_from(data, at)[0] <= len(data)
