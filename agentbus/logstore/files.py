"""A node's log in a folder: segments of entries, segments of blobs, the signed checkpoint, and one row of state.

Rule 1: one process writes. A second one is refused, because two histories under one origin are what a fork is.
Rule 2: ``append`` is one write of one piece; what it returned from survives ``kill -9``.
Rule 3: a checkpoint is made from what the disk gives back, never from what memory believes was written, in this order:
fdatasync → read back, hash → compare-and-swap the row → sign → publish. The row comes before the signature, so that two
notes about one size cannot come to be; signatures are deterministic, so the note can be made again from the row.
Rule 4: an error of the disk is final. Nobody knows what it kept; opening the log again finds out.

::

    00000000.seg … entries       blobs-00000000.seg … blobs       checkpoint   state.sqlite   lock
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash
from agentbus.errors import BadSignature, LogError, Malformed
from agentbus.log.checkpoint import parse_origin, sign_checkpoint, verify_checkpoint
from agentbus.log.entry import gap
from agentbus.log.records import blob_segment, encode_records, entry_segment
from agentbus.logstore.memory import check_sizes
from agentbus.logstore.recovery import Covered, record_at, recover
from agentbus.logstore.segments import Position, Segments, replace_file
from agentbus.logstore.state import StateRow

CODES: Final = {
    "log.locked": "Another process writes this log.",
    "log.forked": "The published checkpoint, or what this process knows, and the stored state are two histories. Keep"
    " the folder as evidence and open a new epoch.",
    "log.key": "The checkpoint here was not signed by this log key.",
    "log.no_checkpoints": "A log with durability 'off' signs no checkpoints.",
}

Durability = Literal["process", "fsync", "off"]
_PENDING: Final = 1024 * 1024  # bytes of blobs that may wait for the entries that name them


class FileLog:
    """A :class:`agentbus.log.base.LogStore` in a folder. Make one with :meth:`open`.

    Thread rule: one thread appends; ``checkpoint``, ``sync``, ``root`` and ``close`` may run in another.
    """

    def __init__(self, folder: Path, key: SigningKey, origin: str, durability: Durability, lock: int) -> None:
        self.folder, self.origin = folder, origin
        self._key, self._durability, self._lock = key, durability, lock
        self._state = StateRow(folder / "state.sqlite", origin)
        try:
            covered = self._state.read()
            self.published = self._check_published(covered)
            found = recover(folder, covered)
        except BaseException:
            self._state.close()
            raise
        self._frontier, self._read_to = found.frontier, found.entries
        self._places = found.places
        self._entries = Segments(folder, entry_segment, found.entries)
        self._blobs = Segments(folder, blob_segment, found.blobs)
        self._covered = covered
        self._size = found.frontier.size
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0
        self._failed = False
        self._closed = False
        self._writing = threading.Lock()  # held for one write
        self._checkpointing = threading.Lock()  # held while the frontier moves; taken before _writing, never after
        self.cut = found.cut

    @classmethod
    def open(
        cls, folder: Path, *, key: SigningKey, origin: str, durability: Durability = "process", now: int
    ) -> FileLog:
        """Open a log for writing, making it where there is none; what a crash left torn is cut and logged as a GAP.

        Args:
            folder: Made with mode 0700 where it is missing.
            key: The node's log key.
            origin: ``agentbus.<trust domain>/<node>/<epoch>``.
            durability: ``process``: written before ``append`` returns; ``fsync``: durable before it returns; ``off``:
                written, never synced, no checkpoints.
            now: Instant, microseconds, for the GAP.

        Raises:
            LogError: ``log.locked``, ``log.damaged``, ``log.forked``, ``log.key``, ``log.write``.
        """
        parse_origin(origin)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            log = cls(folder, key, origin, durability, lock)
        except BlockingIOError as error:
            os.close(lock)
            raise LogError("log.locked", f"{folder} is written by another process; stop it first") from error
        except BaseException:
            os.close(lock)
            raise
        if log.cut:
            try:
                log.append([gap(log.size, now, reason="torn", durable=log._covered.size, cut=log.cut)])
            except BaseException:
                log.close()
                raise
        return log

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def size(self) -> int:
        """How many entries are on the record."""
        return self._size

    def append(self, entries: Sequence[bytes]) -> None:
        """Put entries on the record, in one write.

        Raises:
            LogError: ``log.entry_size``, ``log.write``, ``log.closed``.
        """
        check_sizes(entries)
        with self._writing:
            self._require_open()
            try:
                self._write_pending()
                self._entries.write(encode_records(entries))
            except LogError:
                self._failed = True
                raise
            self._size += len(entries)
        if self._durability == "fsync":
            self.sync()

    def put_blob(self, data: bytes) -> bytes:
        """Keep ``data`` under its SHA-256; it is on the record when the next ``append`` or ``sync`` returns."""
        digest = hashlib.sha256(data).digest()
        if digest in self._places or digest in self._pending:
            return digest
        with self._writing:
            self._require_open()
            self._pending[digest] = data
            self._pending_bytes += len(data)
            if self._pending_bytes > _PENDING:
                self._write_pending()
        return digest

    def sync(self) -> None:
        """Return when everything so far would survive the loss of power.

        Raises:
            LogError: ``log.write``, ``log.closed``.
        """
        with self._checkpointing:
            self._sync()

    def _sync(self) -> tuple[int, Position, Position]:
        """Sync, and the state that is durable now."""
        with self._writing:
            self._require_open()
            self._write_pending()
            ends = (self._size, self._entries.end, self._blobs.end)
        try:
            self._blobs.sync()
            self._entries.sync()
        except LogError:
            self._failed = True
            raise
        return ends

    def _write_pending(self) -> None:
        """Write the blobs that wait, in one piece; an entry that names one is written after it."""
        if not self._pending:
            return
        try:
            start = self._blobs.write(encode_records(digest + data for digest, data in self._pending.items()))
        except LogError:
            self._failed = True
            raise
        offset = start.offset
        for digest, data in self._pending.items():
            self._places[digest] = Position(start.segment, offset)
            offset += 8 + 32 + len(data)
        self._pending = {}
        self._pending_bytes = 0

    def _require_open(self) -> None:
        if self._failed or self._closed:
            why = "closed" if self._closed else "stopped by an error of the disk"
            raise LogError("log.closed", f"{self.folder} was {why}; open it again")

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def blob(self, digest: bytes) -> bytes | None:
        """The blob of this digest.

        Raises:
            LogError: ``log.damaged`` when the disk gives back another one.
        """
        waiting = self._pending.get(digest)
        if waiting is not None:
            return waiting
        place = self._places.get(digest)
        if place is None:
            return None
        data = record_at(self.folder, blob_segment(place.segment), place)[32:]
        if hashlib.sha256(data).digest() != digest:
            raise LogError("log.damaged", f"{blob_segment(place.segment)} at byte {place.offset}: another blob")
        return data

    def root(self) -> bytes:
        """The root over all entries, from the disk."""
        with self._checkpointing:
            self._extend(self._entries.end)
            return self._frontier.root()

    def __iter__(self) -> Iterator[bytes]:
        for _, record in self._entries.read(Position(0, 0), self._entries.end):
            yield record.data

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    def checkpoint(self) -> bytes:
        """Sign and publish what is on the record now; about 2 ms, so call it off the loop.

        Raises:
            LogError: ``log.no_checkpoints``, ``log.write``, ``log.damaged``, ``log.forked``, ``log.closed``.
        """
        if self._durability == "off":
            raise LogError("log.no_checkpoints", "open it with durability 'process' or 'fsync'")
        with self._checkpointing:
            return self._checkpoint()

    def _checkpoint(self) -> bytes:
        if self.published is not None and self._size == self._covered.size:
            return self.published
        size, entries, blobs = self._sync()
        self._extend(entries)
        if self._frontier.size != size:
            self._failed = True
            raise LogError("log.damaged", f"{self._frontier.size} entries on the disk, {size} were written")
        covered = Covered(size, self._frontier.root(), entries, blobs)
        self._state.swap(self._covered, covered)
        self._covered = covered
        return self._publish()

    def _publish(self) -> bytes:
        note = sign_checkpoint(self.origin, self._covered.size, self._covered.root, self._key)
        try:
            replace_file(self.folder / "checkpoint", note)
        except OSError as error:
            self._failed = True
            raise LogError("log.write", f"{self.folder}: {error.strerror}; free the disk and restart") from error
        self.published = note
        return note

    def _extend(self, end: Position) -> None:
        """Move the frontier to ``end``, over what the disk holds."""
        try:
            for _, record in self._entries.read(self._read_to, end):
                self._frontier.append(leaf_hash(record.data))
        except BaseException:
            self._failed = True
            raise
        self._read_to = end

    def _check_published(self, covered: Covered) -> bytes | None:
        """The published note, unless it and the row are two histories; None where it is older than the row."""
        try:
            note = (self.folder / "checkpoint").read_bytes()
        except FileNotFoundError:
            return None
        try:
            said = verify_checkpoint(note, self.origin, self._key.public)
        except (BadSignature, Malformed) as error:
            raise LogError("log.key", f"the checkpoint in {self.folder} is not {self.origin}'s by this key") from error
        if said.size > covered.size or (said.size == covered.size and said.root != covered.root):
            raise LogError(
                "log.forked",
                f"{said.size} entries were published and {covered.size} are stored; keep {self.folder} as evidence",
                details={"published": said.size, "stored": covered.size},
            )
        return note if said.size == covered.size else None

    def close(self) -> None:
        """Checkpoint where that is possible, and let go of files and lock."""
        with self._checkpointing:
            if self._closed:
                return
            try:
                if not self._failed:
                    with self._writing:
                        self._write_pending()
                    if self._durability != "off":
                        self._checkpoint()
            finally:
                with self._writing:
                    self._closed = True
                self._entries.close()
                self._blobs.close()
                self._state.close()
                os.close(self._lock)
