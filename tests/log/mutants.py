"""Logs that somebody changed as well as somebody can: lengths, checksums, positions and tiles are repaired."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash
from agentbus.log.checkpoint import sign_checkpoint
from agentbus.log.decoding import decode_entry
from agentbus.log.read import Numbered, read_log
from agentbus.log.records import encode_records
from agentbus.log.tiles import ENTRIES, Tile, TileTree, encode_bundle
from agentbus.wire.codec import pack


def entries_of(folder: Path) -> list[bytes]:
    """The entries of a good log."""
    return [item.data for item in read_log(folder).entries() if isinstance(item, Numbered)]


def tree_of(entries: Sequence[bytes]) -> TileTree:
    tree = TileTree()
    tree.extend([leaf_hash(data) for data in entries])
    return tree


def rebuild(source: Path, target: Path, entries: Sequence[bytes], note: bytes | None, covered: int) -> Path:
    """The folder ``source`` with other entries, tiles to match them, and a checkpoint; everything else as it was."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("tile", "0*.seg", "checkpoint", "state.sqlite*"))
    (target / "00000000.seg").write_bytes(encode_records(entries))
    tree, bundles = TileTree(), []
    tiles = tree.extend([leaf_hash(data) for data in entries[:covered]])
    for at in range(0, covered, 256):
        part = entries[at : min(at + 256, covered)]
        bundles.append(Tile(ENTRIES, at // 256, len(part), encode_bundle(part)))
    for tile in [*tiles, *tree.partial(), *bundles]:
        path = target / tile.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tile.data)
    if note is not None:
        (target / "checkpoint").write_bytes(note)
    return target


def renumber(entries: Sequence[bytes]) -> list[bytes]:
    """The entries with the positions that they stand at now."""
    rows = [list(decode_entry(data)) for data in entries]
    return [bytes(pack([row[0], at, *row[2:]])) for at, row in enumerate(rows)]


def mutate(kind: str, entries: Sequence[bytes], random: Random, below: int) -> list[bytes]:
    """One change to an entry below ``below``; half of the time positions are repaired as well."""
    made, at = list(entries), random.randrange(below)
    if kind == "delete":
        del made[at]
    elif kind == "insert":
        made.insert(at, made[random.randrange(len(made))])
    elif kind == "reorder":
        other = random.choice([n for n in range(below) if n != at])
        made[at], made[other] = made[other], made[at]
    elif kind == "modify":
        data = bytearray(made[at])
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        made[at] = bytes(data)
    if kind != "modify" and random.random() < 0.5:
        made = renumber(made)
    return made


def resign(entries: Sequence[bytes], origin: str, key: SigningKey) -> bytes:
    """A checkpoint over other entries by the stolen log key."""
    return sign_checkpoint(origin, len(entries), tree_of(entries).root(), key)


def set_row(folder: Path, size: int, root: bytes) -> None:
    """Write the lock row by hand."""
    with closing(sqlite3.connect(folder / "state.sqlite")) as db, db:
        db.execute("UPDATE state SET size = ?, root = ?", (size, root))
