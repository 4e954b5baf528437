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
_LENGTHS: Final = {2: 16, 3: 16, 5: 16, 6: 32, 9: 16, 13: 32, 14: 32, 20: 32, 21: 32, 22: 32, 25: 32}
"""Bytes at each position that holds bytes."""
_TEXTS: Final = (11, 15, 18, 26)  # sender and recipient have a grammar of their own
_MAX_INT: Final = 1 << 63
_FLAGS: Final = int(Flag.REPLAY)


class _Form(NamedTuple):
    """What one combination of types leaves to be checked: a few calls over whole rows, not one for each position."""

    sized: itemgetter[Any]  # the positions that hold bytes, and behind them those that hold texts
    lengths: tuple[int, ...]  # how many bytes each holds
    fixed: int  # how many positions that are
    numbers: itemgetter[Any]


@lru_cache(maxsize=1024)
def _form(types: tuple[type, ...], kind: int) -> _Form | None:
    """The form of a header whose positions have these types; None when version 1 has no such header of this kind."""
    if not all(one in allowed for one, allowed in zip(types, _TYPES, strict=True)):
        return None
    if not _fits(kind, [one is not type(None) for one in types]):
        return None
    fixed = [at for at in _LENGTHS if types[at] is bytes]
    texts = [at for at in _TEXTS if types[at] is str]
    numbers = [at for at, one in enumerate(types) if one is int]
    return _Form(itemgetter(*fixed, *texts), tuple(_LENGTHS[at] for at in fixed), len(fixed), itemgetter(*numbers))


def _fits(kind: int, given: list[bool]) -> bool:
    """Whether what is nil fits the kind."""
    opening = kind in OPENING
    return (
        1 <= kind <= 13
        and given[13] != opening  # in_reply_to
        and given[12] == (kind in INDEXED)  # stream_index
        and (not given[22] or opening)  # handover_digest
        and given[11] == (kind == Kind.EVENT)  # topic
        and (given[9] or kind in (Kind.JOB, Kind.EVENT))  # recipient_instance
    )


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
    types = tuple(map(type, row))
    form = _form(types, row[1]) if types[1] is int else None
    if form is None:
        raise _misfit(types, row)
    header = tuple.__new__(Header, row)
    if row[0] != VERSION:
        raise Malformed("malformed.version", f"version {row[0]} is not spoken here")
    sized, lengths, fixed, get_numbers = form
    found = tuple(map(len, sized(row)))
    if found[:fixed] != lengths:
        raise Malformed("malformed.header", "an id, key id, commitment or digest has another length")
    texts = found[fixed:]
    if 0 in texts or max(texts) > limits.text:
        raise Malformed("malformed.header", f"a text does not have 1 to {limits.text} characters")
    numbers = get_numbers(row)
    if min(numbers) < 0 or max(numbers) >= _MAX_INT:
        raise Malformed("malformed.header", "an integer is negative or above 63 bits")
    if header.flags > _FLAGS or header.seq == 0 or header.peer_seq == 0:
        raise Malformed("malformed.kind", "an unknown flag, or a message that was not counted")
    parse_id(header.sender)
    parse_id(header.recipient)
    if header.extensions:
        _check_extensions(header.extensions, limits)
    return header


def _misfit(types: tuple[type, ...], row: list[Any]) -> Malformed:
    """Why a row has no form."""
    if not all(one in allowed for one, allowed in zip(types, _TYPES, strict=True)):
        return Malformed("malformed.header", "a position has another type than version 1 gives it")
    if row[0] != VERSION:
        return Malformed("malformed.version", f"version {row[0]} is not spoken here")
    if not 0 <= row[1] < _MAX_INT:
        return Malformed("malformed.header", "an integer is negative or above 63 bits")
    if not 1 <= row[1] <= 13:
        return Malformed("malformed.kind", f"kind {row[1]} does not exist")
    return Malformed("malformed.kind", f"the positions do not fit a {Kind(row[1]).name.lower()}")


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
