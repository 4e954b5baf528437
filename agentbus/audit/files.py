"""What lies beside logs: the directory's log of key events, and the notes of others that a log's state keeps."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from agentbus.errors import LogError
from agentbus.log.records import MAX_RECORD
from agentbus.log.scanning import is_plain

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
        return _read(path, "SELECT statement FROM entries ORDER BY seq")
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
    path = folder / "state.sqlite"
    try:
        return _read(path, "SELECT note FROM peers ORDER BY origin") if is_plain(path) else []
    except sqlite3.Error:
        return []


def _only_tables(action: int, _: str | None, __: str | None, ___: str | None, source: str | None) -> int:
    """Allow nothing but reading columns of tables: what a view does, or a column that is computed, may never end."""
    reads = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ) and source is None
    return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY


def _read(path: Path, query: str) -> list[bytes]:
    """One column of a table. The file may be anybody's: a view, a function or a number is not what was asked for."""
    error: sqlite3.Error | None = None
    for mode in ("mode=ro", "mode=ro&immutable=1"):  # a copy on read-only media cannot make the files that WAL needs
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as db:
                db.set_authorizer(_only_tables)
                db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_RECORD)
                rows = [row[0] for row in db.execute(query)]
            if not all(isinstance(row, bytes) for row in rows):
                raise sqlite3.DataError("a value is not of the type that it has there")
            return rows
        except sqlite3.Error as found:
            error = found
            if getattr(found, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                break  # somebody writes it: read as if nobody did, it would be two states at once
    assert error is not None
    raise error
