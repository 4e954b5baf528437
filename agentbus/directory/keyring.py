"""The directory's keys on disk: ``root.json`` and ``online.json``, mode 0600.

The root key signs what introduces and ends online keys, and nothing else: once a directory runs, ``root.json`` belongs
somewhere else. A directory starts without it; what needs it says so, and takes it from wherever it is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.delegation.statements import ROLES
from agentbus.directory.core import OnlineKeys
from agentbus.disk import sync_folder
from agentbus.errors import AgentBusError, ConfigError, KeyFileError
from agentbus.wire.ids import b64, unb64

CODES: Final = {
    "config.keys": "The directory's keys are missing or damaged; restore them from a backup.",
    "config.root_away": "This needs the root key, which is not with the directory; name its file with --root-key.",
    "config.root_other": "This file holds the root key of another trust domain.",
}

ROOT: Final = "root.json"
ONLINE: Final = "online.json"


class Keyring:
    """The keys of a directory in a folder.

    Args:
        folder: ``DIR/keys``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self) -> bool:
        """Whether there is a directory's key folder."""
        return self.folder.exists()

    def online(self) -> tuple[OnlineKeys, bytes]:
        """The online keys, and the thumbprint of the root key that introduced them.

        Raises:
            ConfigError: ``config.keys``. KeyFileError: ``key.readable``.
        """
        return self._online(self.folder / ONLINE)

    def proposed(self) -> OnlineKeys | None:
        """Online keys that were made, and may or may not have been introduced."""
        path = self.folder / f"{ONLINE}.next"
        return self._online(path)[0] if path.exists() else None

    def root(self, file: Path | None = None) -> SigningKey:
        """The root key.

        Args:
            file: Where it is kept; else ``root.json`` beside the online keys.

        Raises:
            ConfigError: ``config.root_away``, ``config.root_other``, ``config.keys``.
            KeyFileError: ``key.readable``.
        """
        path = file or self.folder / ROOT
        if not path.exists():
            raise ConfigError("config.root_away", f"no root key at {path}; name its file with --root-key")
        key = _signing(path, _read(path), "key")
        if key.id != self.online()[1]:
            raise ConfigError("config.root_other", f"{path}: {CODES['config.root_other']}")
        return key

    def create(self, keys: OnlineKeys, root: SigningKey) -> None:
        """Write both files into a new folder."""
        self.folder.mkdir(mode=0o700)
        write_secret(self.folder / ROOT, {"key": b64(root.seed)})
        write_secret(self.folder / ONLINE, _encoded(keys, root.id))

    def propose(self, keys: OnlineKeys) -> None:
        """Have new online keys on disk before anybody hears of them."""
        write_secret(self.folder / f"{ONLINE}.next", _encoded(keys, self.online()[1]))

    def accept(self) -> None:
        """The proposed online keys were introduced: one rename."""
        (self.folder / f"{ONLINE}.next").replace(self.folder / ONLINE)
        sync_folder(self.folder)

    @staticmethod
    def _online(path: Path) -> tuple[OnlineKeys, bytes]:
        data = _read(path)
        try:
            signing = {role: _signing(path, data, role) for role in ROLES}
            return OnlineKeys(**signing, curve=CurveKey(unb64(data["curve"], 32))), unb64(data["root"], 32)
        except (KeyError, TypeError, AgentBusError) as error:
            raise ConfigError("config.keys", f"{path}: {CODES['config.keys']}") from error


def write_secret(path: Path, data: dict[str, Any]) -> None:
    """A file of mode 0600, whole or not at all."""
    fresh = path.with_name(f"{path.name}.tmp")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump(data, out)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def _encoded(keys: OnlineKeys, root: bytes) -> dict[str, str]:
    online = {role: b64(getattr(keys, role).seed) for role in ROLES}
    return {**online, "curve": b64(keys.curve.secret), "root": b64(root)}


def _read(path: Path) -> Any:
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError("key.readable", f"{path} is open to others, so its keys must be taken as known to them")
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, KeyFileError):
            raise
        raise ConfigError("config.keys", f"{path}: {CODES['config.keys']}") from error


def _signing(path: Path, data: Any, name: str) -> SigningKey:
    try:
        return SigningKey(unb64(data[name], 32))
    except (KeyError, TypeError, AgentBusError) as error:
        raise ConfigError("config.keys", f"{path}: {CODES['config.keys']}") from error
