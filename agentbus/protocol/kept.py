"""Frames that may have to be sent again: open questions by whoever asked, final answers by whoever gave them.

A connection that breaks takes with it what was under way, in either direction. The same frame, sent again over the next
connection, is the same message: a recipient that knows it repeats its answer and runs nothing twice.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

BYTES: Final = 64 * 1024 * 1024  # of one node; beyond it the oldest cannot be sent again


class Kept:
    """Frames by the exchange they belong to, bounded in bytes, oldest out first.

    Args:
        limit: Bytes, all frames together.
    """

    def __init__(self, limit: int = BYTES) -> None:
        self._limit = limit
        self._frames: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self.bytes = 0

    def put(self, role: str, digest: bytes, frame: bytes) -> None:
        """Keep the frame of an exchange; a later one takes its place."""
        old = self._frames.get((role, digest))
        self._frames[role, digest] = frame
        self.bytes += len(frame) - (len(old) if old is not None else 0)
        while self.bytes > self._limit:
            self.bytes -= len(self._frames.popitem(last=False)[1])

    def get(self, role: str, digest: bytes) -> bytes | None:
        """The frame, while it is kept."""
        return self._frames.get((role, digest))

    def drop(self, role: str, digest: bytes) -> None:
        """Nobody will want it again."""
        frame = self._frames.pop((role, digest), None)
        if frame is not None:
            self.bytes -= len(frame)
