"""The one frame an envelope travels in: seven sections whose lengths stand first and add up to the frame exactly.

``0x01 ‖ 7 × u32 lengths ‖ header ‖ proof ‖ chain ‖ handover ‖ note ‖ salt ‖ body``
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from agentbus.errors import Malformed
from agentbus.wire.limits import Limits

CODES: Final = {
    "malformed.frame": "The frame's lengths are out of bounds or do not add up to the frame exactly.",
    "malformed.proof": "The proof is not signature, n, index and the path that RFC 9162 gives for (n, index).",
}

ENVELOPE: Final = 0x01
"""The first byte of a frame that holds an envelope."""
STATEMENTS: Final = 0x02
"""The first byte of a frame of the directory's synchronisation (agentbus.wire.sync)."""
ENROLMENT: Final = 0x03
"""The first byte of the one frame that an enrolment connection may send."""

_PREFIX: Final = struct.Struct(">B7I")
_PROOF: Final = struct.Struct(">64sHH")
_START: Final = _PREFIX.size
_PATH: Final = _PROOF.size
_LONGEST_PROOF: Final = _PATH + 32 * 6
SALT: Final = 32


class Envelope(NamedTuple):
    """The seven sections of a frame; nothing in them has been believed yet."""

    header: bytes
    proof: bytes
    chain: bytes
    handover: bytes
    note: bytes
    salt: bytes
    body: bytes


class Proof(NamedTuple):
    """Where a header stands in its batch: the batch's signature, its size, the index and the RFC 9162 path."""

    signature: bytes
    n: int
    position: int
    path: tuple[bytes, ...]


def encode_frame(envelope: Envelope) -> bytes:
    """The bytes that travel."""
    return _PREFIX.pack(ENVELOPE, *map(len, envelope)) + b"".join(envelope)


def decode_frame(data: bytes, limits: Limits) -> Envelope:
    """Cut a frame into its sections; every length is checked before anything is copied.

    Raises:
        Malformed: ``malformed.frame``.
    """
    if not _START <= len(data) <= limits.frame:
        raise Malformed("malformed.frame", f"a frame has {_START} to {limits.frame} bytes")
    tag, header, proof, chain, handover, note, salt, body = _PREFIX.unpack_from(data)
    a = _START + header
    b = a + proof
    c = b + chain
    d = c + handover
    e = d + note
    f = e + salt
    if tag != ENVELOPE or f + body != len(data):
        raise Malformed("malformed.frame", "the lengths do not add up to the frame")
    if (
        header > limits.header
        or proof > _LONGEST_PROOF
        or chain > limits.chain
        or handover > limits.link
        or note > limits.note
        or salt != SALT
    ):
        raise Malformed("malformed.frame", "a section is longer or shorter than its bounds")
    return Envelope(data[_START:a], data[a:b], data[b:c], data[c:d], data[d:e], data[e:f], data[f:])


def encode_proof(proof: Proof) -> bytes:
    """``signature ‖ n ‖ index ‖ path``."""
    return _PROOF.pack(proof.signature, proof.n, proof.position) + b"".join(proof.path)


def decode_proof(data: bytes, limits: Limits) -> Proof:
    """Read a proof. Whether the path has the one length for (n, index) is the Merkle check's business.

    Raises:
        Malformed: ``malformed.proof``.
    """
    if len(data) < _PATH or (len(data) - _PATH) % 32:
        raise Malformed("malformed.proof", "a proof is 68 bytes and a path of 32-byte hashes")
    signature, n, position = _PROOF.unpack_from(data)
    if not 1 <= n <= limits.batch or position >= n:
        raise Malformed("malformed.proof", f"a batch holds 1 to {limits.batch} headers and position < n")
    return Proof(signature, n, position, tuple([data[at : at + 32] for at in range(_PATH, len(data), 32)]))
