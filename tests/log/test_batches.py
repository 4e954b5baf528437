"""A message that is checked with what the one before it has shown is judged as if it stood alone."""

from __future__ import annotations

from random import Random

import pytest

from agentbus.crypto.cache import SignatureCache
from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash, root_and_paths
from agentbus.crypto.signing import Purpose, sign
from agentbus.errors import AgentBusError
from agentbus.log.batches import Signer
from agentbus.protocol.sealing import batch_body
from agentbus.wire.frame import Proof, encode_proof

KEY = SigningKey(b"k" * 32)
INSTANCE = b"i" * 16


def signer(**changes: bytes | int) -> Signer:
    given = {"key": KEY.public.raw, "key_id": KEY.id, "instance": INSTANCE, "flags": 0, **changes}
    return Signer(**given, cache=SignatureCache())  # type: ignore[arg-type]


def batch(n: int, name: bytes = b"") -> tuple[list[bytes], list[bytes]]:
    """The leaf hashes and proofs of a batch."""
    leaves = [leaf_hash(b"%s %d" % (name, at)) for at in range(n)]
    root, paths = root_and_paths(leaves)
    signature = sign(KEY, Purpose.BATCH, batch_body(KEY.id, INSTANCE, n, root))
    return leaves, [encode_proof(Proof(signature, n, at, path)) for at, path in enumerate(paths)]


def accepts(judge: Signer, proof: bytes, leaf: bytes) -> bool:
    try:
        judge.verify(proof, leaf)
    except AgentBusError:
        return False
    return True


@pytest.mark.parametrize("n", [*range(1, 18), 31, 33, 63, 64])
def test_every_message_of_a_batch_is_good_in_any_order(n: int) -> None:
    leaves, proofs = batch(n)
    random = Random(n)
    for _ in range(5):
        judge, order = signer(), [random.randrange(n) for _ in range(2 * n)]
        for at in [*range(n), *order, *reversed(range(n))]:
            judge.verify(proofs[at], leaves[at])


def test_whatever_is_changed_in_a_proof_is_refused_behind_any_good_one() -> None:
    """The attacker has a good batch before it and changes one byte of a proof, or takes its parts from elsewhere."""
    random, refused = Random(7), 0
    for n in (2, 3, 5, 8, 13, 63, 64):
        leaves, proofs = batch(n)
        others, foreign = batch(n, b"other")
        judge = signer()
        for _ in range(40):
            good, at, from_ = random.randrange(n), random.randrange(n), random.randrange(n)
            judge.verify(proofs[good], leaves[good])
            bad = bytearray(proofs[at])
            bad[random.randrange(len(bad))] ^= 1 << random.randrange(8)
            cut = 68 + 32 * random.randrange(1 + (len(proofs[at]) - 68) // 32)
            for proof, leaf in (
                (bytes(bad), leaves[at]),
                (proofs[at], others[at]),
                (proofs[at][:68] + foreign[at][68:], leaves[at]),
                (proofs[at][:68] + foreign[at][68:], others[at]),
                (proofs[at] + proofs[at][-32:], leaves[at]),
                (proofs[at][:cut], leaves[at]),
                (proofs[at][:-1], leaves[at]),
                (proofs[from_], leaves[at]),
                (proofs[from_][:68] + proofs[at][68:], leaves[at]),
            ):
                alone = accepts(signer(), proof, leaf)
                assert accepts(judge, proof, leaf) is alone, (n, good, at)
                refused += not alone
                judge.verify(proofs[good], leaves[good])
    assert refused > 1500


def test_a_good_signature_over_another_root_is_not_taken_for_this_one() -> None:
    """A header that nobody signed, with the signature and the siblings of a batch that was verified just before."""
    leaves, proofs = batch(64)
    judge = signer()
    for leaf, proof in zip(leaves, proofs, strict=True):
        judge.verify(proof, leaf)
        assert not accepts(judge, proof, leaf_hash(b"forged"))
        assert not accepts(judge, proof[:68] + leaf_hash(b"forged") + proof[100:], leaf)


@pytest.mark.parametrize(
    "changes", [{"key": SigningKey(b"o" * 32).public.raw}, {"key_id": b"x" * 32}, {"instance": b"x" * 16}, {"flags": 1}]
)
def test_a_batch_is_good_for_one_key_instance_and_purpose(changes: dict[str, bytes | int]) -> None:
    leaves, proofs = batch(4)
    mine = signer()
    for leaf, proof in zip(leaves, proofs, strict=True):
        mine.verify(proof, leaf)
        assert not accepts(signer(**changes), proof, leaf)
