"""What a node keeps of the directory's log: every entry and the newest heads, in a file of its own.

A node that starts again goes on from what it saw, so a directory cannot show it another past; a directory whose disk
broke is continued from here; and an auditor finds the key events beside the log they belong to.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from agentbus.crypto.merkle import Frontier, leaf_hash
from agentbus.delegation.statements import KeyEvent, decode_signed
from agentbus.delegation.trust import Trust
from agentbus.directory import evidence
from agentbus.directory.store import FILE, SqliteStore
from agentbus.errors import AgentBusError, LogError

HEAD: Final = "directory.head"
UNWRITTEN: Final = 100_000  # entries that wait in memory for a disk that takes nothing
logger: Final = logging.getLogger("agentbus.directory")
HEADS: Final = 256  # that are remembered, each to be compared with any other of its size


class Mirror:
    """A node's copy of the directory's log. Where it cannot be written, the node goes on, and says so.

    Args:
        folder: Where ``directory.sqlite`` lies.

    Raises:
        LogError: ``log.directory_unreadable``: the file is there and may not be read, or somebody holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = self._open()
        self._heads: OrderedDict[int, bytes] = OrderedDict()
        self._unwritten: list[bytes] = []
        self._failed = False

    def load(self, root: bytes, *, now: int) -> Trust:
        """The trust that the kept entries lead to. A file that is damaged or of another trust domain begins anew.

        Raises:
            LogError: ``log.directory_unreadable``, where it is not damaged.
        """
        empty = Trust.pinned(root)
        try:
            return self._with_head(empty.advance(self._store.entries(), now=now))
        except AgentBusError as error:
            if isinstance(error, LogError) and not _is_damage(error):
                raise
            self._store.close()
            self._set_aside(error)
            self._store = SqliteStore(self.folder, durable=False)
            return empty

    def _with_head(self, trust: Trust) -> Trust:
        """With the newest head that was kept: what the directory signed, to be shown to it."""
        try:
            return trust.accept_head((self.folder / HEAD).read_bytes())
        except (AgentBusError, OSError):
            return trust  # none, or of an earlier or a later size: the file is written after the entries

    def _open(self) -> SqliteStore:
        try:
            return SqliteStore(self.folder, durable=False)
        except LogError as error:
            if not _is_damage(error):
                raise
            self._set_aside(error)
            return SqliteStore(self.folder, durable=False)

    def _set_aside(self, error: AgentBusError) -> None:
        """What this node knew of the directory's past does not count any more; it is kept for whoever looks into it."""
        number = next(n for n in count(1) if not (self.folder / f"{FILE}.unusable{n}").exists())
        logger.error(
            "what this node kept of the directory's log is of no use (%s): %s is set aside, and the directory is"
            " believed as at a first start", error, self.folder / f"{FILE}.unusable{number}",
        )  # fmt: skip
        for ending in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                (self.folder / f"{FILE}{ending}").replace(self.folder / f"{FILE}.unusable{number}{ending}")

    def append(self, entries: list[bytes]) -> None:
        """Keep entries that were folded, and those before them that could not be written then."""
        self._unwritten += entries
        if len(self._unwritten) > UNWRITTEN:
            return  # the file stays a true beginning of the log; a later start asks for the rest
        try:
            self._store.append(self._store.size(), self._unwritten)
        except LogError as error:
            self._complain(error)
        else:
            self._unwritten, self._failed = [], False

    def _complain(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            logger.error("this node's copy of the directory's log cannot be written: %s", error)

    def entries(self) -> list[bytes]:
        """All of them."""
        return list(self._store.entries())

    def root_at(self, size: int) -> bytes:
        """The root over the first ``size`` entries; for another thread."""
        frontier = Frontier()
        with self._elsewhere() as store:
            for at, entry in enumerate(store.entries()):
                if at >= size:
                    break
                frontier.append(leaf_hash(entry))
        return frontier.root()

    def head_key_entry(self) -> bytes:
        """The entry that introduced the newest head key, or nothing; for another thread."""
        with self._elsewhere() as store:
            roots = evidence.root_entries(store.entries())
        heads = [entry for entry in roots if KeyEvent.decode(decode_signed(entry).body)[3:5] == ("online", "head")]
        return heads[-1] if heads else b""

    @contextmanager
    def _elsewhere(self) -> Iterator[SqliteStore]:
        """The entries over a connection of their own, which is good in any thread."""
        store = SqliteStore(self.folder, read_only=True)
        try:
            yield store
        finally:
            store.close()

    def keep_head(self, size: int, note: bytes) -> None:
        """Remember a head that agreed with what was folded."""
        if size not in self._heads:
            fresh = self.folder / f"{HEAD}.tmp"
            try:
                fresh.write_bytes(note)
                fresh.replace(self.folder / HEAD)
            except OSError as error:
                self._complain(error)
        self._heads[size] = note
        self._heads.move_to_end(size)
        if len(self._heads) > HEADS:
            self._heads.popitem(last=False)

    def head_of(self, size: int) -> bytes | None:
        """The remembered head of this size."""
        return self._heads.get(size)

    def convict(self, size: int, note: bytes) -> Path | None:
        """Write down the evidence that a head of ``size`` contradicts what the same directory said before.

        Returns:
            The evidence file; None where it could not be written.
        """
        path = self.folder / f"fork-{size}.json"
        try:
            path.write_text(json.dumps(self._contradiction(size, note)), "utf-8")
        except (LogError, OSError) as error:
            logger.error("the evidence that the directory shows two histories cannot be written: %s", error)
            return None
        return path

    def _contradiction(self, size: int, note: bytes) -> dict[str, Any]:
        entries = self.entries()
        roots = evidence.root_entries(entries)
        other = self._heads.get(size)
        if other is not None and other != note:
            return evidence.fork_of_heads(roots, other, note)
        return evidence.fork_of_log(roots, note, entries[:size])

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()


def _is_damage(error: LogError) -> bool:
    """Whether the file itself is spoilt, as opposed to one that somebody holds or nobody may read."""
    code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
    return error.__cause__ is None or code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
