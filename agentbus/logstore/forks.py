"""Forks of other logs: two notes by one key over one size with two roots, in a file of their own beside the log.

Rule 1: one pair is the proof. Of one log and size a second pair is not kept, and of one log, or of all that one
principal showed, only so many: whoever forks may sign as many histories as it likes.
Rule 2: the bounds are read off the files' names, so they hold across restarts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from agentbus.disk import replace_file
from agentbus.errors import LogError
from agentbus.log.base import FORKS_BY, FORKS_OF, KeptNote


def keep_fork(folder: Path, kept: KeptNote, other: bytes) -> bool:
    """Keep both in ``fork-<principal>-<log>-<size>.notes``, one after the other.

    Returns:
        False: there is such a file already, or as many as may be of that log or principal.

    Raises:
        LogError: ``log.write``.
    """
    by = hashlib.sha256(kept.by.encode()).hexdigest()[:16]
    log = hashlib.sha256(kept.log_key + kept.origin.encode()).hexdigest()[:16]
    size = f"{kept.size:019d}"
    of = [path.stem.rpartition("-")[2] for path in folder.glob(f"fork-*-{log}-*.notes")]
    if size in of or len(of) >= FORKS_OF or len(list(folder.glob(f"fork-{by}-*.notes"))) >= FORKS_BY:
        return False
    try:
        replace_file(folder / f"fork-{by}-{log}-{size}.notes", kept.note + b"\n" + other)
    except OSError as error:
        raise LogError("log.write", f"{folder}: {error.strerror}; free the disk") from error
    return True
