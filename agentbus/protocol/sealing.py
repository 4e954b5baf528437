"""Prepare → sign → attach: many headers under one signature.

A batch is an RFC 9162 tree over header bytes; a lone message is a batch of one. The three steps are apart so that a
remote signer can attach later.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from agentbus.crypto.merkle import leaf_hash, root_and_paths
from agentbus.wire.frame import Envelope, Proof, encode_frame, encode_proof

_BATCH: Final = struct.Struct(">B32s16sH32s")


def commit_body(salt: bytes, body: bytes) -> bytes:
    """The body commitment: a type tag, a random 32-byte salt, the length and the body, hashed.

    Without the salt, which is erased with the body, a redacted body cannot be guessed back.
    """
    return hashlib.sha256(b"agentbus-body\x00" + salt + len(body).to_bytes(8, "big") + body).digest()


def batch_body(key_id: bytes, instance_id: bytes, n: int, root: bytes) -> bytes:
    """What an instance key signs for a batch: ``0x01 ‖ key id ‖ instance id ‖ n ‖ root``; 83 bytes."""
    return _BATCH.pack(1, key_id, instance_id, n, root)


class Draft(NamedTuple):
    """One envelope, laid out and not yet signed. Make one with :meth:`of`."""

    header: bytes
    chain: bytes
    handover: bytes
    salt: bytes
    body: bytes
    digest: bytes  # the message digest: the leaf hash of the header

    @classmethod
    def of(cls, header: bytes, chain: bytes, handover: bytes, salt: bytes, body: bytes) -> Draft:
        """A draft, named by its digest."""
        return cls(header, chain, handover, salt, body, leaf_hash(header))


@dataclass(frozen=True, slots=True)
class Batch:
    """Drafts of one instance, ready to be signed together."""

    drafts: tuple[Draft, ...]
    to_sign: bytes
    paths: tuple[tuple[bytes, ...], ...]

    @classmethod
    def prepare(cls, drafts: Sequence[Draft], *, key_id: bytes, instance_id: bytes) -> Batch:
        """Lay the tree; ``to_sign`` is the body for purpose BATCH."""
        root, paths = root_and_paths([draft.digest for draft in drafts])
        return cls(tuple(drafts), batch_body(key_id, instance_id, len(drafts), root), tuple(paths))

    def proofs(self, signature: bytes) -> list[bytes]:
        """The proof sections, in the order of the drafts."""
        n = len(self.drafts)
        return [encode_proof(Proof(signature, n, at, path)) for at, path in enumerate(self.paths)]

    def attach(self, signature: bytes) -> list[bytes]:
        """The frames, in the order of the drafts."""
        return self.frames(self.proofs(signature))

    def frames(self, proofs: Sequence[bytes], note: bytes = b"") -> list[bytes]:
        """The same, from proofs that were made before."""
        return [
            encode_frame(Envelope(draft.header, proof, draft.chain, draft.handover, note, draft.salt, draft.body))
            for draft, proof in zip(self.drafts, proofs, strict=True)
        ]
