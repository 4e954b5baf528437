"""What a node's log holds: one canonical msgpack array an entry, whose leaf is its bytes' RFC 9162 leaf hash.

Rule 1: an entry names its own position, so a record that was moved or repeated contradicts itself.
Rule 2: digests of chain, handover and body are those of what *came*, which need not be what the header commits to.
Rule 3: what may have to be erased (bodies with their salts, results of steps) stands in no entry, only the name of the
box it is kept in, encrypted under a key of its own: entries are for ever, keys can be destroyed.
Rule 4: ``instant`` is the instant the message was judged or sealed under, so judging again gives the same answer.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from agentbus.errors import Malformed
from agentbus.wire.codec import pack, unpack_array

CODES: Final = {
    "malformed.entry": "A log entry is of a known kind, which gives its positions, types and lengths.",
}

MAX_ENTRY: Final = 65_535
"""Bytes; tlog-tiles' entry bundles give an entry's length 16 bits."""
SAMPLE: Final = 256
"""Bytes of a rejected frame that are kept."""
ACCEPTED: Final = "ok"
"""The verdict code of a message that was verified and permitted."""


class EntryKind(IntEnum):
    """What an entry records."""

    SENT = 1
    RECEIVED = 2
    RECEIPT = 3
    UNSENT = 4
    REJECTED = 5
    STEP = 6
    REDACTION = 7
    PEER_CHECKPOINT = 8
    OPEN = 9
    CLOSE = 10
    GAP = 11
    DROPPED = 12


class StepKind(IntEnum):
    """What a handler took through its context, or what became of the handler itself."""

    CALL = 1  # ``ctx.step``
    ITEM = 2  # one item of ``ctx.steps``, or how they ended
    NOW = 3  # ``ctx.now``: the entry's instant is the result
    SEED = 4  # of ``ctx.random``
    REQUIRE = 5  # ``ctx.require``
    DELEGATE = 6  # ``ctx.delegate``: the link it made
    UNASKED = 7  # a message of the handler's that failed before anything was sent
    LOST = 8  # a message of the handler's that failed without an answer; ``given`` is its digest
    START = 9  # the handler had to wait for a place, and began here
    END = 10  # the handler ended, and no frame says so; ``name`` is why


class Outcome(IntEnum):
    """How a step ended."""

    RESULT = 0
    ERROR = 1
    CANCELLED = 2
    EXHAUSTED = 3  # no further item


class Sent(NamedTuple):
    """A message this node sealed, logged before it was offered to the transport."""

    kind: int
    position: int
    instant: int
    connection: bytes | None  # the CURVE key at the other end, where the transport knows it
    header: bytes
    proof: bytes
    statement: bytes  # SHA-256 of the sender's instance statement, a blob
    body: bytes | None  # the name of the box that holds salt ‖ body: SHA-256 of what stands on the disk
    chain: bytes  # SHA-256 of the chain section, a blob
    handover: bytes | None  # SHA-256 of the handover section, a blob
    note: bytes  # the note section itself


class Received(NamedTuple):
    """A message whose signature verified, with the verdict and all it was judged under."""

    kind: int
    position: int
    instant: int
    connection: bytes | None
    header: bytes
    proof: bytes
    statement: bytes
    body: bytes | None
    chain: bytes
    handover: bytes | None
    note: bytes
    code: str  # "ok", or the code of the error it was refused with
    directory_size: int
    revocation_seq: int
    policy_version: str


class Receipt(NamedTuple):
    """What became of a message this node sent; ``receipt`` is None where its time passed without one."""

    kind: int
    position: int
    instant: int
    digest: bytes  # the message's
    receipt: bytes | None  # the message digest of the envelope that says so
    code: str


class Unsent(NamedTuple):
    """A logged SENT that could not go: why its seq is missing at the other side."""

    kind: int
    position: int
    instant: int
    digest: bytes
    reason: str


class Refused(NamedTuple):
    """REJECTED: a frame whose signature did not verify; nothing it says about itself is believed."""

    kind: int
    position: int
    instant: int
    connection: bytes | None
    code: str
    digest: bytes  # SHA-256 of the whole frame
    sample: bytes  # its first bytes


class Step(NamedTuple):
    """Something that was not determined by the message ``digest``, recorded while it was handled.

    Answers to the handler's own messages are no steps: they are frames, joined by ``cause`` and ``in_reply_to``.
    """

    kind: int
    position: int
    instant: int
    digest: bytes
    step: int  # a StepKind
    name: str
    given: bytes | None  # SHA-256 of what the caller says it depends on
    number: int  # k: the k-th of this kind and name, from 1
    began: int  # the instant it was asked for
    outcome: int  # an Outcome
    result: bytes | None  # the name of the box that holds the result or the error


class Redaction(NamedTuple):
    """A body that was erased on purpose: which, by whose authority and why (a code)."""

    kind: int
    position: int
    instant: int
    commitment: bytes  # the header's body commitment
    authority: str
    reason: str


class PeerCheckpoint(NamedTuple):
    """A signed checkpoint of another node's log: evidence against it should it show another history."""

    kind: int
    position: int
    instant: int
    connection: bytes | None
    note: bytes


