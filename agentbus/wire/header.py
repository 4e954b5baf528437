"""The header of an envelope: 29 positions of one msgpack array, version 1 (docs/spec/envelope.md).

Everything a signature has to cover is here or is committed to by a digest that is here.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgpack

from agentbus.errors import Malformed
from agentbus.wire.codec import pack
from agentbus.wire.ids import parse_id
from agentbus.wire.limits import Limits

VERSION: Final = 1

CODES: Final = {
    "malformed.header": "The header is not 29 positions of the right types and lengths, in canonical form.",
    "malformed.version": "This header's version is not one this receiver speaks.",
    "malformed.kind": "The positions do not fit the kind of this envelope.",
    "malformed.extension": "Extensions are ascending [number, critical, bytes], at most 8, and an unknown critical one"
    " must be refused.",
}


class Kind(IntEnum):
    """What an envelope is."""

    REQUEST = 1
    REPLY = 2
    ERROR = 3
    SEND = 4
    RECEIPT = 5
    EVENT = 6
    STREAM = 7
    ITEM = 8
    END = 9
    CREDIT = 10
    CANCEL = 11
    PROGRESS = 12
    JOB = 13


OPENING: Final = frozenset({Kind.REQUEST, Kind.SEND, Kind.EVENT, Kind.STREAM, Kind.JOB})
"""Kinds that ask for something: judged by targets and scopes."""
ANSWERING: Final = frozenset({Kind.REPLY, Kind.ERROR, Kind.RECEIPT, Kind.ITEM, Kind.END, Kind.PROGRESS})
"""Kinds the callee sends about an exchange the caller opened."""
STEERING: Final = frozenset({Kind.CREDIT, Kind.CANCEL})
"""Kinds the caller sends about an exchange it opened."""
INDEXED: Final = frozenset({Kind.ITEM, Kind.END, Kind.CREDIT})
"""Kinds that carry a stream index: an item's place, the end's count, the credit's upper bound."""


class Flag(IntEnum):
    """Bits of ``flags``; any other bit is refused."""

    REPLAY = 1


class Header(NamedTuple):
    """One envelope's header. Instants are microseconds since 1970-01-01 UTC; digests are SHA-256, 32 bytes."""

    version: int
    kind: int
    message_id: bytes  # 16 random bytes
    conversation: bytes  # 16 random bytes, shared by everything that one question causes
    sender: str
    sender_instance: bytes  # 16 bytes
    sender_key: bytes  # RFC 7638 thumbprint of the instance key
    seq: int  # per instance, from 1, gap-free
    recipient: str
    recipient_instance: bytes | None
    peer_seq: int  # per (sender instance, recipient instance), from 1
    topic: str | None
    stream_index: int | None
    in_reply_to: bytes | None  # message digest
    cause: bytes | None  # message digest of what this agent was handling
    action: str  # the message type
    issued_at: int
    deadline: int
    body_type: str
    body_length: int
    body_commitment: bytes
    chain_digest: bytes
    handover_digest: bytes | None
    directory_size: int
    revocation_seq: int
    checkpoint_digest: bytes | None
    traceparent: str | None
    flags: int
    extensions: list[list[Any]]


_INT: Final = (int,)
_STR: Final = (str,)
_BYTES: Final = (bytes,)
_BYTES_NIL: Final = (bytes, type(None))
_STR_NIL: Final = (str, type(None))
_INT_NIL: Final = (int, type(None))
_TYPES: Final = (
    _INT, _INT, _BYTES, _BYTES, _STR, _BYTES, _BYTES, _INT, _STR, _BYTES_NIL, _INT, _STR_NIL, _INT_NIL, _BYTES_NIL,
    _BYTES_NIL, _STR, _INT, _INT, _STR, _INT, _BYTES, _BYTES, _BYTES_NIL, _INT, _INT, _BYTES_NIL, _STR_NIL, _INT,
    (list,),
)  # fmt: skip
_fixed: Final = itemgetter(2, 3, 5, 6, 20, 21)
_FIXED_LENGTHS: Final = (16, 16, 16, 32, 32, 32)
_OPTIONAL_LENGTHS: Final = ((9, 16), (13, 32), (14, 32), (22, 32), (25, 32))
_numbers: Final = itemgetter(0, 1, 7, 10, 16, 17, 19, 23, 24, 27)
_TEXTS: Final = (11, 15, 18, 26)
_MAX_INT: Final = 1 << 63


