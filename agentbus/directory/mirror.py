"""What a node keeps of the directory's log: every entry and the newest heads, in a file of its own.

A node that starts again goes on from what it saw, so a directory cannot show it another past; a directory whose disk
broke is continued from here; and an auditor finds the key events beside the log they belong to.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from agentbus.crypto.merkle import Frontier, leaf_hash
from agentbus.delegation.statements import KeyEvent, decode_signed
from agentbus.delegation.trust import Trust
from agentbus.directory import evidence
from agentbus.directory.store import FILE, SqliteStore
from agentbus.errors import AgentBusError, LogError

HEAD: Final = "directory.head"
HEADS: Final = 256  # that are remembered, each to be compared with any other of its size


class Mirror:
    """A node's copy of the directory's log.

    Args:
        folder: Where ``directory.sqlite`` lies; None keeps it in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._store = self._open()
        self._heads: OrderedDict[int, bytes] = OrderedDict()

    def load(self, root: bytes, *, now: int) -> Trust:
        """The trust that the kept entries lead to. A file that is damaged or of another trust domain begins anew."""
        empty = Trust.pinned(root)
        try:
            return self._with_head(empty.advance(self._store.entries(), now=now))
        except AgentBusError:
            self._store.close()
            self._set_aside()
            self._store = self._open()
            return empty

    def _with_head(self, trust: Trust) -> Trust:
        """With the newest head that was kept: what the directory signed, to be shown to it."""
        if self.folder is None or not (self.folder / HEAD).exists():
            return trust
        try:
            return trust.accept_head((self.folder / HEAD).read_bytes())
        except AgentBusError:
            return trust  # of an earlier or a later size: the file is written after the entries

    def _open(self) -> SqliteStore:
        try:
            return SqliteStore(self.folder, durable=False)
        except LogError:
            self._set_aside()
            return SqliteStore(self.folder, durable=False)

    def _set_aside(self) -> None:
        if self.folder is not None:
            (self.folder / FILE).replace(self.folder / f"{FILE}.unusable")

    def append(self, size: int, entries: list[bytes]) -> None:
        """Keep entries that were folded."""
        self._store.append(size, entries)

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
        if self.folder is None:
            yield self._store
            return
        store = SqliteStore(self.folder, read_only=True)
        try:
            yield store
        finally:
            store.close()

    def keep_head(self, size: int, note: bytes) -> None:
        """Remember a head that agreed with what was folded."""
        if self.folder is not None and size not in self._heads:
            fresh = self.folder / f"{HEAD}.tmp"
            fresh.write_bytes(note)
            fresh.replace(self.folder / HEAD)
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
            The evidence file; None where nothing is kept in files.
        """
        entries = self.entries()
        roots = evidence.root_entries(entries)
        other = self._heads.get(size)
        if other is not None and other != note:
            found: dict[str, Any] = evidence.fork_of_heads(roots, other, note)
        else:
            found = evidence.fork_of_log(roots, note, entries[:size])
        if self.folder is None:
            return None
        path = self.folder / f"fork-{size}.json"
        path.write_text(json.dumps(found), "utf-8")
        return path

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()
