"""Writing segment files: append, rotate, make durable. What stands in them is :mod:`agentbus.log.records`' business."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from agentbus.disk import sync_folder
from agentbus.errors import LogError
from agentbus.log.records import SEGMENT, Bad, Record, scan

CODES: Final = {
    "log.write": "The log could not be written: the disk is full, read-only or broken. Nothing more is acknowledged.",
    "log.damaged": "A record that was signed over cannot be read. The log stays as it is, read-only; keep it as"
    " evidence and open a new epoch.",
}


class Position(NamedTuple):
    """A place between two records."""

    segment: int
    offset: int


class Segments:
    """The files of one series, written at the end only.

    Args:
        folder: Where they are.
        name: From a segment's number to its file name.
        end: Where the last good record ends; what lies beyond has been dealt with.
    """

    def __init__(self, folder: Path, name: Callable[[int], str], end: Position) -> None:
        self.end = end
        self._folder = folder
        self._name = name
        self._fd = self._open(end.segment)
        self._synced = end.segment
        self._named = False  # the names of the files are known to be durable

    def write(self, data: bytes) -> Position:
        """Write records in one piece and return where they begin.

        Raises:
            LogError: ``log.write``; what was written of them is taken back where the disk lets us.
        """
        number, offset = self.end
        try:
            if offset and offset + len(data) > SEGMENT:
                fd, number, offset = self._open(number + 1), number + 1, 0
                os.close(self._fd)
                self._fd = fd
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            self._take_back(offset)
            raise LogError("log.write", f"{self._folder}: {error.strerror}; free the disk and restart") from error
        self.end = Position(number, offset + len(data))
        return Position(number, offset)

    def sync(self) -> None:
        """Return when all that was written would survive the loss of power.

        Raises:
            LogError: ``log.write``. It is fatal: after a failed fsync nobody knows what is on the disk.
        """
        last = self.end.segment
        try:
            for number in range(self._synced, last + 1):
                fd = os.open(self._folder / self._name(number), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fdatasync(fd)
                finally:
                    os.close(fd)
            if last != self._synced or not self._named:
                sync_folder(self._folder)
                self._named = True
        except OSError as error:
            raise LogError("log.write", f"{self._folder}: {error.strerror}; replace the disk") from error
        self._synced = last

    def read(self, start: Position, end: Position) -> Iterator[tuple[int, Record]]:
        """The records between two positions, from the disk, each with its segment's number.

        Raises:
            LogError: ``log.damaged``.
        """
        for number in range(start.segment, end.segment + 1):
            base = start.offset if number == start.segment else 0
            with (self._folder / self._name(number)).open("rb") as file:
                file.seek(base)
                data = file.read(end.offset - base if number == end.segment else -1)
            for found in scan(data):
                if isinstance(found, Bad):
                    raise damaged(self._name(number), base + found.offset, found.reason)
                yield number, found._replace(offset=base + found.offset)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def _open(self, number: int) -> int:
        path = self._folder / self._name(number)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _take_back(self, offset: int) -> None:
        try:
            os.ftruncate(self._fd, offset)
        except OSError:
            return  # the record is torn now; opening the log again cuts it


def damaged(name: str, offset: int, reason: str) -> LogError:
    """The error about one record."""
    message = f"{name} at byte {offset}: {reason}; nothing was changed, keep the folder and open a new epoch"
    return LogError("log.damaged", message, details={"segment": name, "offset": offset})
