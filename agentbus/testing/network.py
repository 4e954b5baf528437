"""A whole trust domain in one process whose clock stands still, with somebody in it who means harm.

Nothing here goes around a check: the attacker is enrolled like anybody else, has keys and a connection of her own, and
what is refused is refused by the code that runs in production.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

from agentbus.audit import Evidence
from agentbus.bus.base import Opening
from agentbus.bus.local import LocalBus
from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.delegation.scope import Scope
from agentbus.directory.store import SqliteStore
from agentbus.errors import ProgrammingError, Unavailable
from agentbus.host import enrol_here
from agentbus.identity import Identity
from agentbus.log.base import LogStore
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Received, Refused
from agentbus.logstore.files import FileLog
from agentbus.logstore.memory import MemoryLog
from agentbus.runtime.agent import Agent
from agentbus.runtime.clock import Clock
from agentbus.runtime.node import Node
from agentbus.runtime.trust_cache import TrustSource
from agentbus.runtime.voices import Voice
from agentbus.services.directory import DirectoryServer
from agentbus.services.inside import Inside
from agentbus.testing.attacker import Attacker, Captured, Tap
from agentbus.testing.clock import ManualClock
from agentbus.transport.memory import MemoryTransport
from agentbus.wire.ids import PrincipalId, everyone, name_id

CODES: Final = {
    "usage.evidence": "evidence() reads the logs of a test network's own nodes: name an agent that was served here.",
    "usage.clock": "A test network runs by a ManualClock.",
}


class Entropy:
    """Bytes that look random and are the same in every run. Never for production: anybody can compute them."""

    def __init__(self, seed: bytes = b"agentbus test network") -> None:
        self._seed, self._count = seed, 0

    def __call__(self, length: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(self._seed + self._count.to_bytes(8, "big")).digest(length)


class Network(LocalBus):
    """A :class:`~agentbus.bus.local.LocalBus` that runs by a :class:`ManualClock`, and has an attacker in it.

    Attributes:
        clock: Stands still until it is moved.
        attacker: The enrolled agent ``mallory``, with her own keys, node and connection.
        captured: Every envelope that reached this network's node, newest last.
    """

    clock: ManualClock
    attacker: Attacker
    captured: list[Captured]
    _sources: list[_Source]
    _folder: TemporaryDirectory[str] | None

    @classmethod
    def open(cls, *, domain: str = "local.test") -> Opening[Self]:
        """A new network: ``async with Network.open() as net``.

        Args:
            domain: The trust domain's name.
        """
        return Opening(lambda: cls._start(domain))

    @classmethod
    async def _start(
        cls,
        domain: str,
        *,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] | None = None,
        log: LogStore | None = None,
    ) -> Self:
        manual = ManualClock() if clock is None else clock
        if not isinstance(manual, ManualClock):
            raise ProgrammingError("usage.clock", CODES["usage.clock"])
        bus = await super()._start(domain, clock=manual, entropy=entropy or Entropy(), log=log)
        own, transport = bus._node.source, bus._node.transport
        assert isinstance(own, _Source) and isinstance(transport, MemoryTransport)
        bus.clock, bus.captured, bus._folder = manual, [], None
        bus._sources = [own]
        transport._sink = Tap(bus._node, bus.captured)
        manual.drive(bus._node)
        bus.attacker = await bus._invite("mallory")
        return bus

    @staticmethod
    def _view(server: DirectoryServer) -> TrustSource:
        return _Source(server, server.clock, owns=True)

    async def _invite(self, name: str, identity: Identity | None = None) -> Attacker:
        """Enrol an agent unless it is known, and start a node of its name at the same hub, with a log of its own."""
        own, transport = self._node.source, self._node.transport
        assert isinstance(own, _Source) and isinstance(transport, MemoryTransport)
        server = own._server
        make, domain = self._entropy, self._core.domain
        if identity is None:
            identity = Identity(name_id(name, domain), SigningKey(make(32)), CurveKey(make(32)))
            enrol_here(self._core, identity, now=self.clock.now(), may_talk_to=[everyone(domain)])
        carrier = MemoryTransport(transport._hub, key=identity.curve.public)
        log = MemoryLog(key=SigningKey(make(32)), origin=f"agentbus.{domain}/{name}/1")
        source = _Source(server, self.clock)
        self._sources.append(source)
        place = Node(
            name,
            transport=carrier,
            source=source,
            curve_key=identity.curve.public,
            log=log,
            clock=self.clock,
            entropy=make,
        )
        await place.open()
        invited = Attacker(place, await place.enter(identity), self)
        carrier._sink = Tap(place, invited.received)
        self.clock.drive(place)
        return invited

    async def _seat(self, agent: Agent[Any], who: PrincipalId) -> Voice:
        """As on any local bus; the attacker's ceiling follows, so that it is never a ceiling alone that stops her."""
        voice = await super()._seat(agent, who)
        mallory = self.attacker
        ceiling = {str(s) for s in self._record(who).ceiling}
        if {str(s) for s in self._record(mallory.id).ceiling} != ceiling:
            self._core.amend(mallory.id, now=self.clock.now(), ceiling=ceiling)
            await mallory.node.voices.renew(mallory.voice)
        return voice

    def _allow(self, names: set[str], now: int) -> None:
        super()._allow(names, now)
        mallory = self.attacker
        ceiling = {str(s) for s in self._record(mallory.id).ceiling}
        if names - ceiling:
            self._core.amend(mallory.id, now=now, ceiling=ceiling | names)
            mallory.node.voices.renew_soon(mallory.voice)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def advance(self, seconds: float, *, step: float = 600) -> None:
        """Move the clock in steps, and let what that starts (expiry, renewals) run after each.

        Args:
            seconds: How far.
            step: Seconds at a time.
        """
        left = float(seconds)
        while left > 0:
            self.clock.advance(min(step, left))
            left -= step
            await self.settle()

    async def settle(self, turns: int = 60) -> None:
        """Let the event loop turn until what is under way in memory has arrived.

        Args:
            turns: How many.
        """
        for _ in range(turns):
            await asyncio.sleep(0)

    def silence_directory(self) -> None:
        """From now on nobody hears the directory; its last word grows old as the clock moves."""
        for source in self._sources:
            source.heard = self.clock.mono()

    def hear_directory(self) -> None:
        """The directory is heard again."""
        for source in self._sources:
            source.heard = None

    # ── what is on the record ────────────────────────────────────────────────────────────────────────────────────

    def verdicts(self, since: int = 0) -> list[str]:
        """The code of every envelope this node judged, from entry ``since`` of its log on: ``ok``, or the refusal.

        Args:
            since: The first entry that is looked at.
        """
        self._node.recorder.flush()
        entries = (decode_entry(data) for data in list(self._node.recorder.log)[since:])
        return [entry.code for entry in entries if isinstance(entry, Received | Refused)]

    def directory_amend(self, who: str, **changes: Any) -> None:
        """Change a principal's record in the directory: ``ceiling=[…]``, ``may_talk_to=[…]``, ``rights=[…]``.

        Args:
            who: A short name or a full id.
            changes: The fields, with what they are from now on.
        """
        record: dict[str, Sequence[str | Scope]] = changes
        self._core.amend(name_id(who, self._core.domain), now=self.clock.now(), **record)

    def evidence(self, agent: str) -> Evidence:
        """What an auditor would be handed about ``agent``: its node's log and the directory's, as they are now.

        Args:
            agent: Its name.

        Raises:
            ProgrammingError: ``usage.evidence``: no such agent was served here.
        """
        who = name_id(agent, self._core.domain)
        if who != self.attacker.id and who not in self._identities:
            raise ProgrammingError("usage.evidence", f"{agent}: {CODES['usage.evidence']}")
        node = self.attacker.node if who == self.attacker.id else self._node
        node.recorder.flush()
        log = node.recorder.log
        if not isinstance(log, MemoryLog):
            raise ProgrammingError("usage.evidence", "open the files of this network's log with Evidence.open")
        self._folder = self._folder or TemporaryDirectory(prefix="agentbus-net-")
        folder = Path(self._folder.name) / str(self.clock.now()) / str(log.size)
        if not folder.exists():
            _write_log(log, folder / node.name, self.clock.now())
            store = SqliteStore(folder / "directory")
            store.append(0, list(self._core.store.entries(0)))
            store.close()
        return Evidence.open(folder / node.name, directory=folder / "directory", root=self._core.trust.root)

    async def aclose(self) -> None:
        """Close the attacker's node, then everything else."""
        await self.attacker.aclose()
        await super().aclose()
        if self._folder is not None:
            self._folder.cleanup()


