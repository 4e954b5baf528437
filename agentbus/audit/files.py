"""What lies beside logs: the directory's log of key events, and the notes of others that a log's state keeps."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from agentbus.errors import LogError

NAME: Final = "directory.sqlite"
CODES: Final = {
    "evidence.no_directory": "There is no directory.sqlite in the directory's folder.",
}


def read_events(folder: Path) -> list[bytes]:
    """The directory log's statements in order, from ``directory.sqlite``, opened read-only.

    Args:
        folder: The one that holds it, or the directory's data (``up --data``), in which that is ``directory``.

    Raises:
        LogError: ``evidence.no_directory``.
    """
    path = find_events(folder)
    try:
        return [bytes(row[0]) for row in _read(path, "SELECT statement FROM entries ORDER BY seq")]
    except sqlite3.Error as error:
        raise LogError("evidence.no_directory", f"{path}: {error}; name the directory's folder") from error


def find_events(folder: Path) -> Path:
    """The file of a directory's log, in ``folder`` or, where that is a directory's data, in ``directory`` there.

    Raises:
        LogError: ``evidence.no_directory``.
    """
    for path in (folder / NAME, folder / "directory" / NAME):
        if path.is_file():
            return path
    raise LogError("evidence.no_directory", f"{folder} holds no {NAME}; name the directory's folder")


def read_notes(folder: Path) -> list[bytes]:
    """The newest notes of other logs that a log's state keeps; none where there is no state, as in an export."""
    try:
        return [bytes(row[0]) for row in _read(folder / "state.sqlite", "SELECT note FROM peers ORDER BY origin")]
    except sqlite3.Error:
        return []


def _read(path: Path, query: str) -> list[tuple[bytes]]:
    error: sqlite3.Error | None = None
    for mode in ("mode=ro", "mode=ro&immutable=1"):  # a copy on read-only media cannot make the files that WAL needs
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as db:
                return db.execute(query).fetchall()
        except sqlite3.Error as found:
            error = found
            if getattr(found, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                break  # somebody writes it: read as if nobody did, it would be two states at once
    assert error is not None
    raise error
