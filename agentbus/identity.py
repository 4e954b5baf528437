"""An identity: who somebody is, with the keys that prove it, in memory or in a key file.

The identity key signs statements about its owner and never an envelope. A key file is readable by its owner alone, and
one that others can read is refused rather than repaired: it may have been read already.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final

from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.errors import AgentBusError, KeyFileError
from agentbus.home import key_path
from agentbus.wire.ids import PrincipalId, b64, parse_id, unb64

CODES: Final = {
    "key.missing": "There is no key file for this identity; enrol it, or name another with --as or AGENTBUS_IDENTITY.",
    "key.readable": "Others can read this key file, so the key must be taken as known to them.",
    "key.file": "This is no agentbus key file, or it is damaged.",
    "key.exists": "A key file of this name exists; it is never overwritten.",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who, and the keys that prove it.

    Args:
        id: The principal.
        key: Its identity key: signs statements.
        curve: Its CURVE key: opens connections.
    """

    id: PrincipalId
    key: SigningKey = field(repr=False)
    curve: CurveKey = field(repr=False)

    @classmethod
    def load(cls, name: str) -> Identity:
        """The identity that was enrolled here under ``name`` (``planner``, ``user/alice``).

        Raises:
            KeyFileError: ``key.missing``, ``key.readable``, ``key.file``.
        """
        return cls.from_file(key_path(name))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Identity:
        """The identity in a key file.

        Raises:
            KeyFileError: ``key.missing``, ``key.readable``, ``key.file``.
        """
        file = Path(path)
        try:
            mode = file.stat().st_mode
            text = file.read_text("utf-8")
        except FileNotFoundError as error:
            raise KeyFileError("key.missing", f"no key file {file}; enrol first, or name another identity") from error
        except OSError as error:
            raise KeyFileError("key.file", f"{file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise KeyFileError("key.file", f"{file} is no agentbus key file") from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyFileError(
                "key.readable", f"{file} is open to others; rotate the key, or chmod 600 if it never was"
            )
        try:
            data = json.loads(text)
            return cls(parse_id(data["id"]), SigningKey(unb64(data["key"], 32)), CurveKey(unb64(data["curve"], 32)))
        except (ValueError, KeyError, TypeError, AgentBusError) as error:
            raise KeyFileError("key.file", f"{file} is no agentbus key file") from error

    @classmethod
    async def enrol(cls, name: str, *, token: str, url: str | None = None) -> Identity:
        """Make keys here, register them with a single-use token, and keep them in a key file.

        Args:
            name: The name the token was made for.
            token: What ``agentbus agent create`` printed.
            url: The pinned bus URL; else ``AGENTBUS_URL``, else the profile.

        Raises:
            ConfigError, KeyFileError, DirectoryRefused, Unavailable.
        """
        bus = import_module("agentbus.bus")  # by name: the bus stands above this module, and reaches the directory
        identity: Identity = await bus.enrol_identity(name, token, url)
        return identity

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a new key file, mode 0600.

        Raises:
            KeyFileError: ``key.exists``, ``key.file``.
        """
        file = Path(path)
        data = {"v": 1, "id": self.id, "key": b64(self.key.seed), "curve": b64(self.curve.secret)}
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise KeyFileError("key.exists", f"{file} exists and is not overwritten") from error
        except OSError as error:
            raise KeyFileError("key.file", f"{file} cannot be written: {error.strerror}") from error
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(data, out)
            out.flush()
            os.fsync(out.fileno())
        return file
