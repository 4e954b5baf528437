"""Epochs of a node's log: where one history cannot go on, another begins, and the old one is kept as it is.

Rule 1: a log that a peer proved to be restored from an old backup gets its new epoch at the next start, by itself.
Rule 2: a damaged or forked log gets one only when somebody says so: it is evidence, and a person should have seen it.
Rule 3: the log key stays. Its instance statements name the node and the key, and the origin names the epoch.

::

    <folder>/epochs/<n>/       the log of an epoch that ended; the folder itself is in the one after the last of them
    <folder>/epochs/<n>.part/  one that is being put aside: nothing is opened before that is done
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from pathlib import Path
from typing import Final

from agentbus.crypto.keys import SigningKey
from agentbus.disk import sync_folder
from agentbus.errors import LogError, Malformed
from agentbus.log.checkpoint import Origin, read_checkpoint
from agentbus.logstore.files import EVIDENCE, FileLog
from agentbus.logstore.state import read_notes

logger = logging.getLogger("agentbus.log")
_STAYS: Final = frozenset({"epochs", "lock", "log.key"})


def open_epoch(folder: Path, *, key: SigningKey, domain: str, node: str, now: int) -> FileLog:
    """Open a node's log in the epoch it is in; in the next one where a peer's note ended this one.

    Raises:
        LogError: those of :meth:`FileLog.open`.
    """
    if (folder / EVIDENCE).exists() or _part(folder).exists():
        end_epoch(folder)
    epoch = current_epoch(folder)
    log = FileLog.open(folder, key=key, origin=str(Origin(domain, node, epoch)), now=now)
    if epoch > 1:
        before = folder / "epochs" / str(epoch - 1)
        log.previous = _last_note(before)
        if not log.size:
            _take_along(before, log)
    return log


def current_epoch(folder: Path) -> int:
    """The number of the epoch that the folder's log is in."""
    ended = [int(path.name) for path in (folder / "epochs").glob("*") if path.name.isdigit()]
    return 1 + max(ended, default=0)


def end_epoch(folder: Path) -> Path:
    """Put the log of this epoch aside, whole, so that opening the folder begins the next.

    What was cut off in the middle of this is gone on with; no origin is ever begun twice.

    Returns:
        Where the old log is now.

    Raises:
        LogError: ``log.locked``, ``log.write``.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part = _part(folder)
        part.mkdir(parents=True, exist_ok=True, mode=0o700)
        sync_folder(part.parent)
        for path in folder.iterdir():
            if path.name not in _STAYS:
                path.rename(part / path.name)
        for changed in (part, folder):
            sync_folder(changed)
        aside = part.rename(part.with_suffix(""))
        sync_folder(aside.parent)
        return aside
    except BlockingIOError as error:
        raise LogError("log.locked", f"{folder} is written by another process; stop it first") from error
    except OSError as error:
        raise LogError("log.write", f"{folder}: {error.strerror}") from error
    finally:
        os.close(lock)


def _part(folder: Path) -> Path:
    return folder / "epochs" / f"{current_epoch(folder)}.part"


def _take_along(before: Path, log: FileLog) -> None:
    """What others' logs must have reached does not end with an epoch of this one."""
    try:
        for kept in read_notes(before):
            log.keep_note(kept)
    except sqlite3.Error as error:
        logger.warning("%s: the checkpoints kept of other logs cannot be read: %s", before, error)


def _last_note(folder: Path) -> bytes | None:
    """The newest note of an epoch that ended: a peer's where it is newer."""
    notes = []
    for name in (EVIDENCE, "checkpoint"):
        try:
            note = (folder / name).read_bytes()
            notes.append((read_checkpoint(note).size, note))
        except (FileNotFoundError, Malformed):
            continue
    return max(notes)[1] if notes else None
