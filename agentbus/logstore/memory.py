"""A log in memory, for tests and for buses within one process. It promises what a file log does, until it ends."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from agentbus.crypto.box import box_name, close_box, open_box
from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import Tree, leaf_hash
from agentbus.errors import LogError
from agentbus.log.base import FORKS_BY, FORKS_OF, KeptNote
from agentbus.log.checkpoint import parse_origin, sign_checkpoint, verify_checkpoint
from agentbus.log.entry import MAX_ENTRY
from agentbus.log.redact import message_of
from agentbus.logstore import breath

CODES: Final = {
    "log.closed": "The log was closed, or stopped after an error; open it again.",
    "log.entry_size": "An entry has 1 to 65,535 bytes.",
}


class MemoryLog:
    """A :class:`agentbus.log.base.LogStore` that lives as long as the process.

    Args:
        key: Signs checkpoints.
        origin: ``agentbus.<trust domain>/<node>/<epoch>``.
    """

    def __init__(self, *, key: SigningKey, origin: str) -> None:
        parse_origin(origin)
        self.origin = origin
        self.published: bytes | None = None
        self.previous: bytes | None = None
        self.log_key = key.public.raw
        self._key = key
        self._entries: list[bytes] = []
        self._blobs: dict[bytes, bytes] = {}
        self._boxes: dict[bytes, bytes] = {}
        self._keys: dict[bytes, bytes] = {}  # without a box's key, the box is erased
        self.forks: list[tuple[KeptNote, bytes]] = []
        self._notes: dict[tuple[str, bytes], KeptNote] = {}
        self._about: dict[bytes, list[int]] = {}  # message → entries, of the first so many
        self._searched = 0
        self._tree = Tree()
        self._hashing = threading.Lock()  # the node checkpoints in a thread, and so may a handler
        self._covered = -1
        self._closed = self._rolled_back = False

    @property
    def size(self) -> int:
        """How many entries are on the record."""
        return len(self._entries)

    def append(self, entries: Sequence[bytes]) -> None:
        """Put entries on the record.

        Raises:
            LogError: ``log.closed``, ``log.entry_size``.
        """
        self._require_open()
        check_sizes(entries)
        self._entries.extend(entries)

    def put_blob(self, data: bytes) -> bytes:
        """Keep ``data`` under its SHA-256."""
        self._require_open()
        digest = hashlib.sha256(data).digest()
        self._blobs.setdefault(digest, data)
        return digest

    def _require_open(self) -> None:
        if self._rolled_back:
            raise LogError("log.rolled_back", "a peer holds a newer checkpoint of this log; restart this node")
        if self._closed:
            raise LogError("log.closed", "this log was closed; open another")

    def blob(self, digest: bytes) -> bytes | None:
        """The blob of this digest."""
        return self._blobs.get(digest)

    def put_box(self, data: bytes) -> bytes:
        """Keep ``data`` encrypted, as a log on a disk does."""
        self._require_open()
        key = os.urandom(32)
        box = close_box(data, key)
        name = box_name(box)
        self._boxes[name], self._keys[name] = box, key
        return name

    def put_boxes(self, datas: Sequence[bytes]) -> list[bytes]:
        """Keep each of ``datas`` encrypted."""
        return [self.put_box(data) for data in datas]

    def box(self, name: bytes) -> bytes | None:
        """What a box holds; None where there is none, or it was erased."""
        key = self._keys.get(name)
        return open_box(self._boxes[name], key) if key is not None else None

    def about(self, digest: bytes) -> Iterator[bytes]:
        """The entries that hold something of this message which can be erased."""
        end = len(self._entries)
        for at in range(self._searched, end):
            message = message_of(self._entries[at])
            if message is not None:
                self._about.setdefault(message, []).append(at)
        self._searched = max(self._searched, end)
        return iter([self._entries[at] for at in self._about.get(digest, ())])

    def erase(self, name: bytes) -> bool:
        """Forget a box's key."""
        return self._keys.pop(name, None) is not None

    def _hash(self, size: int) -> None:
        """Have at least ``size`` entries in the tree."""
        while True:
            with self._hashing:
                at = len(self._tree)
                for data in self._entries[at : min(size, at + breath.GROUP)]:
                    self._tree.append(leaf_hash(data))
                if len(self._tree) >= size:
                    return
            breath.take()

    def root_at(self, size: int) -> bytes | None:
        """The root over the first ``size`` entries."""
        if size > len(self._entries):
            return None
        self._hash(size)
        with self._hashing:
            return self._tree.root(size)

    def sync(self) -> None:
        """Memory has nothing to wait for."""

    def checkpoint(self) -> bytes:
        """A signed note over what is here now."""
        size = len(self._entries)
        self._hash(size)
        with self._hashing:
            if self.published is None or size > self._covered:
                self.published = sign_checkpoint(self.origin, size, self._tree.root(size), self._key)
                self._covered = size
            return self.published

    def keep_note(self, kept: KeptNote) -> None:
        """Remember the newest note of another log, as long as this process lives."""
        before = self._notes.get((kept.origin, kept.log_key))
        if before is None or kept.size > before.size:
            self._notes[kept.origin, kept.log_key] = kept

    def drop_note(self, origin: str, log_key: bytes) -> None:
        """Forget a log's newest note."""
        self._notes.pop((origin, log_key), None)

    def kept_notes(self) -> list[KeptNote]:
        """The newest notes of other logs."""
        return list(self._notes.values())

    def keep_fork(self, kept: KeptNote, other: bytes) -> bool:
        """Remember two notes that cannot both be true."""
        alike = [one for one, _ in self.forks if one[:2] == kept[:2]]
        by = sum(one.by == kept.by for one, _ in self.forks)
        if any(one.size == kept.size for one in alike) or len(alike) >= FORKS_OF or by >= FORKS_BY:
            return False
        self.forks.append((kept, other))
        return True

    def roll_back(self, note: bytes) -> None:
        """Nothing restores memory from a backup; still, whoever proves another history stops this one."""
        verify_checkpoint(note, self.origin, self._key.public)
        self._closed = self._rolled_back = True

    def close(self) -> None:
        """Checkpoint, and take no more. What is here can still be read."""
        if not self._closed:
            self.checkpoint()
            self._closed = True

    def __iter__(self) -> Iterator[bytes]:
        return iter(tuple(self._entries))


def check_sizes(entries: Sequence[bytes]) -> None:
    """Return when every entry has a length that a log can hold.

    Raises:
        LogError: ``log.entry_size``.
    """
    for entry in entries:
        if not 0 < len(entry) <= MAX_ENTRY:
            raise LogError("log.entry_size", f"an entry of {len(entry)} bytes; put large values into blobs")
