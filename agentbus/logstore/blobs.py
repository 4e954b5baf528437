"""Blobs on the disk: chains and statements, each kept once and for ever, found again by their SHA-256.

Rule 1: a blob is written before the entry that names it.
Rule 2: memory is 16 bytes for each blob, and a table of the newest: a node lives long, and each start, each hour and
each peer brings new ones. Eight bytes of a digest are kept, so what is found is read before it is believed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from agentbus.errors import LogError
from agentbus.log.index import Index, piece_of
from agentbus.log.records import HEAD, blob_segment, encode_records
from agentbus.logstore.recovery import record_at
from agentbus.logstore.segments import Position, Segments

RECENT: Final = 1024
"""Blobs whose places are kept with their whole digests."""


class Blobs:
    """The blobs of one log, written by its one writer; another thread may look for one meanwhile.

    Args:
        folder: The log's.
        end: Where the last good blob ends.
        index: Where those are that are there.
    """

    def __init__(self, folder: Path, end: Position, index: Index) -> None:
        self._folder, self._index = folder, index
        self._segments = Segments(folder, blob_segment, end)
        self._recent: dict[bytes, Position] = {}  # all of one segment
        self._segment = end.segment
        self._pending: dict[bytes, bytes] = {}
        self.pending_bytes = 0

    @property
    def end(self) -> Position:
        """Where the last written blob ends."""
        return self._segments.end

    def put(self, digest: bytes, data: bytes) -> None:
        """Keep what :meth:`write` writes, and :meth:`has` did not find."""
        self._pending[digest] = data
        self.pending_bytes += len(data)

    def has(self, digest: bytes) -> bool:
        """Whether this blob is kept, here or on the disk."""
        if digest in self._pending or digest in self._recent:
            return True
        try:
            return any(self._read(Position(*place))[0] == digest for place in self._index.places(digest))
        except LogError:
            return False  # written once more it can be read

    def write(self) -> None:
        """Write the blobs that wait, in one piece.

        Raises:
            LogError: ``log.write``.
        """
        if not self._pending:
            return
        start = self._segments.write(encode_records(digest + data for digest, data in self._pending.items()))
        if len(self._recent) >= RECENT or start.segment != self._segment:
            self._settle()
        self._segment, offset = start
        for digest, data in self._pending.items():
            self._recent[digest] = Position(start.segment, offset)
            offset += HEAD.size + len(digest) + len(data)
        self._pending = {}
        self.pending_bytes = 0

    def sync(self) -> None:
        """Return when what was written would survive the loss of power.

        Raises:
            LogError: ``log.write``.
        """
        self._segments.sync()

    def get(self, digest: bytes) -> bytes | None:
        """The blob of this digest.

        Raises:
            LogError: ``log.damaged`` when the disk gives back another one.
        """
        waiting = self._pending.get(digest)
        if waiting is not None:
            return waiting
        known = self._recent.get(digest)
        for place in [known] if known is not None else map(Position._make, self._index.places(digest)):
            name, data = self._read(place)
            if name != digest and known is None:
                continue  # another one, which begins alike
            if hashlib.sha256(data).digest() != digest:
                raise LogError("log.damaged", f"{blob_segment(place.segment)} at byte {place.offset}: another blob")
            return data
        return None

    def close(self) -> None:
        """Let go of the file."""
        self._segments.close()

    def _settle(self) -> None:
        """Let go of the newest ones' digests. Who looks for one meanwhile looks there first, and then here."""
        places = ((digest, place.offset) for digest, place in self._recent.items())
        self._index = self._index.grown([piece_of(self._segment, places, 0)])
        self._recent = {}

    def _read(self, place: Position) -> tuple[bytes, bytes]:
        """The name and content of the record at a place."""
        try:
            data = record_at(self._folder, blob_segment(place.segment), place)
        except OSError as error:
            text = f"{blob_segment(place.segment)}: {error.strerror}; look at the disk"
            raise LogError("log.damaged", text) from error
        return data[:32], data[32:]
