"""A directory's folder as an auditor is given it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path


def write_directory(folder: Path, entries: Sequence[bytes]) -> Path:
    """The log of key events, in the file that a directory keeps it in."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / "directory.sqlite")) as db, db:
        db.execute("CREATE TABLE entries(seq INTEGER PRIMARY KEY, statement BLOB NOT NULL)")
        db.executemany("INSERT INTO entries VALUES (?, ?)", enumerate(entries))
    return folder
