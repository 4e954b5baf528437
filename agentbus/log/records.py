"""How entries, blobs and boxes stand in segment files: ``u32 length ‖ u32 crc32 ‖ bytes``, big-endian, on end.

The checksum finds accidents and tells where; what proves anything is the leaf hash. No record is empty: zeros,
which file systems leave after a loss of power, is never read as records.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

HEAD: Final = struct.Struct(">II")
BOX_HEAD: Final = struct.Struct(">32sQ")
"""Before a box in its record: its name, and the slot of the key file that holds its key."""
SEGMENT: Final = 64 * 1024 * 1024  # bytes; a segment is read whole, and one file a gigabyte is too few to prune by
MAX_RECORD: Final = 16 * 1024 * 1024  # bytes; the largest blob, sixteen largest frames


class Record(NamedTuple):
    """One record as it was written."""

    offset: int  # of its length field
    data: bytes


class Bad(NamedTuple):
    """A place where no good record stands."""

    offset: int
    reason: str
    torn: bool  # nothing follows it: a write that was cut off looks so
    after: int | None = None  # where reading can go on; None: nothing behind it can be found
    unfinished: bool = False  # the file ends before the record does: a write that is under way looks so


def encode_records(items: Iterable[bytes]) -> bytes:
    """The bytes of several records."""
    parts: list[bytes] = []
    add, head, crc32 = parts.append, HEAD.pack, zlib.crc32
    for data in items:
        add(head(len(data), crc32(data)))
        add(data)
    return b"".join(parts)


def scan(segment: bytes, start: int = 0) -> Iterator[Record | Bad]:
    """The records of a segment from ``start``; a record with a bad checksum is reported and stepped over.

    Where a length cannot be right nothing after it can be found: that is the last item.
    """
    at, end = start, len(segment)
    while at < end:
        if end - at < HEAD.size:
            yield Bad(at, f"{end - at} bytes are no record", torn=True, unfinished=True)
            return
        length, checksum = HEAD.unpack_from(segment, at)
        after = at + HEAD.size + length
        if length == 0 or length > MAX_RECORD:
            yield Bad(at, f"a record of {length} bytes cannot be", torn=only_zeros(segment, at) or after > end)
            return
        if after > end:
            missing = f"a record of {length} bytes of which {after - end} are missing"
            yield Bad(at, missing, torn=True, unfinished=True)
            return
        data = segment[at + HEAD.size : after]
        if zlib.crc32(data) == checksum:
            yield Record(at, data)
        else:
            torn = only_zeros(segment, after)
            yield Bad(at, f"the checksum of a record of {length} bytes differs", torn=torn, after=after)
        at = after


def only_zeros(data: bytes, start: int) -> bool:
    """Whether nothing but zeros stands from here on."""
    # a look at a few first: else each of many bad records would copy all that is behind it
    return not any(data[start : start + 64]) and data.count(0, start) == len(data) - min(start, len(data))


def entry_segment(number: int) -> str:
    """The file name of the entries' segment ``number``."""
    return f"{number:08d}.seg"


def blob_segment(number: int) -> str:
    """The file name of the blobs' segment ``number``; a record there is ``sha256 ‖ blob``."""
    return f"blobs-{number:08d}.seg"


def box_segment(number: int) -> str:
    """The file name of the boxes' segment ``number``; a record there is ``sha256 of the box ‖ u64 slot ‖ box``."""
    return f"boxes-{number:08d}.seg"


KEYS: Final = "box-keys"
"""The file of the boxes' keys: slots of 32 bytes, zeros where a key was destroyed."""
