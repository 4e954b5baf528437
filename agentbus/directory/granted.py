"""The grants that the directory signed and that still count: what ends with a principal when it is retired.

Standing grants are given again every half hour, so they are no entries of the log, and nobody waits for the disk with
each: a row is written before the grant is handed out, which a killed process does not lose. A loss of power may take
what was granted in the last second.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

from agentbus.errors import LogError

CODES: Final = {
    "log.directory_grants": "The directory cannot write down which grants it signed, so it signs none; free the disk.",
}

FILE: Final = "granted.sqlite"


class Granted(NamedTuple):
    """A grant that the directory signed."""

    link: bytes  # its digest
    holder: str
    subject: str
    ends: int
    instance: bytes  # handle of the instance that a standing grant is for, else empty


class GrantTable:
    """One SQLite file.

    Args:
        folder: Where ``granted.sqlite`` lies; None keeps it in memory.

    Raises:
        LogError: ``log.directory_grants``.
    """

    def __init__(self, folder: Path | None) -> None:
        self._dirty = False
        try:
            path = ":memory:" if folder is None else folder / FILE
            self._db = sqlite3.connect(path, isolation_level=None)
            if folder is not None:
                os.chmod(folder / FILE, 0o600)  # noqa: PTH101
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS grants (link BLOB PRIMARY KEY, holder TEXT NOT NULL,"
                " subject TEXT NOT NULL, ends INTEGER NOT NULL, instance BLOB NOT NULL)"
            )
            self._db.execute("CREATE INDEX IF NOT EXISTS grants_end ON grants (ends)")
        except (sqlite3.Error, OSError) as error:
            raise LogError("log.directory_grants", f"{folder}: {error}") from error

    def add(self, granted: Granted) -> None:
        """Keep one; a process that is killed afterwards has kept it.

        Raises:
            LogError: ``log.directory_grants``.
        """
        try:
            self._db.execute("INSERT OR REPLACE INTO grants VALUES (?, ?, ?, ?, ?)", granted)
        except sqlite3.Error as error:
            raise LogError("log.directory_grants", f"a grant could not be written down: {error}") from error
        self._dirty = True

    def of(self, principal: str, now: int) -> list[Granted]:
        """Those of which a principal is holder or subject, and that have not ended by ``now``, by their digest."""
        rows = self._db.execute(
            "SELECT link, holder, subject, ends, instance FROM grants WHERE ends > ? AND (holder = ? OR subject = ?)"
            " ORDER BY link", (now, principal, principal),
        )  # fmt: skip
        return [Granted(*row) for row in rows]

    def forget(self, now: int) -> None:
        """Drop what ended by itself, and have the rest on the disk."""
        try:
            self._db.execute("DELETE FROM grants WHERE ends <= ?", (now,))
            if self._dirty:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._dirty = False
        except sqlite3.Error:
            return  # a disk that is full: the next grant says so to whoever asked for it

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
