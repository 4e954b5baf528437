"""A directory whose synchronisation is spoken to frame by frame, in memory and by a clock that stands still."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from agentbus.crypto.keys import SigningKey
from agentbus.delegation.statements import Instance
from agentbus.identity import Identity
from agentbus.services.directory import DirectoryServer
from agentbus.testing.clock import ManualClock
from agentbus.transport.base import Connection
from agentbus.transport.memory import MemoryHub, MemoryTransport
from agentbus.wire.limits import SECOND
from agentbus.wire.sync import decode_sync, encode_sync
from tests.directory.registry import Registry


async def settle(turns: int = 30) -> None:
    """Let what is under way in memory arrive."""
    for _ in range(turns):
        await asyncio.sleep(0)


class Town:
    """A directory that listens, and its clock."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.core = self.registry.core
        self.clock = ManualClock(self.registry.now)
        self.server = DirectoryServer(self.core, self.clock)
        self.hub = MemoryHub()
        self.transport = MemoryTransport(self.hub, key=self.core.keys.curve.public)
        self.connections: dict[int, Connection] = {}

    async def open(self) -> None:
        await self.transport.open(self)

    def enrol(self, name: str, **record: Any) -> Identity:
        return self.registry.enrol(name, **record)

    def received(self, connection: Connection, frame: bytes) -> None:
        self.connections[connection.id] = connection
        self.server.serve(connection, frame)

    def lost(self, connection: Connection, reason: str) -> None:
        self.server.lost(connection)

    async def admit(self, key: bytes) -> bool:
        return self.core.trust.admits(key)

    async def pass_time(self, seconds: float) -> None:
        """As so many seconds, and the directory's own beat after them."""
        self.clock.advance(seconds)
        self.server._tick(self.clock.now())
        await settle()


class Speaker:
    """Somebody's bare connection to the directory."""

    def __init__(self, town: Town, identity: Identity) -> None:
        self.town, self.identity = town, identity
        self.transport = MemoryTransport(town.hub, key=identity.curve.public, listen=False)
        self.frames: list[tuple[str, int, list[Any]]] = []
        self.sizes: list[int] = []
        self.lost_reason: str | None = None
        self.number = 0

    async def open(self) -> Speaker:
        await self.transport.open(self)
        self.connection = self.transport.dial(self.town.transport.endpoints[0], self.town.core.keys.curve.public)
        return self

    def received(self, connection: Connection, frame: bytes) -> None:
        self.sizes.append(len(frame))
        self.frames.append(decode_sync(frame))

    def lost(self, connection: Connection, reason: str) -> None:
        self.lost_reason = reason

    async def admit(self, key: bytes) -> bool:
        return False

    def send(self, operation: str, *parts: Any) -> int:
        self.number += 1
        self.connection.offer(encode_sync(operation, self.number, *parts))
        return self.number

    async def call(self, operation: str, *parts: Any) -> tuple[str, list[Any]]:
        number = self.send(operation, *parts)
        await settle()
        return next((frame[0], frame[2]) for frame in self.frames if frame[1] == number)

    def pushed(self) -> list[list[Any]]:
        return [parts for operation, _, parts in self.frames if operation == "push"]

    def statement(self, *, node: str | None = None, life: float = 3600, **changes: Any) -> bytes:
        of, key, now = self.identity, SigningKey(os.urandom(32)), self.town.clock.now()
        instance = Instance(
            of.id, 1, os.urandom(16), key.public.raw, of.key.id, node or of.id.short.replace("/", "-"),
            SigningKey(b"l" * 32).public.raw, of.curve.public, [], ["envelope", "grant"], now,
            now + int(life * SECOND),
        )._replace(**changes)  # fmt: skip
        return instance.signed_by(of.key, key).encode()
