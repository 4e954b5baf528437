"""The one row that says how far a log was signed: {origin, size, root, where that is}, in SQLite with full sync.

It changes only by compare-and-swap from what this process last knew: whoever finds another value has met a fork.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from agentbus.crypto.merkle import empty_root
from agentbus.errors import LogError
from agentbus.logstore.recovery import Covered
from agentbus.logstore.segments import Position

CODES: Final = {
    "log.origin": "This folder holds the log of another origin.",
    "log.state": "The log's state row cannot be read or written.",
}

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS state (
    id INTEGER PRIMARY KEY CHECK (id = 1), origin TEXT NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL,
    entries_segment INTEGER NOT NULL, entries_offset INTEGER NOT NULL,
    blobs_segment INTEGER NOT NULL, blobs_offset INTEGER NOT NULL
) STRICT
"""


class StateRow:
    """The row, kept open by the one writer.

    Raises:
        LogError: ``log.origin``, ``log.state``.
    """

    def __init__(self, path: Path, origin: str) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise LogError("log.state", f"{path}: {error}") from error
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO state VALUES (1, ?, 0, ?, 0, 0, 0, 0)", (origin, empty_root()))
            (found,) = self._db.execute("SELECT origin FROM state").fetchone()
        except sqlite3.Error as error:
            self._db.close()
            raise LogError("log.state", f"{path}: {error}") from error
        if found != origin:
            self._db.close()
            raise LogError("log.origin", f"{path.parent} is the log of {found}, not of {origin}; choose another folder")

    def read(self) -> Covered:
        """What was signed last."""
        row = self._db.execute(
            "SELECT size, root, entries_segment, entries_offset, blobs_segment, blobs_offset FROM state"
        ).fetchone()
        return Covered(row[0], row[1], Position(row[2], row[3]), Position(row[4], row[5]))

    def swap(self, old: Covered, new: Covered) -> None:
        """Store ``new`` where ``old`` stands.

        Raises:
            LogError: ``log.forked`` where something else stands, ``log.state``.
        """
        try:
            done = self._db.execute(
                "UPDATE state SET size = ?, root = ?, entries_segment = ?, entries_offset = ?, blobs_segment = ?,"
                " blobs_offset = ? WHERE id = 1 AND size = ? AND root = ?",
                (new.size, new.root, *new.entries, *new.blobs, old.size, old.root),
            ).rowcount
        except sqlite3.Error as error:
            raise LogError("log.state", f"the state could not be stored: {error}") from error
        if done != 1:
            raise LogError("log.forked", f"size {old.size} is not what is stored; another process wrote this log")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
