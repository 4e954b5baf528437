"""Reading a log's folder without writing to it, locking it or believing it.

Rule 1: damage is reported with its place and reading goes on behind it where that is possible: an auditor wants to know
all of it. Rule 2: nothing here is verified but that a blob is the one of its digest. Rule 3: the entries' extent is
taken before the blobs are read, because a writer puts blobs first: so a log that is being written reads whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from agentbus.crypto.note import Checkpoint
from agentbus.errors import LogError, Malformed
from agentbus.log.checkpoint import read_checkpoint
from agentbus.log.records import HEAD, Bad, blob_segment, entry_segment, scan

CODES: Final = {
    "log.missing": "There is no log in this folder.",
}

STATEMENT: Final = b"\x95\x03"
"""How an encoded instance statement begins: an array of five, the first of them ``statements.INSTANCE``."""


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


class _Place(NamedTuple):
    segment: int
    offset: int


class LogFolder:
    """What a folder holds. Make one with :func:`read_log`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.note = _bytes_of(folder / "checkpoint")
        self.damage: list[Damage] = []
        """Damage of the blobs and of the files; that of entries is found by :meth:`entries`."""
        self.statements: list[bytes] = []
        """Digests of blobs that look like instance statements."""
        self._extents = [path.stat().st_size for path in self._segments(entry_segment)]
        self._places: dict[bytes, _Place] = {}
        self._index_blobs()

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

    def entries(self) -> Iterator[Numbered | Damage]:
        """The entries in order, and the damage between them. Behind a record with a bad checksum it goes on."""
        position = 0
        for number, extent in enumerate(self._extents):
            name = entry_segment(number)
            with (self.folder / name).open("rb") as file:
                data = file.read(extent)
            for found in scan(data):
                if isinstance(found, Bad):
                    yield Damage(name, found.offset, found.reason, found.torn and number == len(self._extents) - 1)
                else:
                    yield Numbered(position, found.data)
                position += 1

    def blob(self, digest: bytes) -> bytes | None:
        """The blob of this digest, or None."""
        place = self._places.get(digest)
        if place is None:
            return None
        with (self.folder / blob_segment(place.segment)).open("rb") as file:
            file.seek(place.offset)
            (length, _) = HEAD.unpack(file.read(HEAD.size))
            data = file.read(length)[32:]
        return data if hashlib.sha256(data).digest() == digest else None

    def digests(self) -> Iterator[bytes]:
        """The digests of all blobs."""
        return iter(self._places)

    def _index_blobs(self) -> None:
        paths = self._segments(blob_segment)
        for number, path in enumerate(paths):
            for found in scan(path.read_bytes()):
                if isinstance(found, Bad):
                    torn = found.torn and number == len(paths) - 1
                    self.damage.append(Damage(path.name, found.offset, found.reason, torn))
                    continue
                digest, data = found.data[:32], found.data[32:]
                if hashlib.sha256(data).digest() != digest:
                    self.damage.append(Damage(path.name, found.offset, "a blob is not the one of its digest"))
                    continue
                self._places.setdefault(digest, _Place(number, found.offset))
                if data.startswith(STATEMENT):
                    self.statements.append(digest)

    def _segments(self, name: Callable[[int], str]) -> list[Path]:
        """The files of one series; a number that is left out is damage, and what follows it is not read."""
        found = sorted(self.folder.glob(name(0).replace("0" * 8, "[0-9]" * 8)))
        for number, path in enumerate(found):
            if path.name != name(number):
                self.damage.append(Damage(name(number), 0, "this segment is missing and later ones are there"))
                return found[:number]
        return found


def read_log(folder: Path) -> LogFolder:
    """Read a log's folder.

    Raises:
        LogError: ``log.missing``.
    """
    if not (folder / entry_segment(0)).is_file():
        raise LogError("log.missing", f"{folder} holds no {entry_segment(0)}; name the folder of a node's log")
    return LogFolder(folder)


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
