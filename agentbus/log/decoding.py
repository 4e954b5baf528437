"""Reading entries: canonical, of a known kind, every position of its type and length."""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgpack

from agentbus.errors import Malformed
from agentbus.log.entry import (
    MAX_ENTRY,
    Close,
    Dropped,
    Entry,
    EntryKind,
    Gap,
    Open,
    Outcome,
    PeerCheckpoint,
    Receipt,
    Received,
    Redaction,
    Refused,
    Sent,
    Step,
    StepKind,
    Unsent,
)
from agentbus.wire.codec import pack

CODES: Final = {
    "malformed.entry": "A log entry is of a known kind, which gives its positions, types and lengths.",
}


def kind_of(data: bytes) -> int:
    """The kind an entry's bytes claim to be of, without reading further; 0 where they are no entry."""
    if len(data) > 3 and 0x90 < data[0] < 0xA0:
        return data[1]
    return data[3] if len(data) > 3 and data[0] == 0xDC else 0


class _Is(NamedTuple):
    """What one position may hold."""

    type: type
    length: int | None = None  # exactly, of bytes
    nil: bool = False


_N: Final = _Is(int)
_TEXT: Final = _Is(str)
_BYTES: Final = _Is(bytes)
_BYTES_NIL: Final = _Is(bytes, nil=True)
_DIGEST: Final = _Is(bytes, 32)
_DIGEST_NIL: Final = _Is(bytes, 32, nil=True)
_MESSAGE: Final = (_DIGEST_NIL, _BYTES, _BYTES, _DIGEST, _DIGEST_NIL, _DIGEST, _DIGEST_NIL, _BYTES)
_SHAPES: Final[dict[int, tuple[Any, tuple[_Is, ...]]]] = {
    EntryKind.SENT: (Sent, _MESSAGE),
    EntryKind.RECEIVED: (Received, (*_MESSAGE, _TEXT, _N, _N, _TEXT)),
    EntryKind.RECEIPT: (Receipt, (_DIGEST, _DIGEST_NIL, _TEXT)),
    EntryKind.UNSENT: (Unsent, (_DIGEST, _TEXT)),
    EntryKind.REJECTED: (Refused, (_DIGEST_NIL, _TEXT, _DIGEST, _BYTES)),
    EntryKind.STEP: (Step, (_DIGEST, _N, _TEXT, _DIGEST_NIL, _N, _N, _N, _DIGEST_NIL)),
    EntryKind.REDACTION: (Redaction, (_DIGEST, _TEXT, _TEXT)),
    EntryKind.PEER_CHECKPOINT: (PeerCheckpoint, (_DIGEST_NIL, _BYTES)),
    EntryKind.OPEN: (Open, (_TEXT, _TEXT, _TEXT, _BYTES_NIL)),
    EntryKind.CLOSE: (Close, (_TEXT,)),
    EntryKind.GAP: (Gap, (_TEXT, _N, _N)),
    EntryKind.DROPPED: (Dropped, (_DIGEST_NIL, _N)),
}
_STEPS: Final = frozenset(StepKind)
_OUTCOMES: Final = frozenset(Outcome)
_END: Final = 1 << 63


class _Form(NamedTuple):
    """What one combination of types leaves to be checked: a few calls over whole rows, not one for each position."""

    make: type[Any]
    numbers: itemgetter[Any]  # the positions that hold integers
    fixed: itemgetter[Any] | None  # those that hold bytes of a fixed length,
    lengths: tuple[int, ...]  # and how many each holds


def decode_entry(data: bytes) -> Entry:
    """Read one entry.

    Raises:
        Malformed: ``malformed.entry``, ``malformed.codec``, ``malformed.not_canonical``.
    """
    if len(data) > MAX_ENTRY:
        raise Malformed("malformed.entry", f"{len(data)} bytes are more than an entry may have")
    try:
        row = msgpack.unpackb(data, raw=False, use_list=True, max_ext_len=0, max_map_len=0)
        again = pack(row)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise Malformed("malformed.codec", "not a msgpack value") from error
    if again != data:
        raise Malformed("malformed.not_canonical", "not in canonical form")
    if type(row) is not list:
        raise Malformed("malformed.codec", "not an array")
    types = tuple(map(type, row))
    if not row or types[0] is not int or row[0] not in _SHAPES:
        raise Malformed("malformed.entry", "no entry is of this kind")
    form = _form(row[0], types)
    if form is None:
        raise _misfit(row)
    make, get_numbers, fixed, lengths = form
    numbers = get_numbers(row)
    if min(numbers) < 0 or max(numbers) >= _END or (fixed is not None and tuple(map(len, fixed(row))) != lengths):
        raise _misfit(row)
    entry: Entry = tuple.__new__(make, row)
    if make is Step:
        _check_step(entry)
    return entry


def _misfit(row: list[Any]) -> Malformed:
    return Malformed("malformed.entry", f"not the positions of a {EntryKind(row[0]).name} entry")


@lru_cache(maxsize=1024)
def _form(kind: int, types: tuple[type, ...]) -> _Form | None:
    """The form of an entry whose positions have these types; None where no entry of this kind has them.

    Asked once for each combination that occurs: a log holds few, and millions of entries.
    """
    make, more = _SHAPES[kind]
    shape = (_N, _N, _N, *more)
    if len(types) != len(shape):
        return None
    for found, what in zip(types, shape, strict=True):
        if found is not what.type and not (what.nil and found is type(None)):
            return None
    rows = list(enumerate(zip(types, shape, strict=True)))
    numbers = [at for at, (found, _) in rows if found is int]
    fixed = [(at, what.length) for at, (found, what) in rows if found is bytes and what.length is not None]
    # a single position alone would be given as itself, not as a row of one
    places = [at for at, _ in fixed] if len(fixed) != 1 else [fixed[0][0]] * 2
    lengths = tuple(length for _, length in fixed) if len(fixed) != 1 else (fixed[0][1],) * 2
    return _Form(make, itemgetter(*numbers), itemgetter(*places) if places else None, lengths)


def _check_step(entry: Entry) -> None:
    assert isinstance(entry, Step)
    if not (entry.step in _STEPS and entry.outcome in _OUTCOMES and entry.number):
        raise Malformed("malformed.entry", "no step is of this kind, number or outcome")
