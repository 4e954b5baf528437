"""C2SP proofs (c2sp.org/tlog-proof): that an entry is in a log, as text that is verified offline.

Rule 1: a proof has one spelling: canonical decimals and base64, no line more than the format has.
Rule 2: extra data is not authenticated; none is written, and one that came is given back and not used.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import Final, NamedTuple

from agentbus.crypto.keys import VerifyKey
from agentbus.crypto.merkle import leaf_hash, root_from_path
from agentbus.crypto.note import Checkpoint
from agentbus.errors import Malformed, Rejected
from agentbus.log.checkpoint import verify_checkpoint

CODES: Final = {
    "malformed.tlog_proof": "This is no c2sp.org/tlog-proof@v1.",
    "reject.not_included": "The proof does not lead from this entry to the root that the log signed.",
}

FIRST_LINE: Final = "c2sp.org/tlog-proof@v1"
MAX_PATH: Final = 63
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})")


class LogProof(NamedTuple):
    """Where an entry is: its position, the path from its leaf to the root, and the checkpoint with that root."""

    position: int
    path: tuple[bytes, ...]
    checkpoint: bytes  # the signed note, verbatim
    extra: bytes | None = None


def encode_log_proof(proof: LogProof) -> bytes:
    """The proof's text."""
    lines = [FIRST_LINE]
    if proof.extra is not None:
        lines.append(f"extra {b64encode(proof.extra).decode()}")
    lines.append(f"index {proof.position}")
    lines += [b64encode(node).decode() for node in proof.path]
    return "".join(f"{line}\n" for line in lines).encode() + b"\n" + proof.checkpoint


def decode_log_proof(data: bytes) -> LogProof:
    """Read a proof; nothing in it has been believed yet.

    Raises:
        Malformed: ``malformed.tlog_proof``.
    """
    head, cut, checkpoint = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise Malformed("malformed.tlog_proof", "not ASCII before the checkpoint") from error
    if not cut or not checkpoint or lines.pop(0) != FIRST_LINE or not lines:
        raise Malformed("malformed.tlog_proof", f"it does not begin with {FIRST_LINE} and end in a checkpoint")
    extra = _base64(lines.pop(0)[6:]) if lines[0].startswith("extra ") else None
    found = _INDEX.fullmatch(lines.pop(0)) if lines else None
    if not found or len(lines) > MAX_PATH:
        raise Malformed("malformed.tlog_proof", "no index, or a path longer than any tree is high")
    path = tuple(_base64(line, 32) for line in lines)
    return LogProof(int(found[1]), path, checkpoint, extra)


def verify_log_proof(proof: LogProof, entry: bytes, origin: str, key: VerifyKey) -> Checkpoint:
    """The checkpoint, when ``key`` signed it for ``origin`` and ``entry`` is in its tree where the proof says.

    Raises:
        Malformed: ``malformed.note``, ``malformed.path``.
        BadSignature: ``note.not_signed``, ``key.bad_signature``.
        Rejected: ``reject.not_included``.
    """
    checkpoint = verify_checkpoint(proof.checkpoint, origin, key)
    if root_from_path(leaf_hash(entry), proof.position, checkpoint.size, proof.path) != checkpoint.root:
        raise Rejected("reject.not_included", f"entry {proof.position} is not in the tree of {checkpoint.size}")
    return checkpoint


def _base64(text: str, length: int | None = None) -> bytes:
    try:
        raw = b64decode(text, validate=True)
    except (Base64Error, ValueError) as error:
        raise Malformed("malformed.tlog_proof", "a line is not base64") from error
    if b64encode(raw).decode() != text or (length is not None and len(raw) != length):
        raise Malformed("malformed.tlog_proof", "a line is not the base64 of a hash")
    return raw
