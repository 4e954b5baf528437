"""Tiles and entry bundles as files beside the segments: whoever serves the folder serves a C2SP tiled log.

Rule 1: they are written after the lock row and before the checkpoint: a published size always has its tiles.
Rule 2: a file is written under another name, synced and renamed, and its folder synced: no half tile has a tile's name.
Rule 3: they are derived. What is missing when the log is opened is written again; what differs is damage.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from agentbus.crypto.merkle import empty_root, verify_consistency
from agentbus.disk import read_file, sync_folder
from agentbus.errors import LogError, Malformed
from agentbus.log.tiles import ENTRIES, WIDTH, Tile, TileReader, TileTree, encode_bundle
from agentbus.logstore.segments import damaged


class TileFiles:
    """The tree of one log, and what of it has to be written.

    Args:
        folder: The log's.
    """

    def __init__(self, folder: Path) -> None:
        self.tree = TileTree()
        self._folder = folder
        self._bundle: list[bytes] = []  # entries behind the last full bundle
        self._full: list[Tile] = []  # finished, not yet written

    def extend(self, leaves: Sequence[bytes], entries: Sequence[bytes]) -> None:
        """Add entries and their leaf hashes; :meth:`write` puts what that made on the disk."""
        index = self.tree.size // WIDTH
        self._full += self.tree.extend(leaves)
        self._bundle += entries
        while len(self._bundle) >= WIDTH:
            self._full.append(Tile(ENTRIES, index, WIDTH, encode_bundle(self._bundle[:WIDTH])))
            del self._bundle[:WIDTH]
            index += 1

    def write(self) -> None:
        """Write the tiles of the tree as it is now.

        Raises:
            LogError: ``log.write``.
        """
        full, self._full = self._full, []
        self._put([*full, *self._partial()])

    def check(self, *, last: bool) -> None:
        """Compare full tiles, and where this is the ``last`` call partial ones, with the disk; write what is missing.

        Raises:
            LogError: ``log.damaged`` naming a file that holds something else, ``log.write``.
        """
        full, self._full = self._full, []
        missing = []
        for tile in [*full, *(self._partial() if last else [])]:
            try:
                data = (self._folder / tile.path).read_bytes()
            except FileNotFoundError:
                missing.append(tile)
                continue
            if data != tile.data:
                raise damaged(tile.path, 0, "this is not what the entries hash to")
        self._put(missing)

    def _partial(self) -> list[Tile]:
        tiles = self.tree.partial()
        if self._bundle:
            tiles.append(Tile(ENTRIES, self.tree.size // WIDTH, len(self._bundle), encode_bundle(self._bundle)))
        return tiles

    def _put(self, tiles: Sequence[Tile]) -> None:
        try:
            self._write(tiles)
        except OSError as error:
            raise LogError("log.write", f"{self._folder}: {error.strerror}; free the disk and restart") from error

    def _write(self, tiles: Sequence[Tile]) -> None:
        folders: dict[Path, None] = {}
        for tile in tiles:
            path = self._folder / tile.path
            for made in _make_folder(path.parent):
                folders[made] = None
            beside = path.with_name(path.name + ".tmp")
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                rest = memoryview(tile.data)
                while rest:
                    rest = rest[os.write(fd, rest) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            beside.replace(path)
            folders[path.parent] = None
        for folder in folders:
            sync_folder(folder)
        for tile in tiles:
            if tile.width == WIDTH:  # its partial forms are in it
                shutil.rmtree(self._folder / f"{tile.path}.p", ignore_errors=True)


def signed_root(folder: Path, covered: int, root: bytes, size: int) -> bytes:
    """The root over the first ``size`` of ``covered`` entries, from tiles, proved to lead to the signed ``root``.

    Without the proof a tile that went bad would look as if another history had been signed.

    Raises:
        LogError: ``log.damaged``.
    """
    if size in (0, covered):
        return root if size else empty_root()
    reader = TileReader(covered, lambda name: read_file(folder / name))
    try:
        found = reader.root(size)
        verify_consistency(size, covered, found, root, reader.consistency(size))
    except (OSError, LogError, Malformed) as error:
        text = f"{folder}: the tiles do not give the root over {size} entries ({error}); verify this log"
        raise LogError("log.damaged", text) from error
    return found


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; the folders whose names changed by that."""
    above = []
    while not folder.exists():
        above.append(folder)
        folder = folder.parent
    for one in reversed(above):
        one.mkdir(mode=0o700, exist_ok=True)
    return [one.parent for one in above]
