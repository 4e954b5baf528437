"""Waits until a file is saved. watchfiles wakes it at once where it is installed; else it looks four times a second.

What it is woken by decides nothing: only another size, time or inode of a watched file is a change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Final

INTERVAL: Final = 0.25  # seconds between two looks without watchfiles: short beside the time it takes to change windows
LONGEST: Final = 1000  # milliseconds until a look with watchfiles even when it reports nothing

Seen = tuple[int, int, int] | None


class Watch:
    """A growing set of files, and how each was when it was last looked at."""

    def __init__(self) -> None:
        self._seen: dict[Path, Seen] = {}

    def add(self, files: Iterable[Path]) -> None:
        """Watch more files, as they are now."""
        for path in files:
            if path not in self._seen:
                self._seen[path] = _look(path)

    @property
    def files(self) -> frozenset[Path]:
        """What is watched."""
        return frozenset(self._seen)

    async def changed(self) -> set[Path]:
        """Return once a watched file is another than it was."""
        while True:
            found = {path: _look(path) for path in self._seen}
            changed = {path for path, seen in found.items() if seen != self._seen[path] and seen is not None}
            if changed:
                self._seen.update(found)
                return changed
            await _woken({path.parent for path in found})


def _look(path: Path) -> Seen:
    """None where there is no file, as there is none for a moment while an editor replaces it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


async def _woken(folders: set[Path]) -> None:
    try:
        from watchfiles import awatch
    except ImportError:
        await asyncio.sleep(INTERVAL)
        return
    there = [folder for folder in folders if folder.is_dir()]
    async for _ in awatch(
        *there, recursive=False, debounce=50, step=20, rust_timeout=LONGEST, yield_on_timeout=True, watch_filter=None
    ):
        return
