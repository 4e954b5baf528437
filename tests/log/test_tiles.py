"""Tiles: the right files, proofs from files alone, and what the log does when a tile is missing or wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loglab import ORIGIN

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import Tree, leaf_hash, root_from_path, verify_consistency
from agentbus.errors import LogError, Malformed
from agentbus.log import entry
from agentbus.log.checkpoint import read_checkpoint
from agentbus.log.tiles import ENTRIES, TileReader, TileTree, decode_bundle, encode_bundle, tile_path, tiles_of
from agentbus.logstore.files import FileLog
from agentbus.testing.draw import NOON

KEY = SigningKey(b"l" * 32)
LEAVES = [leaf_hash(b"%d" % n) for n in range(70_000)]


def reopen(folder: Path) -> FileLog:
    return FileLog.open(folder, key=KEY, origin=ORIGIN, now=NOON)


def closes(start: int, count: int) -> list[bytes]:
    return [entry.closed(start + at, NOON, reason=f"r{start + at}") for at in range(count)]


def test_paths_are_those_of_the_specification() -> None:
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(3, 7, 200) == "tile/3/007.p/200"
    assert tile_path(ENTRIES, 1000, 1) == "tile/entries/x001/000.p/1"
    assert tiles_of(70_000) == [(ENTRIES, 273, 112), (0, 273, 112), (1, 1, 17), (2, 0, 1)]
    assert tiles_of(256) == [(ENTRIES, 0, 256), (0, 0, 256), (1, 0, 1)] and tiles_of(0) == []


def test_tiles_of_seventy_thousand_leaves_give_every_root_and_proof() -> None:
    tree, reference, files = TileTree(), Tree(), {}
    for start in range(0, 70_000, 1000):
        for tile in tree.extend(LEAVES[start : start + 1000]):
            assert tile.path not in files
            files[tile.path] = tile.data
        for leaf in LEAVES[start : start + 1000]:
            reference.append(leaf)
        assert tree.root() == reference.root()
    files |= {tile.path: tile.data for tile in tree.partial()}
    assert sum(path.startswith("tile/0/") for path in files) == 274
    reader = TileReader(70_000, files.get)
    assert reader.root() == reference.root()
    for index in (0, 1, 255, 256, 65_535, 65_536, 69_887, 69_999):
        path = reader.inclusion(index)
        assert path == reference.inclusion(index)
        assert root_from_path(LEAVES[index], index, 70_000, path) == reference.root()
    for first in (1, 255, 256, 257, 65_536, 69_999):
        proof = reader.consistency(first)
        verify_consistency(first, 70_000, reference.root(first), reference.root(), proof)
        assert reader.root(first) == reference.root(first)


@given(st.lists(st.integers(0, 700), max_size=6), st.integers(0, 1 << 30))
@settings(max_examples=60, deadline=None)
def test_however_a_tree_grows_its_root_is_the_same(parts: list[int], pick: int) -> None:
    tree, files, size = TileTree(), {}, 0
    for part in parts:
        files |= {tile.path: tile.data for tile in tree.extend(LEAVES[size : size + part])}
        size += part
    files |= {tile.path: tile.data for tile in tree.partial()}
    reference = Tree(LEAVES[:size])
    assert tree.root() == reference.root() and tree.size == size
    if size:
        assert TileReader(size, files.get).inclusion(pick % size) == reference.inclusion(pick % size)


def test_a_missing_or_short_tile_is_an_error_and_never_a_proof() -> None:
    files = {tile.path: tile.data for tile in TileTree().extend(LEAVES[:512])}
    for broken in ({}, {**files, "tile/0/000": files["tile/0/000"][:-32]}):
        with pytest.raises(LogError) as caught:
            TileReader(512, broken.get).inclusion(3)
        assert caught.value.code == "log.tile"


def test_bundles() -> None:
    entries = [b"a", b"bb" * 30_000, b""]
    assert decode_bundle(encode_bundle(entries)) == entries
    for bad in (b"", b"\0", b"\0\2a", b"\0\1a" * 257):
        with pytest.raises(Malformed):
            decode_bundle(bad)


def test_every_published_size_has_its_tiles_and_bundles(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    for size in (1, 200, 256, 257, 600):
        log.append(closes(log.size, size - log.size))
        said = read_checkpoint(log.checkpoint())
        reader = TileReader(size, lambda name: (tmp_path / name).read_bytes() if (tmp_path / name).exists() else None)
        assert (said.size, said.root) == (size, reader.root())
        leaves = []
        for number in range(-(-size // 256)):
            width = min(256, size - 256 * number)
            leaves += [leaf_hash(e) for e in decode_bundle((tmp_path / tile_path(ENTRIES, number, width)).read_bytes())]
        assert leaves == [reader.leaf(at) for at in range(size)]
    names = sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "tile").rglob("*") if p.is_file())
    assert names == [
        "tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/1", "tile/1/000.p/2", "tile/entries/000",
        "tile/entries/001", "tile/entries/002.p/88",
    ]  # fmt: skip
    log.close()


def test_a_tile_that_is_missing_is_written_again_and_one_that_differs_is_damage(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    log.append(closes(0, 300))
    log.close()
    whole = {p: p.read_bytes() for p in (tmp_path / "tile").rglob("*") if p.is_file()}
    for path in whole:
        path.unlink()
    reopen(tmp_path).close()
    assert {p: p.read_bytes() for p in whole} == whole
    for path, data in whole.items():
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(LogError) as caught:
            reopen(tmp_path)
        assert caught.value.code == "log.damaged" and path.relative_to(tmp_path).as_posix() in str(caught.value)
        path.write_bytes(data)
    reopen(tmp_path).close()