@lru_cache(maxsize=1024)
def _types_fit(types: tuple[type, ...]) -> bool:
    """Whether each position has a type that version 1 gives it; asked once for each combination that occurs."""
    return all(kind in allowed for kind, allowed in zip(types, _TYPES, strict=True))


def encode_header(header: Header) -> bytes:
    """The canonical bytes of a header: what is hashed into a leaf and so what is signed."""
    return bytes(pack(header))


def decode_header(data: bytes, limits: Limits) -> Header:
    """Read a header: canonical, version 1, every position of its type, length and range.

    Raises:
        Malformed: ``malformed.header``, ``malformed.version``, ``malformed.kind``, ``malformed.extension``.
    """
    if len(data) > limits.header:
        raise Malformed("malformed.header", f"a header has at most {limits.header} bytes")
    try:
        row = msgpack.unpackb(data, raw=False, use_list=True, max_ext_len=0, max_map_len=0)
        if type(row) is not list or len(row) != 29 or pack(row) != data:
            raise Malformed("malformed.header", "not 29 positions in canonical form")
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        if isinstance(error, Malformed):
            raise
        raise Malformed("malformed.header", "not a msgpack array") from error
    if not _types_fit(tuple(map(type, row))):
        raise Malformed("malformed.header", "a position has another type than version 1 gives it")
    header = Header._make(row)
    if header.version != VERSION:
        raise Malformed("malformed.version", f"version {header.version} is not spoken here")
    if tuple(map(len, _fixed(row))) != _FIXED_LENGTHS:
        raise Malformed("malformed.header", "an id, key id, commitment or digest has another length")
    for index, length in _OPTIONAL_LENGTHS:
        if row[index] is not None and len(row[index]) != length:
            raise Malformed("malformed.header", f"position {index} does not have {length} bytes")
    for index in _TEXTS:
        if row[index] is not None and not 0 < len(row[index]) <= limits.text:
            raise Malformed("malformed.header", f"position {index} does not have 1 to {limits.text} characters")
    numbers = _numbers(row)
    if min(numbers) < 0 or max(numbers) >= _MAX_INT or not 0 <= (header.stream_index or 0) < _MAX_INT:
        raise Malformed("malformed.header", "an integer is negative or above 63 bits")
    parse_id(header.sender)
    parse_id(header.recipient)
    _check_kind(header)
    _check_extensions(header.extensions, limits)
    return header


def _check_kind(header: Header) -> None:
    kind = header.kind
    if not 1 <= kind <= 13:
        raise Malformed("malformed.kind", f"kind {kind} does not exist")
    opening = kind in OPENING
    fits = (
        (header.in_reply_to is None) == opening
        and (header.stream_index is not None) == (kind in INDEXED)
        and (header.handover_digest is None or opening)
        and (header.topic is not None) == (kind == Kind.EVENT)
        and (header.recipient_instance is not None or kind in (Kind.JOB, Kind.EVENT))
        and header.flags in (0, Flag.REPLAY)
        and header.seq > 0
        and header.peer_seq > 0
    )
    if not fits:
        raise Malformed("malformed.kind", f"the positions do not fit a {Kind(kind).name.lower()}")


def _check_extensions(extensions: list[list[Any]], limits: Limits) -> None:
    last = -1
    for item in extensions:
        if type(item) is not list or len(item) != 3 or [type(part) for part in item] != [int, bool, bytes]:
            raise Malformed("malformed.extension", "an extension is [number, critical, bytes]")
        if item[0] <= last:
            raise Malformed("malformed.extension", "extensions ascend by number")
        if item[1]:
            raise Malformed("malformed.extension", f"critical extension {item[0]} is unknown here")
        last = item[0]
    if len(extensions) > limits.extensions:
        raise Malformed("malformed.extension", f"at most {limits.extensions} extensions")
