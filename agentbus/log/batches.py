"""Messages under one signature, checked with what the message before them has shown already.

All messages of a batch carry the same signature over the same root, and neighbours share most of their paths. So of a
further message only that part of the path is hashed which leads to where it meets the path of the one before.

Rule 1: the answer is the one that hashing the whole path would give: from the meeting point on, the two paths are the
same bytes, so they lead to the same root, under the same signature.
Rule 2: what is remembered is remembered under all that was signed and checked: signature and size, and in its signer
the key, the key id and instance that the header names, and the purpose. Anything else is verified from the beginning.
Rule 3: only what is good is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from agentbus.crypto.cache import SignatureCache
from agentbus.crypto.keys import checked_key
from agentbus.crypto.merkle import root_from_path
from agentbus.crypto.signing import Purpose
from agentbus.protocol.sealing import batch_body
from agentbus.wire.frame import decode_proof
from agentbus.wire.header import Flag
from agentbus.wire.limits import LIMITS

_N: Final = 64  # where a proof holds the size of its batch, behind the signature,
_POSITION: Final = 66  # the position in it,
_PATH: Final = 68  # and the path
_KEPT: Final = 8192  # batches of one signer of which something is remembered; less than a kilobyte each


class Signer:
    """Verifies what one key signed as one instance for one purpose.

    Args:
        key: The raw Ed25519 key.
        key_id: The key id that the headers name.
        instance: The instance that they name.
        flags: Theirs; they say which purpose it is.
        cache: Remembers signatures.
    """

    def __init__(self, key: bytes, key_id: bytes, instance: bytes, flags: int, cache: SignatureCache) -> None:
        self._key = key
        self._names = (key_id, instance)
        self._purpose = Purpose.REPLAY_BATCH if flags & Flag.REPLAY else Purpose.BATCH
        self._cache = cache
        self._seen: dict[bytes, tuple[bytes, list[bytes]]] = {}
        """By signature and size: the proof that was found good last, and the hashes from its leaf to below the root."""

    def verify(self, proof: bytes, digest: bytes) -> None:
        """Return when this proof shows that the key signed the header of this leaf hash.

        Raises:
            Malformed: ``malformed.proof``, ``malformed.path``.
            BadSignature: ``key.bad_signature``.
        """
        batch = proof[:_POSITION]
        seen = self._seen.get(batch)
        if seen is not None:
            before, nodes = seen
            meeting = _meeting(before[_N:_PATH], proof[_N:_PATH])
            if meeting is not None:
                up, other, above, sides = meeting
                mine = _climb(digest, proof, sides)
                if (
                    mine[-1] == before[other - 32 : other]
                    and proof[up - 32 : up] == nodes[above - 1]
                    and proof[up:] == before[other:]
                ):
                    self._seen[batch] = proof, mine + nodes[above:]
                    return
        self._verify_whole(proof, digest, batch)

    def _verify_whole(self, proof: bytes, digest: bytes, batch: bytes) -> None:
        read = decode_proof(proof, LIMITS)
        root = root_from_path(digest, read.position, read.n, read.path)
        signed = batch_body(*self._names, read.n, root)
        self._cache.verify(checked_key(self._key), self._purpose, signed, read.signature)
        if read.n == 1:
            return
        if len(self._seen) >= _KEPT:
            self._seen.clear()
        below_root = [left for _, left in _way_up(read.position, read.n)[:-2]]
        self._seen[batch] = proof, _climb(digest, proof, below_root)


def _climb(digest: bytes, proof: bytes, sides: Sequence[bool]) -> list[bytes]:
    """The hashes from a leaf upward, one more than there are sides."""
    nodes, node, at = [digest], digest, _PATH
    for left in sides:
        sibling = proof[at : at + 32]
        node = sha256(b"\x01" + sibling + node if left else b"\x01" + node + sibling).digest()
        nodes.append(node)
        at += 32
    return nodes


class _Meeting(NamedTuple):
    """Where a leaf's path meets that of the one before: two nodes side by side, each in the other's path."""

    up: int  # where in this proof the hash of the node beside ends
    other: int  # the same in the proof before
    above: int  # how many of the hashes before are not above the meeting
    sides: tuple[bool, ...]  # of the steps up to there: whether the sibling stands on the left


@lru_cache(maxsize=8192)
def _meeting(before: bytes, now: bytes) -> _Meeting | None:
    """Where the paths of two leaves of one tree meet; None where they are one leaf, or one of them is not in the tree.

    The neighbours of all batches are 2,080 pairs.

    Args:
        before: Size and position, as a proof holds them.
        now: The same of the other leaf; the size is the same.
    """
    n, position = int.from_bytes(now[:2], "big"), int.from_bytes(now[2:], "big")
    other = int.from_bytes(before[2:], "big")
    if len(now) != _PATH - _N or now == before or not position < n <= LIMITS.batch or not other < n:
        return None
    mine, theirs = _way_up(position, n), [span for span, _ in _way_up(other, n)]
    up = next(at for at, (span, _) in enumerate(mine) if span in theirs)
    above = theirs.index(mine[up][0])
    return _Meeting(_PATH + 32 * up, _PATH + 32 * above, above, tuple(left for _, left in mine[: up - 1]))


def _way_up(position: int, n: int) -> list[tuple[tuple[int, int], bool]]:
    """From a leaf up to the root: the leaves below each node, and whether the node beside it stands on the left."""
    low, high = 0, n
    spans, sides = [(low, high)], [False]
    while high - low > 1:
        middle = low + (1 << ((high - low - 1).bit_length() - 1))
        left = position >= middle
        low, high = (middle, high) if left else (low, middle)
        spans.append((low, high))
        sides.append(left)
    return list(zip(reversed(spans), [*reversed(sides[1:]), False], strict=True))
