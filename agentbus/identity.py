"""An identity: who somebody is, with the keys that prove it, in memory or in a key file.

The identity key signs statements about its owner and never an envelope. Another key may follow it while it runs: what
counts is what the directory says, and :meth:`Identity.current` is the one place that compares the two.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError, KeyFileError
from agentbus.home import key_path
from agentbus.keyfile import KeyFile, Keys, Lock
from agentbus.wire.ids import PrincipalId


@dataclass(frozen=True, slots=True)
class Identity:
    """Who, and the keys that prove it.

    Args:
        id: The principal.
        key: Its identity key: signs statements.
        curve: Its CURVE key: opens connections.
        file: Where they are kept; None: in memory only.
    """

    id: PrincipalId
    key: SigningKey = field(repr=False)
    curve: CurveKey = field(repr=False)
    file: KeyFile | None = field(default=None, repr=False, compare=False)

    @classmethod
    def load(cls, name: str, *, passphrase: str | None = None) -> Identity:
        """The identity that was enrolled here under ``name`` (``planner``, ``user/alice``).

        Args:
            name: The short name.
            passphrase: Of a key file that is locked; else the one that ``AGENTBUS_KEY_PASSPHRASE_FILE`` names.

        Raises:
            KeyFileError: ``key.missing``, ``key.readable``, ``key.file``, ``key.locked``, ``key.passphrase``.
        """
        return cls.from_file(key_path(name), passphrase=passphrase)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, passphrase: str | None = None) -> Identity:
        """The identity in a key file.

        Args:
            path: The file.
            passphrase: Where it is locked.

        Returns:
            The identity, which goes on being kept in that file when it is rotated.

        Raises:
            KeyFileError: ``key.missing``, ``key.readable``, ``key.file``, ``key.locked``, ``key.passphrase``.
        """
        file = KeyFile(Path(path))
        try:
            keys, opened = file.read(passphrase)
        except KeyFileError as error:
            if error.code != "key.missing" or not file.proposal.path.exists():
                raise
            keys, opened = file.proposal.read(passphrase)  # enrolled, and killed before it heard so
        return cls(*keys, KeyFile(file.path, opened.lock))

    @classmethod
    async def enrol(
        cls, name: str, *, token: str, url: str | None = None, passphrase: str | None = None, replace: bool = False
    ) -> Identity:
        """Make keys here, register them with a single-use token, and keep them in a key file.

        Args:
            name: The name the token was made for.
            token: What ``agentbus agent create`` printed.
            url: The pinned bus URL; else ``AGENTBUS_URL``, else the profile.
            passphrase: Lock the key file with it; else with the one that ``AGENTBUS_KEY_PASSPHRASE_FILE`` names, else
                the file's mode alone protects it.
            replace: A key file of that name, whose key was lost or compromised, is kept beside the new one.

        Raises:
            ConfigError, KeyFileError, DirectoryRefused, Unavailable.
        """
        bus = import_module("agentbus.bus.opening")  # by name: the bus stands above this module
        identity: Identity = await bus.enrol_identity(name, token, url, passphrase=passphrase, replace=replace)
        return identity

    async def rotate(self, *, url: str | None = None, overlap: float = 3600.0) -> Identity:
        """Let a new identity key follow this one, which goes on to verify for ``overlap`` seconds.

        It is the one that :meth:`prepare` published, if that was done. Instances of this identity that run from the
        same key file, in this process or another, take the new key by themselves. A bus that speaks for it has
        :meth:`agentbus.Bus.rotate`.

        Args:
            url: The pinned bus URL; else ``AGENTBUS_URL``, else the profile.
            overlap: Seconds; at least as long as an instance elsewhere needs to get the new key file.

        Returns:
            The identity with the new key, which is in its key file.

        Raises:
            KeyFileError, DirectoryRefused, Unavailable.
        """
        bus = import_module("agentbus.bus.opening")
        identity: Identity = await bus.rotate_identity(self, url, overlap, "activate")
        return identity

    async def prepare(self, *, url: str | None = None) -> Identity:
        """Publish the identity key that is to follow this one, before it is used: :meth:`rotate` then makes it active.

        It waits beside the key file, and the directory says that it is prepared. Nothing that it signs counts yet.
        Twice is once.

        Args:
            url: The pinned bus URL; else ``AGENTBUS_URL``, else the profile.

        Returns:
            The identity with the key to come.

        Raises:
            KeyFileError, DirectoryRefused, Unavailable.
        """
        bus = import_module("agentbus.bus.opening")
        identity: Identity = await bus.rotate_identity(self, url, 0.0, "prepare")
        return identity

    def current(self, trust: Trust) -> Identity:
        """This identity with the key that the directory says is the active one, where that is here or in the files.

        A proposal that the directory took becomes the key file. Reads files; a locked one that is locked otherwise
        than before costs a second.

        Args:
            trust: What the directory says.

        Returns:
            This identity, or it with that key.
        """
        active = trust.active_key(self.id)
        for candidate in self._candidates():
            if active is not None and active.key.id == candidate.key.id:
                self._settle(candidate)
                return candidate
        return self

    def _candidates(self) -> Iterator[Identity]:
        yield self
        if self.file is None:
            return
        for file in (self.file, self.file.proposal):
            try:
                keys, opened = file.read()
            except AgentBusError:
                continue
            if keys.id == self.id:
                yield Identity(*keys, KeyFile(self.file.path, opened.lock))

    def _settle(self, candidate: Identity) -> None:
        """Make the file say what the directory says, where the answer to a rotation or enrolment was never heard."""
        if self.file is None or not self.file.proposal.path.exists():
            return
        try:
            keys, _ = self.file.proposal.read()
            if keys.key.id == candidate.key.id:
                self.file.accept()
        except AgentBusError:
            return  # somebody else settled it, or it is none of ours

    def propose(self, key: SigningKey) -> Identity:
        """This identity with a successor, which is in the proposal's file before anybody hears of it.

        A proposal that is there already is taken up, not replaced: its key may have been accepted.

        Args:
            key: The successor.

        Returns:
            This identity with it, or with the one that was proposed before.

        Raises:
            KeyFileError: ``key.file``, ``key.locked``, ``key.readable``.
        """
        if self.file is None:
            return replace(self, key=key)
        try:
            self.file.proposal.create(Keys(self.id, key, self.curve))
        except KeyFileError as error:
            if error.code != "key.exists":
                raise
            key = self.file.proposal.read()[0].key
        return replace(self, key=key)

    def save(self, path: str | os.PathLike[str], *, lock: Lock | None = None) -> Path:
        """Write a new key file, mode 0600.

        Args:
            path: Where; nothing may be there.
            lock: A passphrase to lock it with.

        Returns:
            The path.

        Raises:
            KeyFileError: ``key.exists``, ``key.file``.
        """
        file = KeyFile(Path(path), lock)
        file.create(Keys(self.id, self.key, self.curve))
        return file.path
