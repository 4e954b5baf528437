"""RFC 9162 Merkle trees: a batch, a log and the directory are the same tree.

A proof has one form: the path's length is exactly what RFC 9162 gives for (size, index); anything else is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

from agentbus.errors import Malformed

CODES = {
    "malformed.path": "The Merkle path does not have the length or the hashes that (size, index) require.",
}


def leaf_hash(data: bytes) -> bytes:
    """``SHA-256(0x00 ‖ data)`` (RFC 9162 §2.1.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """``SHA-256(0x01 ‖ left ‖ right)``."""
    return sha256(b"\x01" + left + right).digest()


def empty_root() -> bytes:
    """The root of the tree with no leaves: SHA-256 of nothing."""
    return sha256(b"").digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    if not leaves:
        return empty_root()
    level = list(leaves)
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def root_and_paths(leaves: Sequence[bytes]) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """The root and every leaf's inclusion path, in one pass over the tree.

    Returns:
        The root, and for leaf i its path from the bottom up (RFC 9162 §2.1.3.1).
    """
    paths: list[list[bytes]] = [[] for _ in leaves]
    level = list(leaves)
    width = 1
    while len(level) > 1:
        for index, path in enumerate(paths):
            sibling = (index // width) ^ 1
            if sibling < len(level):
                path.append(level[sibling])
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
        width *= 2
    return (level[0] if level else empty_root()), [tuple(p) for p in paths]


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that ``path`` leads to (RFC 9162 §2.1.3.2).

    Raises:
        Malformed: ``malformed.path`` when the path does not have the one length for (size, index).
    """
    sides = _sides(index, size)
    if len(path) != len(sides):
        raise Malformed("malformed.path", f"the path has {len(path)} hashes, and {len(sides)} belong there")
    root = leaf
    for sibling, left in zip(path, sides, strict=True):
        root = sha256(b"\x01" + sibling + root if left else b"\x01" + root + sibling).digest()
    return root


@lru_cache(maxsize=4096)
def _sides(index: int, size: int) -> tuple[bool, ...]:
    """For each step up from ``index``, whether the sibling stands on the left; all positions of a batch are 2,080."""
    if not 0 <= index < size:
        raise Malformed("malformed.path", "index is not below size")
    sides = []
    fn, sn = index, size - 1
    while sn:
        left = bool(fn & 1 or fn == sn)
        sides.append(left)
        if left:
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        fn >>= 1
        sn >>= 1
    return tuple(sides)


class Proofs:
    """Roots and proofs of any size of a tree whose inner nodes can be asked for."""

    def __len__(self) -> int:
        raise NotImplementedError

    def node(self, height: int, index: int) -> bytes:
        """The hash over leaves [index · 2^height, (index + 1) · 2^height), all of them there."""
        raise NotImplementedError

    def leaf(self, index: int) -> bytes:
        """The leaf hash at ``index``."""
        return self.node(0, index)

    def root(self, size: int | None = None) -> bytes:
        """The root of the first ``size`` leaves."""
        size = len(self) if size is None else size
        return self._range(0, size) if size else empty_root()

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """The inclusion path of ``index`` in the tree of ``size`` (RFC 9162 §2.1.3.1)."""
        size = len(self) if size is None else size
        if not 0 <= index < size <= len(self):
            raise IndexError(f"no leaf {index} in a tree of {size}")
        return tuple(self._path(index, 0, size))

    def consistency(self, first: int, second: int | None = None) -> tuple[bytes, ...]:
        """The proof that the tree of ``second`` extends that of ``first`` (RFC 9162 §2.1.4.1)."""
        second = len(self) if second is None else second
        if not 0 < first <= second <= len(self):
            raise IndexError(f"no consistency from {first} to {second}")
        return tuple(self._subproof(first, 0, second, True))

    def _range(self, start: int, end: int) -> bytes:
        """The hash of leaves [start, end), where start is a multiple of the largest power of two in the range."""
        count = end - start
        height = count.bit_length() - 1
        if count == 1 << height and start % count == 0:
            return self.node(height, start >> height)
        split = _split(count)
        return node_hash(self._range(start, start + split), self._range(start + split, end))

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        middle = start + _split(end - start)
        if index < middle:
            return [*self._path(index, start, middle), self._range(middle, end)]
        return [*self._path(index, middle, end), self._range(start, middle)]

    def _subproof(self, first: int, start: int, end: int, whole: bool) -> list[bytes]:
        if first == end:
            return [] if whole else [self._range(start, end)]
        middle = start + _split(end - start)
        if first <= middle:
            return [*self._subproof(first, start, middle, whole), self._range(middle, end)]
        return [*self._subproof(first, middle, end, False), self._range(start, middle)]


class Tree(Proofs):
    """A growing tree that keeps every level, so that roots and proofs of any size cost O(log n).

    Memory: 64 bytes and two Python objects a leaf. For a root alone use :class:`Frontier`.
    """

    def __init__(self, leaves: Sequence[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.append(leaf)

    def __len__(self) -> int:
        return len(self._levels[0])

    def node(self, height: int, index: int) -> bytes:
        """The hash over leaves [index · 2^height, (index + 1) · 2^height)."""
        return self._levels[height][index]

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        self._levels[0].append(leaf)
        height = 0
        while len(self._levels[height]) % 2 == 0:
            left, right = self._levels[height][-2:]
            height += 1
            if height == len(self._levels):
                self._levels.append([])
            self._levels[height].append(node_hash(left, right))


class Frontier:
    """The right edge of a growing tree: its root in O(log n) memory."""

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []  # (leaves below, hash), strictly shrinking

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        count, value = 1, leaf
        while self._peaks and self._peaks[-1][0] == count:
            value = node_hash(self._peaks.pop()[1], value)
            count *= 2
        self._peaks.append((count, value))
        self.size += 1

    def root(self) -> bytes:
        """The root of what was appended so far."""
        if not self._peaks:
            return empty_root()
        value = self._peaks[-1][1]
        for _, peak in reversed(self._peaks[:-1]):
            value = node_hash(peak, value)
        return value

    def copy(self) -> Frontier:
        """A frontier that grows on its own from here."""
        other = Frontier()
        other.size, other._peaks = self.size, list(self._peaks)
        return other


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Return when the tree of ``second`` leaves extends that of ``first`` (RFC 9162 §2.1.4.2).

    Raises:
        Malformed: ``malformed.path``.
    """
    bad = Malformed("malformed.path", f"{second} leaves do not extend {first}")
    if first == second:
        if proof or first_root != second_root:
            raise bad
        return
    if not 0 < first < second or not proof:
        raise bad
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    fr = sr = path[0]
    for value in path[1:]:
        if sn == 0:
            raise bad
        if fn & 1 or fn == sn:
            fr, sr = node_hash(value, fr), node_hash(value, sr)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            sr = node_hash(sr, value)
        fn >>= 1
        sn >>= 1
    if sn != 0 or fr != first_root or sr != second_root:
        raise bad


def _split(n: int) -> int:
    """The largest power of two below n."""
    return 1 << ((n - 1).bit_length() - 1)
