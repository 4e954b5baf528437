"""The one row that says how far a log was signed: {origin, size, root, where that is}, in SQLite with full sync.

It changes only by compare-and-swap from what this process last knew: whoever finds another value has met a fork.
Beside it stand the newest notes of other nodes' logs: marks that their logs must have reached, kept outside of them.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from agentbus.crypto.merkle import empty_root
from agentbus.errors import LogError
from agentbus.log.base import KeptNote
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
    blobs_segment INTEGER NOT NULL, blobs_offset INTEGER NOT NULL,
    boxes_segment INTEGER NOT NULL, boxes_offset INTEGER NOT NULL,
    boot TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS peers (
    origin TEXT NOT NULL, log_key BLOB NOT NULL, by TEXT NOT NULL, size INTEGER NOT NULL, note BLOB NOT NULL,
    PRIMARY KEY (origin, log_key)
) STRICT;
"""
_NOTES: Final = "SELECT origin, log_key, by, size, note FROM peers ORDER BY origin, log_key"


class StateRow:
    """The row, kept open by the one writer.

    Args:
        path: The SQLite file.
        origin: Of the log.
        boot: Names this run of the machine; :attr:`booted` is the one that wrote here last.

    Raises:
        LogError: ``log.origin``, ``log.state``.
    """

    def __init__(self, path: Path, origin: str, boot: str) -> None:
        self._folder = path.parent
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise LogError("log.state", f"{path}: {error}") from error
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
            first = (origin, empty_root(), boot)
            self._db.execute("INSERT OR IGNORE INTO state VALUES (1, ?, 0, ?, 0, 0, 0, 0, 0, 0, ?)", first)
            found, self.booted = self._db.execute("SELECT origin, boot FROM state").fetchone()
        except sqlite3.Error as error:
            self._db.close()
            raise LogError("log.state", f"{path}: {error}") from error
        if found != origin:
            self._db.close()
            raise LogError("log.origin", f"{path.parent} is the log of {found}, not of {origin}; choose another folder")

    def read(self) -> Covered:
        """What was signed last.

        Raises:
            LogError: ``log.state``.
        """
        try:
            row = self._db.execute(
                "SELECT size, root, entries_segment, entries_offset, blobs_segment, blobs_offset, boxes_segment,"
                " boxes_offset FROM state"
            ).fetchone()
        except sqlite3.Error as error:
            raise LogError("log.state", f"{self._folder}: {error}") from error
        return Covered(row[0], row[1], Position(row[2], row[3]), Position(row[4], row[5]), Position(row[6], row[7]))

    def swap(self, old: Covered, new: Covered) -> None:
        """Store ``new`` where ``old`` stands.

        Raises:
            LogError: ``log.forked`` where something else stands, ``log.state``.
        """
        try:
            done = self._db.execute(
                "UPDATE state SET size = ?, root = ?, entries_segment = ?, entries_offset = ?, blobs_segment = ?,"
                " blobs_offset = ?, boxes_segment = ?, boxes_offset = ? WHERE id = 1 AND size = ? AND root = ?",
                (new.size, new.root, *new.entries, *new.blobs, *new.boxes, old.size, old.root),
            ).rowcount
        except sqlite3.Error as error:
            raise LogError("log.state", f"the state could not be stored: {error}") from error
        if done != 1:
            raise LogError("log.forked", f"size {old.size} is not what is stored; another process wrote this log")

    def started(self, boot: str) -> None:
        """From now on this run of the machine writes here.

        Raises:
            LogError: ``log.state``.
        """
        self._run("UPDATE state SET boot = ?", boot)

    def keep_note(self, kept: KeptNote) -> None:
        """Keep the newest note of another log.

        Raises:
            LogError: ``log.state``.
        """
        self._run(
            "INSERT INTO peers VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin, log_key) DO UPDATE SET"
            " size = excluded.size, note = excluded.note WHERE excluded.size > size",
            *kept,
        )

    def drop_note(self, origin: str, log_key: bytes) -> None:
        """Forget a log's newest note.

        Raises:
            LogError: ``log.state``.
        """
        self._run("DELETE FROM peers WHERE origin = ? AND log_key = ?", origin, log_key)

    def kept_notes(self) -> list[KeptNote]:
        """The newest notes of other logs."""
        return [KeptNote(*row) for row in self._db.execute(_NOTES)]

    def _run(self, statement: str, *values: object) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise LogError("log.state", f"{self._folder}: {error}; free the disk and restart") from error

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def read_notes(folder: Path) -> list[KeptNote]:
    """The notes that a log's folder keeps of others, read without writing; none where there is no state.

    Raises:
        sqlite3.Error: the state cannot be read.
    """
    path = folder / "state.sqlite"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        return [KeptNote(*row) for row in db.execute(_NOTES)]
