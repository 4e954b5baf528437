"""Authorities kept here: made by users of this machine, or given to agents on it. One file each, or in memory.

An authority is bound to its holder, so a file of one is no secret; and it proves nothing before it is verified.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from agentbus.delegation.chain import Authority
from agentbus.errors import AgentBusError, ConfigError
from agentbus.wire.limits import LIMITS

CODES: Final = {
    "config.grant_unknown": "No grant of this id is kept here; `agentbus grant list --all` shows which are.",
    "config.grant_ambiguous": "Several grants kept here begin so; give more digits.",
    "config.grant_file": "This file is no grant; `agentbus grant create` writes one.",
}

SUFFIX: Final = ".grant"
PREFIX: Final = 4  # digits that name a grant, as a git commit is named


class Holdings:
    """Authorities by id.

    Args:
        folder: Where each is kept as ``<id>.grant``; None keeps them in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._memory: dict[str, Authority] = {}

    def add(self, authority: Authority) -> Path | None:
        """Keep it; twice is once. The file, where there is a folder."""
        if self.folder is None:
            self._memory[authority.id] = authority
            return None
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / f"{authority.id}{SUFFIX}"
        fresh = path.with_suffix(f".{os.getpid()}.new")
        fresh.write_bytes(authority.to_bytes())
        fresh.replace(path)
        return path

    def drop(self, authority: Authority) -> None:
        """Keep it no longer; one that was never kept is no matter."""
        self._memory.pop(authority.id, None)
        if self.folder is not None:
            (self.folder / f"{authority.id}{SUFFIX}").unlink(missing_ok=True)

    def forget_ended(self, now: int) -> None:
        """Let go of what is kept in memory and has ended at ``now`` (microseconds)."""
        self._memory = {i: a for i, a in self._memory.items() if a.expires_at > now}

    def all(self) -> list[Authority]:
        """Every authority kept, the one that ends first in front. Files that are no grants are left out."""
        found = dict(self._memory)
        for path in self.folder.glob(f"*{SUFFIX}") if self.folder is not None and self.folder.is_dir() else ():
            with suppress(ConfigError):
                authority = read_grant(path)
                found[authority.id] = authority
        return sorted(found.values(), key=lambda authority: (authority.expires_at, authority.id))

    def find(self, text: str) -> Authority:
        """The one whose id begins with ``text``.

        Raises:
            ConfigError: ``config.grant_unknown``, ``config.grant_ambiguous``.
        """
        fits = [a for a in self.all() if len(text) >= PREFIX and a.id.startswith(text.lower())]
        if not fits:
            raise ConfigError("config.grant_unknown", f"no grant {text!r} is here; see `agentbus grant list --all`")
        if len(fits) > 1:
            raise ConfigError("config.grant_ambiguous", f"{len(fits)} grants begin with {text}; give more digits")
        return fits[0]


def read_grant(path: Path) -> Authority:
    """The authority in a file. Its form is good; nothing else is said.

    Raises:
        ConfigError: ``config.grant_file``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LIMITS.chain + 1)
        return Authority.from_bytes(data)
    except OSError as error:
        raise ConfigError("config.grant_file", f"{path} cannot be read: {error.strerror}") from error
    except AgentBusError as error:
        raise ConfigError("config.grant_file", f"{path} is no grant: {error}") from error
