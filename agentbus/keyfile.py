"""Key files: an identity's secrets on disk, and beside them a key that the directory has not taken yet.

Rule 1: a file that others can read is refused rather than repaired: it may have been read already.
Rule 2: a new key is on disk before anybody hears of it, and the old one stays until the directory took the new one:
whoever is killed in between finds a usable identity. ``NAME.json`` is the key that counts, ``NAME.json.next`` a
proposal, and accepting is one rename.
Rule 3: a proposal is never overwritten, since it may have been accepted by a directory whose answer was lost.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox

from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.disk import sync_folder
from agentbus.errors import AgentBusError, ConfigError, KeyFileError
from agentbus.wire.ids import PrincipalId, b64, parse_id, unb64

CODES: Final = {
    "key.missing": "There is no key file for this identity; enrol it, or name another with --as or AGENTBUS_IDENTITY.",
    "key.readable": "Others can read this key file, so the key must be taken as known to them.",
    "key.file": "This is no agentbus key file, or it is damaged.",
    "key.exists": "A key file of this name exists; it is never overwritten.",
    "key.locked": "A passphrase protects this key file; AGENTBUS_KEY_PASSPHRASE_FILE names a file that holds it.",
    "key.passphrase": "This is not the passphrase of the key file.",
    "config.passphrase": "The file that AGENTBUS_KEY_PASSPHRASE_FILE names cannot be read, or holds nothing.",
}

OPS: Final = argon2id.OPSLIMIT_MODERATE
MEMORY: Final = argon2id.MEMLIMIT_MODERATE
SALT: Final = argon2id.SALTBYTES
PASSPHRASE_FILE: Final = "AGENTBUS_KEY_PASSPHRASE_FILE"
_TODO: Final = "enrol it first (`agentbus agent create`, then `enrol`), or name another identity"


class Keys(NamedTuple):
    """What a key file holds."""

    id: PrincipalId
    key: SigningKey
    curve: CurveKey


@dataclass(frozen=True, slots=True)
class Lock:
    """What a passphrase opens: its key under argon2id, so that the passphrase itself need not be kept."""

    salt: bytes
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, passphrase: str, salt: bytes) -> Lock:
        """Derive the key (RFC 9106), which takes about a second and 256 MiB on purpose."""
        return cls(salt, argon2id.kdf(SecretBox.KEY_SIZE, passphrase.encode(), salt, OPS, MEMORY))


def passphrase_from_environment() -> str | None:
    """The passphrase in the file that ``AGENTBUS_KEY_PASSPHRASE_FILE`` names; None where it names none.

    Raises:
        ConfigError: ``config.passphrase``.
    """
    name = os.environ.get(PASSPHRASE_FILE)
    if not name:
        return None
    try:
        text = Path(name).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config.passphrase", f"{PASSPHRASE_FILE} names {name}, which cannot be read") from error
    if not text:
        raise ConfigError("config.passphrase", f"{PASSPHRASE_FILE} names {name}, which holds nothing")
    return text


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key file and, once it was opened or made with a passphrase, what locks it."""

    path: Path
    lock: Lock | None = None

    @property
    def proposal(self) -> KeyFile:
        """The file of a key that the directory has not taken yet."""
        return KeyFile(self.path.with_name(f"{self.path.name}.next"), self.lock)

    def read(self, passphrase: str | None = None) -> tuple[Keys, KeyFile]:
        """The secrets, and this file with its lock opened.

        Args:
            passphrase: Else the one that ``AGENTBUS_KEY_PASSPHRASE_FILE`` names.

        Raises:
            KeyFileError: ``key.missing``, ``key.readable``, ``key.file``, ``key.locked``, ``key.passphrase``.
            ConfigError: ``config.passphrase``.
        """
        data = self._load()
        try:
            who = parse_id(data["id"])
            if "box" not in data:
                return _keys(who, data), KeyFile(self.path)
            salt, box = unb64(data["salt"], SALT), unb64(data["box"])
            if data["kdf"] != "argon2id" or (data["ops"], data["memory"]) != (OPS, MEMORY):
                raise KeyFileError("key.file", f"{self.path} is locked in a way that this version does not know")
        except (ValueError, KeyError, TypeError, AgentBusError) as error:
            if isinstance(error, KeyFileError):
                raise
            raise KeyFileError("key.file", f"{self.path} is no agentbus key file, or it is damaged") from error
        lock = self._unlock(salt, passphrase)
        try:
            inner = json.loads(SecretBox(lock.key).decrypt(box))
            if inner["id"] != who:
                raise KeyFileError("key.file", f"{self.path} holds the keys of somebody else")
            return _keys(who, inner), KeyFile(self.path, lock)
        except CryptoError as error:
            raise KeyFileError("key.passphrase", f"this passphrase does not open {self.path}") from error

    def _unlock(self, salt: bytes, passphrase: str | None) -> Lock:
        if self.lock is not None and self.lock.salt == salt:
            return self.lock
        passphrase = passphrase or passphrase_from_environment()
        if passphrase is None:
            raise KeyFileError("key.locked", f"a passphrase protects {self.path}; set {PASSPHRASE_FILE}")
        return Lock.of(passphrase, salt)

    def _load(self) -> dict[str, Any]:
        try:
            mode = self.path.stat().st_mode
            text = self.path.read_text("utf-8")
        except FileNotFoundError as error:
            kinds = [kind for kind in ("user", "service") if self.path.with_name(f"{kind}__{self.path.name}").exists()]
            todo = f"did you mean {kinds[0]}/{self.path.stem}?" if kinds else _TODO
            raise KeyFileError("key.missing", f"no key file {self.path}; {todo}") from error
        except OSError as error:
            raise KeyFileError("key.file", f"{self.path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise KeyFileError("key.file", f"{self.path} is no agentbus key file") from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyFileError(
                "key.readable", f"{self.path} is open to others; rotate the key, or chmod 600 if it never was"
            )
        try:
            data = json.loads(text)
        except ValueError as error:
            raise KeyFileError("key.file", f"{self.path} is no agentbus key file, or it is damaged") from error
        if not isinstance(data, dict) or data.get("v") != 1:
            raise KeyFileError("key.file", f"{self.path} is no agentbus key file that this version knows")
        return data

    def create(self, keys: Keys) -> None:
        """Write a file that was not there, whole or not at all, mode 0600.

        Raises:
            KeyFileError: ``key.exists``, ``key.file``.
        """
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh.unlink(missing_ok=True)
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                json.dump(self._encoded(keys), out)
                out.flush()
                os.fsync(out.fileno())
            os.link(fresh, self.path)  # unlike a rename, it refuses where there is one
        except FileExistsError as error:
            raise KeyFileError("key.exists", f"{self.path} exists and is not overwritten") from error
        except OSError as error:
            raise KeyFileError("key.file", f"{self.path} cannot be written: {error.strerror}") from error
        finally:
            fresh.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _encoded(self, keys: Keys) -> dict[str, Any]:
        secrets = {"id": keys.id, "key": b64(keys.key.seed), "curve": b64(keys.curve.secret)}
        if self.lock is None:
            return {"v": 1, **secrets}
        box = bytes(SecretBox(self.lock.key).encrypt(json.dumps(secrets).encode()))
        return {
            "v": 1, "id": keys.id, "kdf": "argon2id", "ops": OPS, "memory": MEMORY,
            "salt": b64(self.lock.salt), "box": b64(box),
        }  # fmt: skip

    def accept(self) -> None:
        """The proposal is the key from here on: one rename, which another process may have done already.

        Raises:
            KeyFileError: ``key.file``.
        """
        try:
            self.proposal.path.replace(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise KeyFileError("key.file", f"{self.path} cannot be written: {error.strerror}") from error
        sync_folder(self.path.parent)

    def keep_old(self) -> Path | None:
        """Give the present file another name too, before it is replaced: it may be wanted to prove something."""
        for number in range(1, 1000):
            old = self.path.with_name(f"{self.path.name}.old{number}")
            try:
                os.link(self.path, old)
            except FileExistsError:
                continue
            except FileNotFoundError:
                return None
            return old
        return None


def _keys(who: PrincipalId, data: dict[str, Any]) -> Keys:
    return Keys(who, SigningKey(unb64(data["key"], 32)), CurveKey(unb64(data["curve"], 32)))
