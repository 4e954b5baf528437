"""A node's own log in a folder, made at the first start: the log, and the key that signs its checkpoints."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from agentbus.crypto.keys import SigningKey
from agentbus.disk import sync_folder
from agentbus.log.base import LogStore
from agentbus.logstore.epochs import open_epoch


def open_log(folder: Path, domain: str, node: str, *, now: int) -> LogStore:
    """The log of a node in ``folder``, in the epoch it is in; its log key lives beside it.

    Raises:
        LogError: ``log.locked``, and whatever else speaks against going on with it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "log.key"
    if not path.exists():
        _make_log_key(path)
    key = SigningKey(path.read_bytes())
    return open_epoch(folder, key=key, domain=domain, node=node, now=now)


def _make_log_key(path: Path) -> None:
    """Whole or not at all: another process that starts in this folder at the same moment may read it at any time."""
    fresh = path.with_name(f"log.key.{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(os.urandom(32))
        out.flush()
        os.fsync(out.fileno())
    with suppress(FileExistsError):
        os.link(fresh, path)  # unlike a rename, it never replaces the key of whoever was first
    fresh.unlink()
    sync_folder(path.parent)  # before anything is signed with it
