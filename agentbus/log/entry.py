"""What a node's log holds: one canonical msgpack array an entry, whose leaf is its bytes' RFC 9162 leaf hash.

Rule 1: an entry names its own position, so a record that was moved or repeated contradicts itself.
Rule 2: digests of chain, handover and body are those of what *came*, which need not be what the header commits to.
Rule 3: what may have to be erased (bodies with their salts, results of steps) stands in no entry, only the name of the
box it is kept in, encrypted under a key of its own: entries are for ever, keys can be destroyed.
Rule 4: ``instant`` is the instant the message was judged or sealed under, so judging again gives the same answer.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from agentbus.wire.codec import pack

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
