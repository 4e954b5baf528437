"""A node's log in a folder: segments of entries, blobs and boxes, tiles, the signed checkpoint, one row of state.

Rule 1: one process writes. A second one is refused, because two histories under one origin are what a fork is.
Rule 2: ``append`` is one write of one piece; what it returned from survives ``kill -9``.
Rule 3: a checkpoint is made from what the disk gives back, never from what memory believes was written, in this order:
fdatasync → read back, hash → compare-and-swap the row → write tiles → sign → publish. The row comes before the
signature, so that two notes about one size cannot come to be; signatures are deterministic, so the note can be made
again from the row. The first is made before the first entry, over none: entries without a checkpoint are damage.
Rule 4: an error of the disk is final. Nobody knows what it kept; opening the log again finds out.

::

    00000000.seg … entries    blobs-00000000.seg … blobs    boxes-00000000.seg … boxes    box-keys
    tile/                     checkpoint                    state.sqlite                  lock
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash
from agentbus.disk import replace_file
from agentbus.errors import LogError
from agentbus.log.base import KeptNote
from agentbus.log.checkpoint import parse_origin, verify_checkpoint
from agentbus.log.entry import EntryKind, gap
from agentbus.log.records import encode_records, entry_segment
from agentbus.logstore import breath
from agentbus.logstore.blobs import Blobs
from agentbus.logstore.boxes import Boxes
from agentbus.logstore.forks import keep_fork
from agentbus.logstore.memory import check_sizes
from agentbus.logstore.published import publish, read_published
from agentbus.logstore.recovery import Covered, recover
from agentbus.logstore.segments import Position, Segments
from agentbus.logstore.state import StateRow
from agentbus.logstore.tilefiles import signed_root
from agentbus.logstore.whereabouts import Whereabouts

CODES: Final = {
    "log.locked": "Another process writes this log.",
    "log.no_checkpoints": "A log with durability 'off' signs no checkpoints.",
    "log.rolled_back": "A peer holds a newer checkpoint of this log: it was restored from an old backup. Nothing more"
    " is signed here; the next start opens a new epoch.",
}

Durability = Literal["process", "fsync", "off"]
EVIDENCE: Final = "rolled-back.note"
"""The file that holds a peer's newer note of this log, once one was shown."""
_PENDING: Final = 1024 * 1024  # bytes of blobs and boxes that may wait for the entries that name them


