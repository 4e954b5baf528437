"""The port that a node writes its log through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

FORKS_OF: Final = 4
"""Pairs of contradicting notes that are kept of one log: one proves it, and whoever forks may do it without end."""
FORKS_BY: Final = 16
"""Likewise of all logs that one principal showed."""


class KeptNote(NamedTuple):
    """The newest note of a log of another node; a log is its origin *and* its key: a principal may have run two."""

    origin: str
    log_key: bytes  # raw: the public key that the note's signature verified under
    by: str  # the principal that showed it first, whose statement names that key
    size: int
    note: bytes


class LogStore(Protocol):
    """An append-only list of entries, a set of blobs, and boxes that can be erased.

    What was appended is never changed, moved or dropped. One thread appends; :meth:`checkpoint`, :meth:`sync` and
    :meth:`root_at` may run in another meanwhile.
    """

    @property
    def origin(self) -> str:
        """``agentbus.<trust domain>/<node>/<epoch>``."""
        ...

    @property
    def log_key(self) -> bytes:
        """Raw public key that this log's checkpoints verify under."""
        ...

    @property
    def size(self) -> int:
        """How many entries are on the record: the index of the next one."""
        ...

    @property
    def published(self) -> bytes | None:
        """The newest checkpoint that was signed over this log, if there is one."""
        ...

    @property
    def previous(self) -> bytes | None:
        """The newest note known of the epoch before this one; None in the first."""
        ...

    def append(self, entries: Sequence[bytes]) -> None:
        """Put entries on the record, in order; they are on it when this returns, as far as the durability goes.

        Nothing is appended partly: after an error none of them counts, and the store takes no more.
        """
        ...

    def put_blob(self, data: bytes) -> bytes:
        """Keep ``data`` for ever and return its SHA-256. The same data is kept once.

        Put a blob before the entry that names it: the other order could leave an entry that names nothing.
        """
        ...

    def blob(self, digest: bytes) -> bytes | None:
        """The blob of this digest; None when there is none."""
        ...

    def put_box(self, data: bytes) -> bytes:
        """Keep ``data`` encrypted under a fresh key until it is erased; returns the name an entry uses for it.

        Put a box before the entry that names it.
        """
        ...

    def put_boxes(self, datas: Sequence[bytes]) -> list[bytes]:
        """:meth:`put_box` for each of ``datas``; their names."""
        ...

    def box(self, name: bytes) -> bytes | None:
        """What the box of this name holds; None where there is none or its key was destroyed."""
        ...

    def erase(self, name: bytes) -> bool:
        """Destroy the key of a box, durably. False where there is no such box or it was erased before."""
        ...

    def about(self, digest: bytes) -> Iterator[bytes]:
        """The entries that hold something of this message which can be erased, and perhaps others; in their order.

        What it costs does not grow with the log, but for the first time it is asked. Another thread may ask.
        """
        ...

    def root_at(self, size: int) -> bytes | None:
        """The root over the first ``size`` entries; None where there are fewer, and for no other reason.

        Raises:
            LogError: it cannot be told, for what it is made of cannot be read or is damaged.
        """
        ...

    def sync(self) -> None:
        """Return when all that was appended would survive the loss of power."""
        ...

    def checkpoint(self) -> bytes:
        """Sign and publish a checkpoint over what is on the record now; the same one while nothing is new."""
        ...

    def keep_note(self, kept: KeptNote) -> None:
        """Remember the newest note of another log; it outlives this process and this log."""
        ...

    def drop_note(self, origin: str, log_key: bytes) -> None:
        """Forget what :meth:`keep_note` kept of a log."""
        ...

    def kept_notes(self) -> list[KeptNote]:
        """The newest notes of other logs."""
        ...

    def keep_fork(self, kept: KeptNote, other: bytes) -> bool:
        """Keep two notes of another log that cannot both be true: the evidence, in a file of its own.

        Returns:
            False: two of that log and size are kept already, or as many as may be kept of that log or principal.
        """
        ...

    def roll_back(self, note: bytes) -> None:
        """A note of this very log, signed by its key, that this log does not lead to: it was restored from a backup.

        It is kept as evidence; nothing is appended or signed here any more.
        """
        ...

    def close(self) -> None:
        """Checkpoint where that is possible, and let go of the files. Twice is harmless."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """The entries, from the first."""
        ...
