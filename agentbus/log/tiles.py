"""A log's tree as C2SP tiles (c2sp.org/tlog-tiles): what stands in which file, and proofs from files alone.

Rule 1: a tile holds 256 consecutive hashes of one level; a hash of level n+1 is the root over one full tile of level n.
Rule 2: only the rightmost tile of a level is partial, and its width is in its name: no file is ever changed.
Rule 3: tiles are derived. What vouches for them is the root in the signed checkpoint.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from agentbus.crypto.merkle import Proofs, empty_root, root_of
from agentbus.errors import LogError, Malformed

CODES: Final = {
    "log.tile": "A tile that the tree's size needs is missing or has another length.",
    "malformed.bundle": "An entry bundle is 1 to 256 entries, each behind its length of 16 bits.",
}

WIDTH: Final = 256
"""Hashes of a full tile, entries of a full bundle."""
ENTRIES: Final = -1
"""The level of an entry bundle."""
_U16: Final = struct.Struct(">H")


class Tile(NamedTuple):
    """One tile, or the bundle of the entries under a tile of level 0."""

    level: int  # 0 to 63, or :data:`ENTRIES`
    number: int
    width: int  # 1 to 256
    data: bytes

    @property
    def path(self) -> str:
        """Its file's name, from the log's folder."""
        return tile_path(self.level, self.number, self.width)


def tile_path(level: int, number: int, width: int = WIDTH) -> str:
    """``tile/<level>/<number>[.p/<width>]``, the number in groups of three digits."""
    digits = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        digits.insert(0, f"x{number % 1000:03d}")
    name = f"tile/{'entries' if level == ENTRIES else level}/{'/'.join(digits)}"
    return name if width == WIDTH else f"{name}.p/{width}"


def tiles_of(size: int) -> list[tuple[int, int, int]]:
    """Level, number and width of the last tile of each level that a tree of ``size`` needs, and of the last bundle."""
    found = []
    level, count = 0, size
    while count:
        width = count % WIDTH
        if width or level == 0:
            found.append((level, (count - 1) // WIDTH, width or WIDTH))
        count //= WIDTH
        level += 1
    return [(ENTRIES, found[0][1], found[0][2]), *found] if found else []


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """The bytes of an entry bundle."""
    parts: list[bytes] = []
    for entry in entries:
        parts.append(_U16.pack(len(entry)))
        parts.append(entry)
    return b"".join(parts)


def decode_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle.

    Raises:
        Malformed: ``malformed.bundle``.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        if len(data) - at < 2:
            raise Malformed("malformed.bundle", "a length is cut off")
        (length,) = _U16.unpack_from(data, at)
        at += 2 + length
        if at > len(data):
            raise Malformed("malformed.bundle", "an entry is cut off")
        entries.append(data[at - length : at])
    if not 0 < len(entries) <= WIDTH:
        raise Malformed("malformed.bundle", f"{len(entries)} entries")
    return entries


class TileTree:
    """A growing tree that forgets what it has put into full tiles: less than 256 hashes a level are kept."""

    def __init__(self) -> None:
        self.size = 0
        self._levels: list[list[bytes]] = [[]]
        self._full: list[int] = [0]  # full tiles so far, by level

    def extend(self, leaves: Sequence[bytes]) -> list[Tile]:
        """Add leaf hashes; the tiles that became full, in the order in which they did."""
        self.size += len(leaves)
        full: list[Tile] = []
        self._add(0, leaves, full)
        return full

    def _add(self, level: int, hashes: Sequence[bytes], full: list[Tile]) -> None:
        if level == len(self._levels):
            self._levels.append([])
            self._full.append(0)
        waiting = [*self._levels[level], *hashes]
        cut = len(waiting) - len(waiting) % WIDTH
        self._levels[level] = waiting[cut:]
        for start in range(0, cut, WIDTH):
            tile = waiting[start : start + WIDTH]
            full.append(Tile(level, self._full[level], WIDTH, b"".join(tile)))
            self._full[level] += 1
            self._add(level + 1, [root_of(tile)], full)

    def partial(self) -> list[Tile]:
        """The partial tiles of the tree as it is."""
        levels = zip(self._levels, self._full, strict=True)
        return [Tile(at, index, len(h), b"".join(h)) for at, (h, index) in enumerate(levels) if h]

    def copy(self, more: Iterable[bytes] = ()) -> TileTree:
        """Another tree with ``more`` leaves behind these, which grows on its own."""
        other = TileTree()
        other.size, other._full = self.size, list(self._full)
        other._levels = [list(hashes) for hashes in self._levels]
        other.extend(list(more))
        return other

    def root(self) -> bytes:
        """The root over what was added."""
        lower: list[bytes] = []
        for hashes in self._levels:
            units = [*hashes, *lower]
            lower = [root_of(units)] if units else []
        return lower[0] if lower else empty_root()


class TileReader(Proofs):
    """Roots and proofs of a tree of ``size`` from its tiles.

    Args:
        size: How many leaves the checkpoint says.
        read: From a file's name (:func:`tile_path`) to its bytes; None where there is none.
    """

    def __init__(self, size: int, read: Callable[[str], bytes | None]) -> None:
        self._size = size
        self._read = read
        self._known: dict[tuple[int, int], bytes] = {}

    def __len__(self) -> int:
        return self._size

    def node(self, height: int, index: int) -> bytes:
        """The hash over leaves [index · 2^height, (index + 1) · 2^height).

        Raises:
            LogError: ``log.tile``.
        """
        level, within = divmod(height, 8)
        start, count = index << within, 1 << within
        tile = self._tile(level, start // WIDTH)
        at = start % WIDTH
        hashes = [tile[32 * n : 32 * n + 32] for n in range(at, at + count)]
        if not hashes[-1]:
            raise LogError("log.tile", f"level {level} of the tree ends before hash {start + count}")
        return root_of(hashes)

    def _tile(self, level: int, index: int) -> bytes:
        known = self._known.get((level, index))
        if known is not None:
            return known
        width = min(WIDTH, (self._size >> 8 * level) - index * WIDTH)
        data = self._read(tile_path(level, index, width))
        if data is None and width < WIDTH:  # it may have been given up for the full one
            data = self._read(tile_path(level, index))
            data = data[: 32 * width] if data is not None else None
        if data is None or len(data) != 32 * width:
            raise LogError("log.tile", f"{tile_path(level, index, width)} is missing or has another length")
        if len(self._known) > 64:
            self._known.clear()
        self._known[level, index] = data
        return data
