"""Frames of the directory's synchronisation: plain arrays that carry signed statements.

They are not signed, because nothing in them is believed: what comes is judged by ``Trust.advance`` alone, and what is
asked for is public to whoever may connect. ``0x02 ‖ [operation, number, …]``.
"""

from __future__ import annotations

from typing import Any, Final

from agentbus.errors import Malformed
from agentbus.wire.codec import pack, unpack_array
from agentbus.wire.frame import ENROLMENT, STATEMENTS

CODES: Final = {
    "malformed.sync": "This frame of the directory's synchronisation has not the shape of its operation.",
}

_SHAPES: Final[dict[str, tuple[type, ...]]] = {
    "poll": (int, bytes, bytes),  # the size that is known; the newest head of it; the entry of its key; or empty
    "head": (bytes, list, list),  # signed note, entries from that size on, key ids of instances that ended
    "find": (list, list),  # key ids, principals
    "found": (list,),  # instance statements
    "publish": (bytes,),  # an instance statement
    "standing": (bytes,),  # the chain it is answered with
    "refused": (str, str),  # code, message
    "leave": (list,),  # instance ids
    "push": (bytes, list, list, list),  # note or empty, entries, statements, ended key ids
    "enrol": (str, bytes, bytes, int, bytes),  # principal, key, CURVE key, expiry, proof of possession
    "enrolled": (),
    "rotate": (str, bytes, bytes, bytes),  # principal, rotation, the old key's signature, the new key's
    "rotated": (),
    "head-at": (int,),  # between nodes: which head have you of this size, or else the newest?
    "head-of": (bytes,),  # a head, or empty
}


def encode_sync(operation: str, number: int, *parts: Any) -> bytes:
    """A frame: the operation, the number its answer repeats (0: a push), and its parts."""
    tag = ENROLMENT if operation == "enrol" else STATEMENTS
    return bytes([tag]) + bytes(pack([operation, number, *parts]))


def decode_sync(frame: bytes) -> tuple[str, int, list[Any]]:
    """(operation, number, parts) of a frame, each part of its type.

    Raises:
        Malformed: ``malformed.sync``.
    """
    row = unpack_array(frame[1:])
    if len(row) < 2 or type(row[0]) is not str or type(row[1]) is not int or row[0] not in _SHAPES:
        raise Malformed("malformed.sync", "no such operation")
    operation, number, *parts = row
    if tuple(map(type, parts)) != _SHAPES[operation]:
        raise Malformed("malformed.sync", f"not the shape of {operation}")
    if frame[0] != (ENROLMENT if operation == "enrol" else STATEMENTS):
        raise Malformed("malformed.sync", "enrolment has a frame of its own")
    for part in parts:
        if type(part) is list and (len(part) > 4096 or any(type(item) not in (bytes, str) for item in part)):
            raise Malformed("malformed.sync", "lists hold statements or ids, 4096 at most")
    return operation, number, parts