class Open(NamedTuple):
    """A process began to write here."""

    kind: int
    position: int
    instant: int
    node: str
    domain: str
    software: str
    previous: bytes | None  # the newest note known of the epoch before this one, where this entry begins an epoch


class Close(NamedTuple):
    """A process stopped writing in order."""

    kind: int
    position: int
    instant: int
    reason: str


class Gap(NamedTuple):
    """Something is missing here, and why: a torn record that was cut, or power that was lost."""

    kind: int
    position: int
    instant: int
    reason: str
    durable: int  # how many entries the last checkpoint before it covers
    cut: int  # bytes that were cut


class Dropped(NamedTuple):
    """Rejected frames of one connection beyond those that are kept one by one in a second: only their number."""

    kind: int
    position: int
    instant: int
    connection: bytes | None
    frames: int


Message = Sent | Received
Entry = Sent | Received | Receipt | Unsent | Refused | Step | Redaction | PeerCheckpoint | Open | Close | Gap | Dropped


# ── building ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def sent(
    index: int,
    instant: int,
    *,
    connection: bytes | None,
    header: bytes,
    proof: bytes,
    statement: bytes,
    body: bytes | None,
    chain: bytes,
    handover: bytes | None,
    note: bytes = b"",
) -> bytes:
    """The bytes of a SENT entry."""
    return bytes(pack((1, index, instant, connection, header, proof, statement, body, chain, handover, note)))


def received(
    index: int,
    instant: int,
    *,
    connection: bytes | None,
    header: bytes,
    proof: bytes,
    statement: bytes,
    body: bytes | None,
    chain: bytes,
    handover: bytes | None,
    note: bytes = b"",
    code: str,
    directory_size: int,
    revocation_seq: int,
    policy_version: str,
) -> bytes:
    """The bytes of a RECEIVED entry; ``code`` is :data:`ACCEPTED` or the error's."""
    row = (2, index, instant, connection, header, proof, statement, body, chain, handover, note)
    return bytes(pack((*row, code, directory_size, revocation_seq, policy_version)))


def receipt(index: int, instant: int, *, digest: bytes, receipt: bytes | None, code: str) -> bytes:
    """The bytes of a RECEIPT entry."""
    return bytes(pack((3, index, instant, digest, receipt, code)))


def unsent(index: int, instant: int, *, digest: bytes, reason: str) -> bytes:
    """The bytes of an UNSENT entry."""
    return bytes(pack((4, index, instant, digest, reason)))