def _write_log(log: MemoryLog, folder: Path, now: int) -> None:
    """A memory log's entries and blobs as a folder that an auditor reads."""
    folder.mkdir(parents=True)
    files = FileLog.open(folder, key=log._key, origin=log.origin, now=now)
    for blob in log._blobs.values():
        files.put_blob(blob)
    for name, key in log._keys.items():
        files.adopt_box(log._boxes[name], key)
    files.append(list(log))
    files.close()


class _Source(Inside):
    """One node's view of the directory of this process; it can be made to fall silent."""

    def __init__(self, server: DirectoryServer, clock: Clock, *, owns: bool = False) -> None:
        super().__init__(server.core, clock, server.entropy)
        self._server, self._owns = server, owns
        self.heard: int | None = None  # the monotonic instant since which the directory is silent
        self.changed, self.left, self.returned = server.changed, server.left, server.returned
        self.departed = server.departed

    async def open(self) -> None:
        if self._owns:
            await self._server.open()

    async def aclose(self) -> None:
        if self._owns:
            await self._server.aclose()

    def age(self) -> int | None:
        return 0 if self.heard is None else self.clock.mono() - self.heard

    async def refresh(self) -> None:
        if self.heard is not None:
            raise Unavailable("unavailable.directory", "the directory is silent")

    async def find(self, keys: Iterable[bytes] = (), principals: Iterable[str] = ()) -> None:
        await self.refresh()

    async def rotate(self, who: PrincipalId, body: bytes, by_old: bytes, by_new: bytes) -> None:
        await self.refresh()
        await self._server.rotate(who, body, by_old, by_new)

    async def publish(self, statement: bytes) -> bytes:
        await self.refresh()
        return await self._server.publish(statement)

    def leave(self, instance_ids: list[bytes]) -> None:
        self._server.leave(instance_ids)
