"""What is good once: tokens that were used, and access tokens that were revoked, in one SQLite file.

Rule 1: an answer is on the disk when it is given: ``synchronous=FULL``.
Rule 2: nobody waits for the disk but who asked. Whatever asks while it writes shares the next write.
Rule 3: a row is kept for a day longer than its token lives, because a clock may be set back.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from agentbus.errors import LogError
from agentbus.wire.limits import SECOND

CODES: Final = {
    "log.exchange_unreadable": "The file of used tokens cannot be opened. Without it a used token could be used again:"
    " restore it, or end the issuers first.",
}

KEPT: Final = 24 * 3600 * SECOND
FILE: Final = "exchange.sqlite"
_TABLES: Final = ("used", "revoked")


class Token(NamedTuple):
    """One token, and what became of it."""

    what: Literal["used", "revoked"]
    issuer: str
    jti: str
    expires: int


class Once:
    """What was used or revoked.

    Args:
        folder: Where ``exchange.sqlite`` lies; None keeps it in memory.

    Raises:
        LogError: ``log.exchange_unreadable``.
    """

    def __init__(self, folder: Path | None) -> None:
        self._on_disk = folder is not None
        self._writing = threading.Lock()
        self._waiting: list[tuple[Token, int, asyncio.Future[bool]]] = []
        self._work: asyncio.Task[None] | None = None
        try:
            self._db = self._reader = _open(folder)
            for table in _TABLES:
                self._db.execute(
                    f"CREATE TABLE IF NOT EXISTS {table}"
                    " (issuer TEXT, jti TEXT, expires INTEGER NOT NULL, PRIMARY KEY (issuer, jti)) WITHOUT ROWID"
                )
                self._db.execute(f"CREATE INDEX IF NOT EXISTS {table}_expires ON {table} (expires)")
            if folder is not None:
                self._reader = _open(folder)  # it never waits for who writes
        except sqlite3.Error as error:
            raise LogError("log.exchange_unreadable", f"{folder}: {error}") from error

    def put(self, tokens: Sequence[Token], *, now: int) -> list[bool]:
        """Put all of them down in one write, each one atomically if it is absent; for each, whether it was."""
        with self._writing:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for table in _TABLES:
                    self._db.execute(f"DELETE FROM {table} WHERE expires <= ?", (now - KEPT,))
                new = [
                    self._db.execute(f"INSERT OR IGNORE INTO {what} VALUES (?, ?, ?)", row).rowcount == 1
                    for what, *row in tokens
                ]
                self._db.execute("COMMIT")
            except BaseException:
                self._db.rollback()
                raise
        return new

    async def use(self, issuer: str, jti: str, expires: int, *, now: int) -> bool:
        """Use a token up; False where it was used before."""
        return await self._put(Token("used", issuer, jti, expires), now)

    async def revoke(self, issuer: str, jti: str, expires: int, *, now: int) -> None:
        """Let an access token count no more."""
        await self._put(Token("revoked", issuer, jti, expires), now)

    def is_revoked(self, issuer: str, jti: str) -> bool:
        """Whether an access token was revoked."""
        row = self._reader.execute("SELECT 1 FROM revoked WHERE issuer = ? AND jti = ?", (issuer, jti))
        return row.fetchone() is not None

    def close(self) -> None:
        """Let go of the file, once what is being written is written."""
        with self._writing:
            self._reader.close()
            self._db.close()

    async def _put(self, token: Token, now: int) -> bool:
        if not self._on_disk:
            return self.put([token], now=now)[0]
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((token, now, done))
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._write())
        return await done

    async def _write(self) -> None:
        """Write what waits, and what came meanwhile, until nothing waits."""
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                tokens, now = [token for token, _, _ in waiting], max(now for _, now, _ in waiting)
                try:
                    new = await asyncio.to_thread(self.put, tokens, now=now)
                except Exception as error:
                    for _, _, done in waiting:
                        if not done.done():
                            done.set_exception(error)
                    continue
                for (_, _, done), answer in zip(waiting, new, strict=True):
                    if not done.done():  # else who asked has gone; the token is used up all the same
                        done.set_result(answer)
        finally:
            self._work = None


def _open(folder: Path | None) -> sqlite3.Connection:
    if folder is None:
        return sqlite3.connect(":memory:", isolation_level=None)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = sqlite3.connect(folder / FILE, isolation_level=None, check_same_thread=False)
    os.chmod(folder / FILE, 0o600)  # noqa: PTH101
    db.execute("PRAGMA journal_mode=WAL")  # one wait for the disk instead of three, and readers wait for nobody
    db.execute("PRAGMA synchronous=FULL")
    return db