def rejected(index: int, instant: int, *, connection: bytes | None, code: str, digest: bytes, sample: bytes) -> bytes:
    """The bytes of a REJECTED entry; ``digest`` is SHA-256 of the frame, of which ``sample`` is the beginning."""
    return bytes(pack((5, index, instant, connection, code, digest, sample[:SAMPLE])))


def step(
    index: int,
    instant: int,
    *,
    digest: bytes,
    step: StepKind,
    name: str,
    given: bytes | None,
    number: int,
    began: int,
    outcome: Outcome,
    result: bytes | None,
) -> bytes:
    """The bytes of a STEP entry."""
    return bytes(pack((6, index, instant, digest, int(step), name, given, number, began, int(outcome), result)))


def redaction(index: int, instant: int, *, commitment: bytes, authority: str, reason: str) -> bytes:
    """The bytes of a REDACTION entry: append it first, then erase."""
    return bytes(pack((7, index, instant, commitment, authority, reason)))


def peer_checkpoint(index: int, instant: int, *, connection: bytes | None, note: bytes) -> bytes:
    """The bytes of a PEER_CHECKPOINT entry."""
    return bytes(pack((8, index, instant, connection, note)))


def opened(index: int, instant: int, *, node: str, domain: str, software: str, previous: bytes | None = None) -> bytes:
    """The bytes of an OPEN entry; ``previous`` is a note of the epoch before, in the first entry of a later one."""
    return bytes(pack((9, index, instant, node, domain, software, previous)))


def closed(index: int, instant: int, *, reason: str = "") -> bytes:
    """The bytes of a CLOSE entry."""
    return bytes(pack((10, index, instant, reason)))


def gap(index: int, instant: int, *, reason: str, durable: int, cut: int) -> bytes:
    """The bytes of a GAP entry."""
    return bytes(pack((11, index, instant, reason, durable, cut)))


def dropped(index: int, instant: int, *, connection: bytes | None, count: int) -> bytes:
    """The bytes of a DROPPED entry."""
    return bytes(pack((12, index, instant, connection, count)))


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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


def decode_entry(data: bytes) -> Entry:
    """Read one entry: canonical, of a known kind, every position of its type and length.

    Raises:
        Malformed: ``malformed.entry`` and the codec's.
    """
    row = unpack_array(data)
    if not row or type(row[0]) is not int or row[0] not in _SHAPES:
        raise Malformed("malformed.entry", "no entry is of this kind")
    places = _places(row[0], tuple(map(type, row)))
    if places is None or not _in_bounds(row, *places):
        raise Malformed("malformed.entry", f"not the positions of a {EntryKind(row[0]).name} entry")
    entry: Entry = _SHAPES[row[0]][0]._make(row)
    if isinstance(entry, Step) and not (entry.step in _STEPS and entry.outcome in _OUTCOMES and entry.number):
        raise Malformed("malformed.entry", "no step is of this kind, number or outcome")
    return entry


@lru_cache(maxsize=1024)
def _places(kind: int, types: tuple[type, ...]) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]] | None:
    """Where integers and bytes of a fixed length stand in an entry of these types; None where the types do not fit.

    Asked once for each combination that occurs: a log holds few, and millions of entries.
    """
    shape = (_N, _N, _N, *_SHAPES[kind][1])
    if len(types) != len(shape):
        return None
    for found, what in zip(types, shape, strict=True):
        if found is not what.type and not (what.nil and found is type(None)):
            return None
    rows = list(enumerate(zip(types, shape, strict=True)))
    numbers = tuple(at for at, (found, _) in rows if found is int)
    fixed = tuple((at, what.length) for at, (found, what) in rows if found is bytes and what.length is not None)
    return numbers, fixed


def _in_bounds(row: list[Any], numbers: tuple[int, ...], fixed: tuple[tuple[int, int], ...]) -> bool:
    for at in numbers:
        if not 0 <= row[at] < 1 << 63:
            return False
    return all(len(row[at]) == length for at, length in fixed)
