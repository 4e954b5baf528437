"""A directory in memory with people in it, for tests of what it writes down."""

from __future__ import annotations

from typing import Any

from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.delegation.statements import Rotation
from agentbus.directory import life
from agentbus.directory.core import Directory, OnlineKeys
from agentbus.directory.store import SqliteStore
from agentbus.host import enrol_here
from agentbus.identity import Identity
from agentbus.testing.draw import NOON, seed
from agentbus.wire.ids import name_id
from agentbus.wire.limits import SECOND


class Registry:
    """A directory, a clock that is turned by hand, and everybody's keys."""

    def __init__(self, store: SqliteStore | None = None) -> None:
        self.now = NOON
        self._count = 0
        self.root = SigningKey(seed("registry root"))
        keys = OnlineKeys.make(self.entropy)
        self.core = Directory.create(store or SqliteStore(None), keys, self.root, domain="local.test", now=self.now)

    def entropy(self, length: int) -> bytes:
        self._count += 1
        return seed("registry", str(self._count))[:length]

    def tick(self, seconds: float = 1) -> int:
        self.now += int(seconds * SECOND)
        return self.now

    def enrol(self, name: str, **record: Any) -> Identity:
        identity = self.identity(name)
        enrol_here(self.core, identity, now=self.now, **record)
        return identity

    def identity(self, name: str) -> Identity:
        who = name_id(name, self.core.domain)
        return Identity(who, SigningKey(self.entropy(32)), CurveKey(self.entropy(32)))

    def rotation(self, of: Identity, to: SigningKey, **changes: Any) -> Rotation:
        record = self.core.trust.principals[of.id]
        return Rotation(
            self.core.domain, of.id, record.epoch, of.key.id, to.public.raw, "activate", 3600 * SECOND,
            self.now + 30 * SECOND,
        )._replace(**changes)  # fmt: skip

    def rotate(self, of: Identity, **changes: Any) -> Identity:
        new = SigningKey(self.entropy(32))
        payload = list(self.rotation(of, new, **changes).proven_by(of.key, new))
        life.rotate(self.core, payload, now=self.now)
        return Identity(of.id, new, of.curve)

    def state(self, identity: Identity) -> str:
        return self.core.trust.key_state_at(identity.key.id, self.now)
