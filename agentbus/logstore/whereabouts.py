"""Where a log speaks of a message: from its digest to the entries, without reading the log each time.

Rule 1: the table is derived. It is made when it is first asked, goes on from where it was, and may be deleted.
Rule 2: only what a checkpoint covers is in it, for that is never cut; what was appended since is read each time.
Rule 3: eight bytes of a digest are kept. Whoever reads at a place checks the rest: a wrong table gives no wrong entry.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Final

from agentbus.errors import LogError
from agentbus.log.records import entry_segment
from agentbus.log.redact import message_of
from agentbus.logstore.recovery import record_at
from agentbus.logstore.segments import Position, Segments

FILE: Final = "messages.sqlite"
_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS reached (segment INTEGER NOT NULL, offset INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS places (message INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS by_message ON places (message);
"""
_AT_ONCE: Final = 4096  # entries of one transaction


class Whereabouts:
    """The table of one log.

    Args:
        folder: The log's.
        entries: Its segments.
    """

    def __init__(self, folder: Path, entries: Segments) -> None:
        self._folder, self._entries = folder, entries
        self._lock = threading.Lock()
        self.indexed = 0
        """Entries that were put into the table by this process."""

    def about(self, digest: bytes, covered: Position) -> Iterator[bytes]:
        """The entries that may be about a message, in their order.

        Args:
            digest: The message's.
            covered: Where that which a checkpoint covers ends.

        Raises:
            LogError: ``log.damaged``, ``log.state``.
        """
        with self._lock:
            try:
                places = self._places(digest, covered)
            except sqlite3.DatabaseError:  # it was cut or changed; made again it is as good
                for path in self._folder.glob(f"{FILE}*"):
                    with suppress(FileNotFoundError):
                        path.unlink()
                try:
                    places = self._places(digest, covered)
                except sqlite3.Error as error:
                    raise LogError("log.state", f"{self._folder / FILE}: {error}; free the disk") from error
        for place in places:
            yield record_at(self._folder, entry_segment(place.segment), place)
        for _, record in self._entries.read(covered, self._entries.end):
            yield record.data

    def _places(self, digest: bytes, covered: Position) -> list[Position]:
        with closing(sqlite3.connect(self._folder / FILE, isolation_level=None)) as db:
            db.executescript(_SCHEMA)
            row = db.execute("SELECT segment, offset FROM reached").fetchone()
            reached = Position(*row) if row is not None else Position(0, 0)
            if reached > covered:
                raise sqlite3.DatabaseError("it is of another log")
            self._go_on(db, reached, covered)
            rows = db.execute(
                "SELECT segment, offset FROM places WHERE message = ? ORDER BY segment, offset", (_head(digest),)
            )
            return [Position(*row) for row in rows]

    def _go_on(self, db: sqlite3.Connection, reached: Position, covered: Position) -> None:
        records = self._entries.read(reached, covered)
        while rows := list(islice(records, _AT_ONCE)):
            places = [
                (_head(digest), segment, record.offset)
                for segment, record in rows
                if (digest := message_of(record.data)) is not None
            ]
            segment, last = rows[-1]
            db.execute("BEGIN")
            db.executemany("INSERT INTO places VALUES (?, ?, ?)", places)
            db.execute("DELETE FROM reached")
            db.execute("INSERT INTO reached VALUES (?, ?)", (segment, last.offset + 8 + len(last.data)))
            db.execute("COMMIT")
            self.indexed += len(rows)


def _head(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big", signed=True)
