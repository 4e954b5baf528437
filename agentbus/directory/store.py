"""Where the directory keeps its log: one table of signed entries, append-only.

The state is a fold of the entries, so nothing else has to be kept; another schema would fold again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol

from agentbus.errors import LogError

CODES: Final = {
    "log.directory_gap": "The directory's log on disk has a gap or another writer; nothing was written.",
    "log.directory_unreadable": "The directory's database cannot be opened; is the path right and the file readable?",
}

FILE: Final = "directory.sqlite"


class Store(Protocol):
    """Entries in order; what ``append`` returned from is kept."""

    @property
    def folder(self) -> Path | None:
        """Where it lies; None in memory."""
        ...

    def append(self, seq: int, entries: Sequence[bytes], *, token: bytes | None = None) -> bool:
        """Keep entries ``seq``, ``seq + 1``, … all or none, and use up an enrolment token with them.

        Returns:
            False: the token was used before, so nothing was kept.
        """
        ...

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """The entries from ``start`` on."""
        ...

    def size(self) -> int:
        """How many entries there are."""
        ...

    def add_token(self, curve_key: bytes, principal: str, expires: int) -> None:
        """Keep an enrolment token's public half."""
        ...

    def token(self, curve_key: bytes) -> tuple[str, int] | None:
        """(principal, expires) of an unused token."""
        ...

    def cancel_tokens(self, principal: str, now: int) -> list[bytes]:
        """Use up a principal's tokens; the CURVE keys of those that were still good at ``now``."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class SqliteStore:
    """A :class:`Store` in one SQLite file. Whoever reads it holds up nobody who writes it (WAL).

    Args:
        folder: Where ``directory.sqlite`` lies; None keeps it in memory.
        read_only: For auditors.
        durable: Wait for the disk with every append. A mirror need not: what a loss of power takes, it is told again.

    Raises:
        LogError: ``log.directory_unreadable``.
    """

    def __init__(self, folder: Path | None, *, read_only: bool = False, durable: bool = True) -> None:
        self.folder = folder
        with _readable(folder, "cannot be opened"):
            if folder is None:
                self._db = sqlite3.connect(":memory:", isolation_level=None)
            elif read_only:
                self._db = _open_to_read(folder / FILE)
            else:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._db = sqlite3.connect(folder / FILE, isolation_level=None)
                os.chmod(folder / FILE, 0o600)  # noqa: PTH101
            if not read_only:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS entries (seq INTEGER PRIMARY KEY, statement BLOB NOT NULL)"
                )
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS tokens (curve_key BLOB PRIMARY KEY, principal TEXT NOT NULL,"
                    " expires INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0)"
                )

    def append(self, seq: int, entries: Sequence[bytes], *, token: bytes | None = None) -> bool:
        with self._readable("cannot be written; free the disk, and start again"):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                if token is not None and not self._take_token(token):
                    self._db.execute("ROLLBACK")
                    return False
                count = self.size()
                if count != seq:
                    raise LogError("log.directory_gap", f"{count} entries on disk, {seq} expected: another writer?")
                self._db.executemany("INSERT INTO entries VALUES (?, ?)", enumerate(entries, seq))
                self._db.execute("COMMIT")
                return True
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def entries(self, start: int = 0) -> Iterator[bytes]:
        with self._readable("cannot be read"):
            rows = self._db.execute("SELECT seq, statement FROM entries WHERE seq >= ? ORDER BY seq", (start,))
            for at, (seq, data) in enumerate(rows, start):
                if seq != at:
                    raise LogError("log.directory_gap", f"entry {at} is missing")
                if type(data) is not bytes:
                    raise LogError("log.directory_unreadable", f"entry {at} is no statement")
                yield data

    def size(self) -> int:
        with self._readable("cannot be read"):
            row = self._db.execute("SELECT seq FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
            return 0 if row is None else int(row[0]) + 1

    def add_token(self, curve_key: bytes, principal: str, expires: int) -> None:
        with self._readable("cannot be written"):
            self._db.execute("INSERT INTO tokens VALUES (?, ?, ?, 0)", (curve_key, principal, expires))

    def token(self, curve_key: bytes) -> tuple[str, int] | None:
        with self._readable("cannot be read"):
            query = "SELECT principal, expires FROM tokens WHERE curve_key = ? AND used = 0"
            found: tuple[str, int] | None = self._db.execute(query, (curve_key,)).fetchone()
            return found

    def _take_token(self, curve_key: bytes) -> bool:
        done = self._db.execute("UPDATE tokens SET used = 1 WHERE curve_key = ? AND used = 0", (curve_key,))
        return done.rowcount == 1

    def cancel_tokens(self, principal: str, now: int) -> list[bytes]:
        with self._readable("cannot be written"):
            rows = self._db.execute(
                "UPDATE tokens SET used = 1 WHERE principal = ? AND used = 0 RETURNING curve_key, expires", (principal,)
            ).fetchall()
            return [curve_key for curve_key, expires in rows if expires > now]

    def close(self) -> None:
        self._db.close()

    def _readable(self, what: str) -> AbstractContextManager[None]:
        return _readable(self.folder, what)


@contextmanager
def _readable(folder: Path | None, what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LogError("log.directory_unreadable", f"the directory's log in {folder} {what}: {error}") from error


def _open_to_read(path: Path) -> sqlite3.Connection:
    """Without writing; a copy on read-only media cannot have the files that WAL needs."""
    for mode in ("mode=ro", "immutable=1"):
        db = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, isolation_level=None)
        try:
            db.execute("SELECT 1 FROM entries LIMIT 1")
        except sqlite3.Error as error:
            db.close()
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if busy or mode == "immutable=1":
                raise
        else:
            return db
    raise AssertionError("the second mode returns or raises")
