"""A directory's folder on disk, taken by one process at a time: keys and log, made together and loaded together.

``DIR/keys/`` root and online keys · ``DIR/directory/`` the log of key events · ``DIR/lock`` whose it is now.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agentbus.crypto.keys import SigningKey
from agentbus.directory.core import Directory, OnlineKeys
from agentbus.directory.keyring import Keyring
from agentbus.directory.store import FILE, SqliteStore
from agentbus.disk import sync_folder
from agentbus.errors import ConfigError
from agentbus.wire.ids import DOMAIN
from agentbus.wire.limits import SECOND

CODES: Final = {
    "config.in_use": "Another directory runs on this data; two would make two histories.",
    "config.domain": "The trust domain is a lower-case DNS name, and an existing directory keeps its own.",
    "config.no_directory": "There is no directory in this folder; `agentbus up --data DIR` makes one.",
}


class DirectoryData:
    """A directory's folder. Use it in a ``with`` block: inside, it is nobody else's.

    Args:
        folder: ``DIR``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keyring = Keyring(folder / "keys")
        self._lock: int | None = None

    def take(self) -> None:
        """Take the folder.

        Raises:
            ConfigError: ``config.in_use``.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise ConfigError("config.in_use", f"another directory runs on {self.folder}; stop it first") from error

    def release(self) -> None:
        """Let go of it. Twice is harmless."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def create(self, domain: str, *, now: int, max_age: int) -> Directory:
        """Make keys and log of a new trust domain. Killed in between, the next start begins anew: nobody saw the pin.

        Args:
            domain: The trust domain.
            now: Instant, microseconds.
            max_age: ``max_directory_age`` in seconds.

        Raises:
            ConfigError: ``config.domain``; ``config.keys``: a directory's log is here, and its keys are not.
        """
        if not DOMAIN.fullmatch(domain) or len(domain) > 200:
            raise ConfigError("config.domain", f"{domain!r} is no lower-case DNS name such as agents.example")
        keys, root = OnlineKeys.make(os.urandom), SigningKey(os.urandom(32))
        fresh = Keyring(self.folder / "keys.new")
        self._clear(fresh.folder)
        fresh.create(keys, root)
        store = SqliteStore(self.folder / "directory")
        core = Directory.create(store, keys, root, domain=domain, now=now, max_age=max_age * SECOND)
        fresh.folder.rename(self.keyring.folder)  # last: keys without a log are never taken for whole
        sync_folder(self.folder)
        return core

    def _clear(self, unfinished: Path) -> None:
        """Take away what a start that was killed left; a log that was ever in use is no such thing."""
        log = self.folder / "directory"
        if not unfinished.exists() and (log / FILE).exists():
            raise ConfigError(
                "config.keys", f"{log} holds a directory's log, and {self.keyring.folder} is missing: restore its keys"
                " from a backup, or name another folder with --data",
            )  # fmt: skip
        for left in (log, unfinished):  # in this order: killed in between, the next start knows what it finds
            shutil.rmtree(left, ignore_errors=True)

    def load(self, *, now: int, keys_lost: bool = False) -> Directory:
        """The directory as its log says, with the online keys that the log says are current.

        Args:
            now: Instant, microseconds.
            keys_lost: Go on with online keys that are not current: what they sign does not count, and only the root key
                may change that.

        Raises:
            ConfigError: ``config.no_directory``, ``config.keys``. KeyFileError: ``key.readable``.
            Rejected, Malformed: the log does not lead back to the root key.
        """
        if not self.keyring.exists():
            raise ConfigError("config.no_directory", f"no directory in {self.folder}; `agentbus up` makes one")
        keys, root = self.keyring.online()
        core = Directory(SqliteStore(self.folder / "directory"), keys, root, now=now)
        proposed = self.keyring.proposed()
        if proposed is not None and core.counts(proposed):
            self.keyring.accept()  # introduced, and killed before the file said so
            core.keys = proposed
        elif not keys_lost and not core.counts(keys):
            core.close()
            raise ConfigError(
                "config.keys",
                f"{self.keyring.folder} holds online keys that are not those of the log: restore both from one backup,"
                " or, where they were lost, make others with `agentbus directory rotate-online --root-key FILE`",
            )
        return core
