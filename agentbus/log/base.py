"""The port that a node writes its log through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol


class LogStore(Protocol):
    """An append-only list of entries and a set of blobs. What was appended is never changed, moved or dropped.

    One thread appends; :meth:`checkpoint`, :meth:`sync` and :meth:`root` may run in another meanwhile.
    """

    @property
    def size(self) -> int:
        """How many entries are on the record: the index of the next one."""
        ...

    def append(self, entries: Sequence[bytes]) -> None:
        """Put entries on the record, in order; they are on it when this returns, as far as the durability goes.

        Nothing is appended partly: after an error none of them counts, and the store takes no more.
        """
        ...

    def put_blob(self, data: bytes) -> bytes:
        """Keep ``data`` and return its SHA-256. The same data is kept once.

        Put a blob before the entry that names it: the other order could leave an entry that names nothing.
        """
        ...

    def blob(self, digest: bytes) -> bytes | None:
        """The blob of this digest; None when there is none."""
        ...

    def root(self) -> bytes:
        """The root over the leaves of all entries."""
        ...

    def sync(self) -> None:
        """Return when all that was appended would survive the loss of power."""
        ...

    def checkpoint(self) -> bytes:
        """Sign and publish a checkpoint over what is on the record now; the same one while nothing is new."""
        ...

    def close(self) -> None:
        """Checkpoint where that is possible, and let go of the files. Twice is harmless."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """The entries, from the first."""
        ...
