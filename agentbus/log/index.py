"""Where blobs and boxes are: 16 bytes each, however many there are."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_OFFSET_BITS = 40
_MASK = (1 << 64) - 1


class Place(NamedTuple):
    """Where a record begins."""

    segment: int
    offset: int


class Index:
    """From digests to places. Only the first eight bytes of a digest are kept: whoever reads there checks the rest.

    Args:
        found: Digests with their places, in the order of the records.
    """

    def __init__(self, found: Iterable[tuple[bytes, Place]]) -> None:
        rows = [
            int.from_bytes(digest[:8], "big") << 64 | place.segment << _OFFSET_BITS | place.offset
            for digest, place in found
        ]
        rows.sort()
        self._digests = array("Q", (row >> 64 for row in rows))
        self._places = array("Q", (row & _MASK for row in rows))

    def __len__(self) -> int:
        return len(self._digests)

    def places(self, digest: bytes) -> Iterator[Place]:
        """The places at which the digest may be, nearly always one or none."""
        wanted = int.from_bytes(digest[:8], "big")
        at = bisect_left(self._digests, wanted)
        while at < len(self._digests) and self._digests[at] == wanted:
            row = self._places[at]
            yield Place(row >> _OFFSET_BITS, row & ((1 << _OFFSET_BITS) - 1))
            at += 1
