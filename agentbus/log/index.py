"""Where blobs and boxes are: 16 bytes each, however many there are.

A segment is indexed by itself, so that several processes can share the work and none of them ever sorts a whole log.
Who reads a log on as it grows has several pieces of one segment; small ones are merged as they come, so that there are
few, and each place is moved a few times.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from agentbus.log.records import BOX_HEAD, HEAD, Bad
from agentbus.log.scanning import Place, Stretch, stretches

STATEMENT: Final = b"\x95\x03"
"""How an encoded instance statement begins: an array of five, the first of them ``statements.INSTANCE``."""
DAMAGES: Final = 1000
"""Places that are remembered of one segment: whoever makes bad records may make millions."""
_OFFSET_BITS: Final = 40
_MERGED: Final = 1 << 13
"""Places of a piece that is still merged: some milliseconds, in which a node that writes does nothing else."""


class Damage(NamedTuple):
    """A place in a segment where no good record stands."""

    segment: str
    offset: int
    reason: str
    torn: bool = False

    def __str__(self) -> str:
        return f"{self.segment} at byte {self.offset}: {self.reason}{' (torn tail)' if self.torn else ''}"


class Piece(NamedTuple):
    """An index of one segment or a part of it. Of a digest eight bytes are kept: who reads there checks it all."""

    segment: int
    digests: array[int]  # ascending
    offsets: array[int]  # of the records, in the same order
    damage: list[Damage]
    unfinished: list[Damage]  # a record at the very end that is only half there
    statements: list[bytes]  # digests of blobs that look like instance statements
    end: int  # where the last good record ends


class Index:
    """From digests to places.

    Args:
        pieces: In order.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.pieces = list(pieces)

    def __len__(self) -> int:
        return sum(len(piece.digests) for piece in self.pieces)

    def places(self, digest: bytes) -> Iterator[Place]:
        """The places at which the digest may be, nearly always one or none."""
        wanted = int.from_bytes(digest[:8], "big")
        for segment, digests, offsets, *_ in self.pieces:
            at = bisect_left(digests, wanted)
            while at < len(digests) and digests[at] == wanted:
                yield Place(segment, offsets[at])
                at += 1

    @property
    def last(self) -> int:
        """The last segment that is indexed."""
        return self.pieces[-1].segment if self.pieces else 0

    def end(self, segment: int) -> int:
        """How far a segment is indexed."""
        return next((piece.end for piece in reversed(self.pieces) if piece.segment == segment), 0)

    def grown(self, more: Iterable[Piece]) -> Index:
        """This index and what was found behind it."""
        pieces = list(self.pieces)
        for piece in more:
            if pieces and pieces[-1].segment == piece.segment:  # what was half there was read again with this one
                pieces[-1] = pieces[-1]._replace(unfinished=[])
            while pieces and _may_merge(pieces[-1], piece):
                piece = _merged(pieces.pop(), piece)
            pieces.append(piece)
        return Index(pieces)


def piece_of(segment: int, places: Iterable[tuple[bytes, int]], end: int) -> Piece:
    """The index of records of one segment that are known: digests and offsets."""
    return _filled(_empty(segment), [_row(digest, offset) for digest, offset in places], end)


def index_blobs(path: Path, number: int, last: bool, start: int = 0) -> Piece:
    """The index of one segment of blobs, each of which is hashed.

    Args:
        path: The segment.
        number: Its number.
        last: No segment follows: a record that is cut off there may be one that is being written.
        start: Where to begin: where a record does.
    """
    piece, rows = _empty(number), []
    end = start
    for found in _stretches(path, last, piece, start):
        end = _end_of(found)
        for offset, record in zip(found.offsets, found.records, strict=True):
            digest, data = record[:32], record[32:]
            if hashlib.sha256(data).digest() != digest:
                if len(piece.damage) < DAMAGES:
                    piece.damage.append(Damage(path.name, offset, "a blob is not the one of its digest"))
                continue
            if data.startswith(STATEMENT):
                piece.statements.append(digest)
            rows.append(_row(digest, offset))
    return _filled(piece, rows, end)


def index_boxes(path: Path, number: int, last: bool, start: int = 0) -> Piece:
    """The index of one segment of boxes; whether a box is the one of its name is asked when it is opened."""
    piece, rows = _empty(number), []
    shortest, end = BOX_HEAD.size + 1, start
    for found in _stretches(path, last, piece, start):
        end = _end_of(found)
        offsets, records = found
        if min(map(len, records)) < shortest:
            good = [at for at, record in enumerate(records) if len(record) >= shortest]
            bad = [offset for offset, record in zip(offsets, records, strict=True) if len(record) < shortest]
            bad = bad[: max(0, DAMAGES - len(piece.damage))]
            piece.damage.extend(Damage(path.name, offset, "this is no box") for offset in bad)
            offsets, records = [offsets[at] for at in good], [records[at] for at in good]
        rows += [_row(record, offset) for offset, record in zip(offsets, records, strict=True)]
    return _filled(piece, rows, end)


def _stretches(path: Path, last: bool, piece: Piece, start: int) -> Iterator[Stretch]:
    with path.open("rb") as file:
        for found in stretches(file, start, path.stat().st_size):
            if isinstance(found, Bad):
                where = piece.unfinished if found.unfinished and last else piece.damage
                if len(where) < DAMAGES:
                    where.append(Damage(path.name, found.offset, found.reason, found.torn and last))
            else:
                yield found


def _empty(number: int) -> Piece:
    return Piece(number, array("Q"), array("Q"), [], [], [], 0)


def _end_of(found: Stretch) -> int:
    return found.offsets[-1] + HEAD.size + len(found.records[-1])


def _row(digest: bytes, offset: int) -> int:
    return int.from_bytes(digest[:8], "big") << _OFFSET_BITS | offset


def _filled(piece: Piece, rows: list[int], end: int) -> Piece:
    rows.sort()
    mask = (1 << _OFFSET_BITS) - 1
    piece.digests.extend(row >> _OFFSET_BITS for row in rows)
    piece.offsets.extend(row & mask for row in rows)
    return piece._replace(end=end)


def _may_merge(one: Piece, behind: Piece) -> bool:
    small = min(2 * len(behind.digests), _MERGED)
    return one.segment == behind.segment and len(one.digests) <= small


def _merged(one: Piece, behind: Piece) -> Piece:
    """Two pieces of one segment as one."""
    rows = [
        digest << _OFFSET_BITS | offset
        for piece in (one, behind)
        for digest, offset in zip(piece.digests, piece.offsets, strict=True)
    ]
    damage, statements = [*one.damage, *behind.damage], [*one.statements, *behind.statements]
    whole = _empty(one.segment)._replace(damage=damage, unfinished=behind.unfinished, statements=statements)
    return _filled(whole, rows, behind.end)
