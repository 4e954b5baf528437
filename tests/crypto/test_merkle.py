"""RFC 9162 trees against a naive reading of the standard; a proof has one form."""

from __future__ import annotations

import hashlib
import random

import pytest

from agentbus.crypto.merkle import (
    Frontier,
    Tree,
    empty_root,
    leaf_hash,
    node_hash,
    root_and_paths,
    root_from_path,
    root_of,
    verify_consistency,
)
from agentbus.errors import Malformed

LEAVES = [leaf_hash(bytes([n])) for n in range(70)]


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(leaves: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 9162 §2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """RFC 9162 §2.1.4.1."""
    n = len(leaves)
    if m == n:
        return [] if whole else [mth(leaves)]
    k = split(n)
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def test_roots_paths_and_frontiers_are_those_of_the_standard() -> None:
    tree, frontier = Tree(), Frontier()
    assert tree.root() == frontier.root() == root_of([]) == empty_root() == mth([])
    for n in range(1, len(LEAVES) + 1):
        tree.append(LEAVES[n - 1])
        frontier.append(LEAVES[n - 1])
        leaves = LEAVES[:n]
        expected = mth(leaves)
        root, paths = root_and_paths(leaves)
        assert root == root_of(leaves) == tree.root() == frontier.root() == frontier.copy().root() == expected
        if n % 3 and n > 34:
            continue
        for at in range(n):
            assert list(paths[at]) == list(tree.inclusion(at)) == path(at, leaves)
            assert root_from_path(leaves[at], at, n, paths[at]) == expected


def test_earlier_sizes_of_a_grown_tree_are_unchanged() -> None:
    tree = Tree(LEAVES)
    for size in range(1, len(LEAVES) + 1, 5):
        assert tree.root(size) == mth(LEAVES[:size])
        assert list(tree.inclusion(size - 1, size)) == path(size - 1, LEAVES[:size])


def test_a_path_of_another_length_is_refused() -> None:
    for n in range(1, 34):
        _, paths = root_and_paths(LEAVES[:n])
        for at in range(n):
            for bad in (paths[at][:-1], (*paths[at], LEAVES[0]), (*paths[at], *paths[at])):
                if len(bad) == len(paths[at]):
                    continue
                with pytest.raises(Malformed) as caught:
                    root_from_path(LEAVES[at], at, n, bad)
                assert caught.value.code == "malformed.path"


def test_a_path_at_another_position_or_size_leads_elsewhere() -> None:
    for n in range(1, 18):
        root, paths = root_and_paths(LEAVES[:n])
        for at in range(n):
            for size in range(1, 18):
                for index in range(size):
                    if (index, size) == (at, n):
                        continue
                    try:
                        found = root_from_path(LEAVES[at], index, size, paths[at])
                    except Malformed:
                        continue
                    # one leaf can share its path among sizes where the right edge is the same; n is signed for that
                    assert found != root or size != n


def test_a_changed_hash_anywhere_changes_the_root() -> None:
    root, paths = root_and_paths(LEAVES[:37])
    for at, mine in enumerate(paths):
        for step in range(len(mine)):
            bad = (*mine[:step], node_hash(mine[step], b""), *mine[step + 1 :])
            assert root_from_path(LEAVES[at], at, 37, bad) != root
        if len(mine) > 1:
            assert root_from_path(LEAVES[at], at, 37, mine[::-1]) != root


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 1), (5, 5), (-1, 0), (9, 5)])
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(Malformed):
        root_from_path(LEAVES[0], index, size, ())


def test_a_node_is_never_a_leaf() -> None:
    """Second preimage: the inner node's bytes offered as one leaf."""
    root = root_of(LEAVES[:2])
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != root
    assert leaf_hash(b"\x01" + LEAVES[0] + LEAVES[1]) != root


def test_consistency_proofs_are_those_of_the_standard_and_verify() -> None:
    tree = Tree(LEAVES[:40])
    for second in range(1, 41):
        for first in range(1, second + 1):
            proof = tree.consistency(first, second)
            assert list(proof) == subproof(first, LEAVES[:second], True)
            verify_consistency(first, second, tree.root(first), tree.root(second), proof)


def test_a_rewritten_history_has_no_consistency_proof() -> None:
    honest = Tree(LEAVES[:33])
    for first in range(1, 33):
        forged = Tree([*LEAVES[:33]])
        forged = Tree([LEAVES[40], *LEAVES[1:33]])
        with pytest.raises(Malformed):
            verify_consistency(first, 33, honest.root(first), forged.root(), forged.consistency(first))
        with pytest.raises(Malformed):
            verify_consistency(first, 33, honest.root(first), forged.root(), honest.consistency(first))


def test_mangled_consistency_proofs_are_refused() -> None:
    tree, rng = Tree(LEAVES[:40]), random.Random(9162)
    for _ in range(2000):
        second = rng.randrange(1, 41)
        first = rng.randrange(1, second + 1)
        proof = list(tree.consistency(first, second))
        match rng.randrange(5):
            case 0 if proof:
                proof.pop(rng.randrange(len(proof)))
            case 1:
                proof.insert(rng.randrange(len(proof) + 1), rng.choice(LEAVES))
            case 2 if proof:
                proof[rng.randrange(len(proof))] = rng.choice(LEAVES[50:])
            case 3 if first > 1:
                first -= 1
                if tuple(proof) == tree.consistency(first, second):
                    first += 1
                    continue
                with pytest.raises(Malformed):
                    verify_consistency(first, second, tree.root(first), tree.root(second), proof)
                continue
            case _:
                proof.append(b"")
        with pytest.raises(Malformed) as caught:
            verify_consistency(first, second, tree.root(first), tree.root(second), proof)
        assert caught.value.code == "malformed.path"


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 5), (-1, 3), (5, 3), (2, 0)])
def test_consistency_from_nothing_or_backwards_is_refused(first: int, second: int) -> None:
    with pytest.raises(Malformed):
        verify_consistency(first, second, LEAVES[0], LEAVES[1], LEAVES[:2])


def test_a_tree_gives_no_proof_beyond_itself() -> None:
    tree = Tree(LEAVES[:5])
    for index, size in ((5, 5), (-1, 5), (0, 6), (0, 0)):
        with pytest.raises(IndexError):
            tree.inclusion(index, size)
    for first, second in ((0, 5), (6, 5), (2, 6), (-1, 2)):
        with pytest.raises(IndexError):
            tree.consistency(first, second)