class FileLog:
    """A :class:`agentbus.log.base.LogStore` in a folder. Make one with :meth:`open`.

    Thread rule: one thread appends; ``checkpoint``, ``sync``, ``root_at``, notes and ``close`` may run in another.
    """

    def __init__(
        self, folder: Path, key: SigningKey, origin: str, durability: Durability, lock: int, now: int, boot: str
    ) -> None:
        self.folder, self.origin, self.log_key = folder, origin, key.public.raw
        self.previous: bytes | None = None
        self._key, self._durability, self._lock = key, durability, lock
        self._state = StateRow(folder / "state.sqlite", origin, boot)
        try:
            covered = self._state.read()
            self.published = read_published(folder, origin, covered, key)
            found = recover(folder, covered)
        except BaseException:
            self._state.close()
            raise
        self._tiles, self._read_to = found.tiles, covered.entries
        self._entries = Segments(folder, entry_segment, found.entries)
        self._whereabouts = Whereabouts(folder, self._entries)
        self._blobs = Blobs(folder, found.blobs, found.known)
        self._boxes = Boxes(folder, found.boxes)
        self._covered = covered
        self._size = found.size
        self._failed = ""  # why nothing more is taken
        self._closed = False
        self._writing = threading.Lock()  # held for one write
        self._checkpointing = threading.Lock()  # held while the tree moves; taken before _writing, never after
        power = boot != self._state.booted and found.size > 0 and found.last_kind != EntryKind.CLOSE
        try:
            self._vouch()
            self._note_gaps(now, found.cut, power)
            self._state.started(boot)
        except BaseException:
            self._failed = "stopped by an error of the disk"
            self.close()
            raise

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        key: SigningKey,
        origin: str,
        durability: Durability = "process",
        now: int,
        boot: str | None = None,
    ) -> FileLog:
        """Open a log for writing, making it where there is none.

        What a crash left torn is cut and logged as a GAP; so is a loss of power, after which the last entries written
        before it may be missing.

        Args:
            folder: Made with mode 0700 where it is missing.
            key: The node's log key.
            origin: ``agentbus.<trust domain>/<node>/<epoch>``.
            durability: ``process``: written before ``append`` returns; ``fsync``: durable before it returns; ``off``:
                written, never synced, no checkpoints.
            now: Instant, microseconds, for the GAP.
            boot: Names this run of the machine; by default what Linux calls it.

        Raises:
            LogError: ``log.locked``, ``log.damaged``, ``log.forked``, ``log.key``, ``log.rolled_back``, ``log.write``.
        """
        parse_origin(origin)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / EVIDENCE).exists():
                raise LogError("log.rolled_back", f"{folder / EVIDENCE} is newer than this log; open a new epoch")
            return cls(folder, key, origin, durability, lock, now, boot if boot is not None else _boot_id())
        except BlockingIOError as error:
            os.close(lock)
            raise LogError("log.locked", f"{folder} is written by another process; stop it first") from error
        except BaseException:
            _close_quietly(lock)
            raise

    def _vouch(self) -> None:
        """Have a checkpoint before the first entry, over none if need be: entries without one are never a young log."""
        if self.published is None and self._durability != "off":
            self._publish()
            if not self._covered.size:
                self.published = None  # it tells no peer anything

    def _note_gaps(self, now: int, cut: int, power: bool) -> None:
        durable = self._covered.size
        reasons = [("power", 0)] if power else []
        reasons += [("torn", cut)] if cut else []
        if reasons:
            rows = enumerate(reasons, self._size)
            self.append([gap(at, now, reason=why, durable=durable, cut=size) for at, (why, size) in rows])

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def size(self) -> int:
        """How many entries are on the record."""
        return self._size

    def append(self, entries: Sequence[bytes]) -> None:
        """Put entries on the record, in one write.

        Raises:
            LogError: ``log.entry_size``, ``log.write``, ``log.closed``, ``log.rolled_back``.
        """
        check_sizes(entries)
        with self._writing:
            self._require_open()
            with self._fatal():
                self._write_pending()
                self._entries.write(encode_records(entries))
            self._size += len(entries)
        if self._durability == "fsync":
            self.sync()

    def put_blob(self, data: bytes) -> bytes:
        """Keep ``data`` under its SHA-256; it is on the record when the next ``append`` or ``sync`` returns."""
        digest = hashlib.sha256(data).digest()
        if self._blobs.has(digest):
            return digest
        with self._writing:
            self._require_open()
            self._blobs.put(digest, data)
            self._write_much()
        return digest

    def put_box(self, data: bytes) -> bytes:
        """Keep ``data`` encrypted; it is on the record when the next ``append`` or ``sync`` returns."""
        return self.put_boxes([data])[0]

    def put_boxes(self, datas: Sequence[bytes]) -> list[bytes]:
        """As :meth:`put_box`, for several: of many small things, closing each costs less when it is done in a row."""
        names: list[bytes] = []
        with self._writing:
            self._require_open()
            for data in datas:
                names.append(self._boxes.put(data))
                if self._boxes.pending_bytes > _PENDING:
                    self._write_much()
        return names

    def adopt_box(self, box: bytes, key: bytes) -> bytes:
        """Take a box from another store, with its key, under its name there."""
        with self._writing:
            self._require_open()
            return self._boxes.adopt(box, key)

    def erase(self, name: bytes) -> bool:
        """Destroy a box's key; the disk has forgotten it when this returns.

        Raises:
            LogError: ``log.write``, ``log.closed``.
        """
        with self._writing:
            self._require_open()
            with self._fatal():
                self._boxes.write()
        with self._fatal():
            return self._boxes.erase(name)

    def sync(self) -> None:
        """Return when everything so far would survive the loss of power.

        Raises:
            LogError: ``log.write``, ``log.closed``.
        """
        with self._checkpointing:
            self._sync()

    def _sync(self) -> tuple[int, Position, Position, Position]:
        """Sync, and the state that is durable now."""
        with self._writing:
            self._require_open()
            with self._fatal():
                self._write_pending()
            ends = (self._size, self._entries.end, self._blobs.end, self._boxes.end)
        with self._fatal():
            self._boxes.sync()
            self._blobs.sync()
            self._entries.sync()
        return ends

    def _write_much(self) -> None:
        if self._blobs.pending_bytes + self._boxes.pending_bytes > _PENDING:
            with self._fatal():
                self._write_pending()

    def _write_pending(self) -> None:
        """Write the boxes and blobs that wait, in one piece each; an entry that names one is written after it."""
        self._boxes.write()
        self._blobs.write()

    def _fatal(self) -> _Fatal:
        return _Fatal(self)

    def _require_open(self) -> None:
        if self._failed.startswith("rolled"):
            raise LogError("log.rolled_back", f"{self.folder}: a peer holds a newer checkpoint; restart this node")
        if self._failed or self._closed:
            raise LogError("log.closed", f"{self.folder} was {self._failed or 'closed'}; open it again")

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def blob(self, digest: bytes) -> bytes | None:
        """The blob of this digest.

        Raises:
            LogError: ``log.damaged`` when the disk gives back another one.
        """
        return self._blobs.get(digest)

    def box(self, name: bytes) -> bytes | None:
        """What a box holds; None where there is none, or its key was destroyed.

        Raises:
            LogError: ``log.damaged``, ``log.box``.
        """
        return self._boxes.get(name)

    def about(self, digest: bytes) -> Iterator[bytes]:
        """The entries that may be about a message.

        Raises:
            LogError: ``log.damaged``, ``log.state``.
        """
        return self._whereabouts.about(digest, self._covered.entries)

    def root_at(self, size: int) -> bytes | None:
        """The root over the first ``size`` entries, from tiles, and behind the newest checkpoint from the entries.

        Raises:
            LogError: ``log.damaged``: it cannot be told, for something on the disk cannot be read or is not what it
                was. ``log.closed``: a checkpoint failed half way.
        """
        with self._checkpointing:
            if size > self._size:
                return None
            tree, covered = self._tiles.tree, self._covered
            if size <= covered.size:
                return signed_root(self.folder, covered.size, covered.root, size)
            if size < tree.size:  # the tree went ahead of what was stored, and that is the log's end
                self._require_open()
            try:
                records = islice(self._entries.read(self._read_to, self._entries.end), size - tree.size)
                return tree.copy(leaf_hash(record.data) for _, record in records).root()
            except OSError as error:
                raise LogError("log.damaged", f"{self.folder}: {error.strerror}; look at the disk") from error

    def __iter__(self) -> Iterator[bytes]:
        for _, record in self._entries.read(Position(0, 0), self._entries.end):
            yield record.data

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    def checkpoint(self) -> bytes:
        """Sign and publish what is on the record now; some milliseconds of disk, so call it off the loop.

        Raises:
            LogError: ``log.no_checkpoints``, ``log.write``, ``log.damaged``, ``log.forked``, ``log.closed``,
                ``log.rolled_back``.
        """
        if self._durability == "off":
            raise LogError("log.no_checkpoints", "open it with durability 'process' or 'fsync'")
        with self._checkpointing:
            return self._checkpoint()

    def _checkpoint(self) -> bytes:
        if self.published is not None and self._size == self._covered.size and not self._failed:
            return self.published
        size, entries, blobs, boxes = self._sync()
        self._extend(entries)
        with self._fatal():
            if self._tiles.tree.size != size:
                raise LogError("log.damaged", f"{self._tiles.tree.size} entries on the disk, {size} were written")
            covered = Covered(size, self._tiles.tree.root(), entries, blobs, boxes)
            self._state.swap(self._covered, covered)
            self._covered = covered
            self._tiles.write()
            return self._publish()

    def _publish(self) -> bytes:
        note = self.published = publish(self.folder, self.origin, self._covered, self._key)
        return note

    def _extend(self, end: Position) -> None:
        """Move the tree to ``end``, over what the disk holds."""
        with self._fatal():
            records = self._entries.read(self._read_to, end)
            while entries := [record.data for _, record in islice(records, breath.GROUP)]:
                self._tiles.extend([leaf_hash(data) for data in entries], entries)
                breath.take()
        self._read_to = end

    # ── other logs ───────────────────────────────────────────────────────────────────────────────────────────────

    def keep_note(self, kept: KeptNote) -> None:
        """Keep the newest note of another log in the state, durably.

        Raises:
            LogError: ``log.state``.
        """
        self._state.keep_note(kept)

    def drop_note(self, origin: str, log_key: bytes) -> None:
        """Forget a log's newest note.

        Raises:
            LogError: ``log.state``.
        """
        self._state.drop_note(origin, log_key)

    def kept_notes(self) -> list[KeptNote]:
        """The newest notes of other logs."""
        return self._state.kept_notes()

    def keep_fork(self, kept: KeptNote, other: bytes) -> bool:
        """Keep two notes that cannot both be true, in a file of their own.

        Raises:
            LogError: ``log.write``.
        """
        return keep_fork(self.folder, kept, other)

    def roll_back(self, note: bytes) -> None:
        """Keep a peer's newer note of this log as evidence, and stop.

        Raises:
            Malformed, BadSignature: it is not this log's, by this key.
            LogError: ``log.write``. The log has stopped nevertheless.
        """
        verify_checkpoint(note, self.origin, self._key.public)
        self._failed = "rolled back"
        try:
            replace_file(self.folder / EVIDENCE, note)
        except OSError as error:
            raise LogError("log.write", f"{self.folder}: {error.strerror}; keep the peer's note by hand") from error

    def close(self) -> None:
        """Checkpoint where that is possible, and let go of files and lock."""
        with self._checkpointing:
            if self._closed:
                return
            try:
                if not self._failed:
                    with self._writing, self._fatal():
                        self._write_pending()
                    if self._durability != "off":
                        self._checkpoint()
            finally:
                with self._writing:
                    self._closed = True
                self._entries.close()
                self._blobs.close()
                self._boxes.close()
                self._state.close()
                os.close(self._lock)


class _Fatal:
    """What raises in here is the log's last word."""

    def __init__(self, log: FileLog) -> None:
        self._log = log

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and not self._log._failed:
            self._log._failed = "stopped by an error of the disk"


def _boot_id() -> str:
    """What Linux calls this run of the machine; where nobody says, no loss of power is ever assumed."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _close_quietly(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return  # FileLog.close did
