"""The public Bus: connect to a trust domain, serve agents, speak for oneself or for a user."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import agentbus.identity
import agentbus.runtime.agent
from agentbus.connect import BusUrl, find_url, log_folder, zmq_transport
from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.delegation.chain import Authority
from agentbus.delegation.scope import Scope
from agentbus.directory.core import Directory, OnlineKeys
from agentbus.directory.store import SqliteStore
from agentbus.enrolment import enrol
from agentbus.errors import (
    AgentBusError,
    AgentNotFound,
    ConfigError,
    Denied,
    DirectoryRefused,
    KeyFileError,
    ProgrammingError,
)
from agentbus.host import enrol_here, open_log
from agentbus.identity import Identity, key_path
from agentbus.log.base import LogStore
from agentbus.logstore.memory import MemoryLog
from agentbus.runtime.agent import Agent
from agentbus.runtime.caller import Caller, Session
from agentbus.runtime.clock import Clock, SystemClock
from agentbus.runtime.discovery import Describe
from agentbus.runtime.links import user_root
from agentbus.runtime.node import Node, Voice
from agentbus.runtime.serving import Service, policy_of
from agentbus.runtime.trust_cache import TrustCache
from agentbus.services.directory import DirectoryServer, directory_agent
from agentbus.services.discovery import Claims, add_discovery
from agentbus.transport.base import Transport
from agentbus.transport.memory import MemoryHub, MemoryTransport
from agentbus.wire.ids import PrincipalId, everyone, name_id
from agentbus.wire.limits import SECOND

CODES: Final = {
    "config.no_identity": "Nobody speaks: pass identity=, set AGENTBUS_IDENTITY, or enrol with `agentbus agent enrol`.",
    "denied.not_holder": "An authority is bound to its holder; this bus speaks for somebody else.",
    "usage.served_twice": "An agent of this name is being served on this bus.",
}

B = TypeVar("B", bound="Bus")


class Opening(Generic[B], Awaitable[B], AbstractAsyncContextManager[B]):
    """What ``Bus.connect()`` and ``Bus.local()`` return: ``async with`` it, or ``await`` it and close it yourself."""

    def __init__(self, start: Callable[[], Awaitable[B]]) -> None:
        self._start = start
        self._bus: B | None = None

    def __await__(self) -> Generator[Any, None, B]:
        return self._start().__await__()

    async def __aenter__(self) -> B:
        self._bus = await self._start()
        return self._bus

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bus is not None:
            await self._bus.aclose()


class Bus(Caller):
    """A connection to a trust domain, under one identity. As a :class:`Caller` it speaks for itself."""

    def __init__(self, node: Node, voice: Voice) -> None:
        self._node, self._voice = node, voice
        self._services: list[Service] = []

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        identity: Identity | str | None = None,
        listen: str | None = None,
        advertise: str | None = None,
    ) -> Opening[Bus]:
        """Connect over ZeroMQ.

        Args:
            url: The pinned bus URL; else ``AGENTBUS_URL``, else the profile.
            identity: Who speaks: an identity, the name of one that was enrolled here, else ``AGENTBUS_IDENTITY``.
            listen: Where to bind (``tcp://0.0.0.0:7500``); else ``AGENTBUS_LISTEN``; by default a free loopback port.
                An empty text: this node only dials out.
            advertise: What others dial instead, where that differs; else ``AGENTBUS_ADVERTISE``.

        Raises:
            ConfigError, KeyFileError, Unavailable, Rejected.
        """

        async def start() -> Bus:
            where = find_url(url)
            who = _identity(identity)
            bind = listen if listen is not None else os.environ.get("AGENTBUS_LISTEN", "tcp://127.0.0.1:*")
            known_as = advertise or os.environ.get("AGENTBUS_ADVERTISE")
            return await connect_bus(where, who, listen=bind or None, advertise=known_as)

        return Opening(start)

    @classmethod
    def local(cls, *, domain: str = "local.test") -> Opening[LocalBus]:
        """A whole trust domain in this process: directory, transport and log in memory; for tests and first steps."""
        return Opening(lambda: LocalBus._start(domain))

    @property
    def id(self) -> PrincipalId:
        """Whom this bus speaks for."""
        return self._voice.identity.id

    @property
    def authority(self) -> Authority:
        """The standing grant of this bus's own identity."""
        return self._voice.standing

    def serve(self, *agents: Agent[Any]) -> AbstractAsyncContextManager[None]:
        """Serve agents inside the block, each under the identity of its name: there they are registered and reachable.

        Raises:
            KeyFileError: there is no key file for an agent's name.
        """
        return self._serve(agents)

    @asynccontextmanager
    async def _serve(self, agents: Sequence[Agent[Any]], drain: float = 0.0) -> AsyncIterator[None]:
        started: list[Service] = []
        try:
            for agent in agents:
                started.append(await self._start_service(agent))
            yield
        finally:
            for service in reversed(started):
                await self._stop_service(service, drain)

    async def _start_service(self, agent: Agent[Any]) -> Service:
        who = self._node.name_id(agent.name)
        if any(service.voice.identity.id == who for service in self._services):
            raise ProgrammingError("usage.served_twice", f"{agent.name} is being served on this bus")
        voice = await self._seat(agent, who)
        service = Service(agent, self._node, voice)
        self._services.append(service)
        self._node.set_rules(policy_of(self._services))
        try:
            await service.open()
            await self._describe(service)
        except BaseException:
            await self._stop_service(service)
            raise
        return service

    async def _stop_service(self, service: Service, drain: float = 0.0) -> None:
        """Its rules stay until it has stopped: who asks meanwhile is told so, and not that there is no handler."""
        try:
            await service.aclose(drain)
        finally:
            self._services.remove(service)
            self._node.set_rules(policy_of(self._services))
            if service.voice is not self._voice:
                self._node.leave(service.voice)

    async def _seat(self, agent: Agent[Any], who: PrincipalId) -> Voice:
        if who == self._voice.identity.id:
            return self._voice
        return await self._node.enter(Identity.load(agent.name))

    async def _describe(self, service: Service) -> None:
        """Tell the directory what this agent answers: its own claim, for discovery."""
        handlers = service.agent.handlers.values()
        claim = Describe(
            description=service.agent.description,
            messages=sorted(h.action for h in handlers),
            scopes=sorted({s for h in handlers for s in h.rule.scopes}),
        )
        speaker = Session(self._node, service.voice, service.voice.standing)
        with suppress(
            Denied
        ):  # an agent that may not talk to the directory is not discoverable, and serves all the same
            await speaker.request("service/directory", claim)

    async def run(self, *agents: Agent[Any], ready: Callable[[], Any] | None = None) -> None:
        """Serve agents until SIGTERM or SIGINT, then drain. ``ready`` is called once they can be asked."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            async with self._serve(agents, drain=10.0):
                if ready is not None:
                    ready()
                await stop.wait()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def acting(self, authority: Authority) -> Session:
        """Speak under ``authority``: one task, one authority.

        Raises:
            Denied: ``denied.not_holder``.
        """
        for voice in self._node.voices.values():
            if voice.identity.id == authority.holder:
                return Session(self._node, voice, authority)
        raise Denied("denied.not_holder", f"held by {authority.holder.short}; this bus speaks for {self.id.short}")

    def as_user(
        self, scopes: Sequence[str | Scope], *, targets: Sequence[str] = (), expires_in: float = 600, depth: int = 4
    ) -> Session:
        """A user's bus speaking under a root grant that its own identity key signs now.

        Raises:
            Denied: ``denied.not_holder``: this bus is no user's.
        """
        return Session(self._node, self._voice, self._root(None, scopes, targets, expires_in, depth))

    async def grant(
        self,
        to: str,
        scopes: Sequence[str | Scope],
        *,
        targets: Sequence[str] = (),
        expires_in: float = 600,
        depth: int = 1,
    ) -> Authority:
        """A user's root grant to an agent, signed by her identity key; it outlives this bus.

        Raises:
            Denied: ``denied.not_holder``: this bus is no user's. AgentNotFound: ``agent.not_found``.
        """
        who = self._node.name_id(to)
        if self._node.source.trust.principal(who) is None:
            raise AgentNotFound("agent.not_found", f"nobody is called {to}")
        return self._root(who, scopes, targets, expires_in, depth)

    def _root(
        self, to: PrincipalId | None, scopes: Sequence[str | Scope], targets: Sequence[str], seconds: float, depth: int
    ) -> Authority:
        voice, node = self._voice, self._node
        if voice.identity.id.kind != "user":
            raise Denied("denied.not_holder", f"{self.id.short} is no user; only users sign root grants")
        now = node.clock.now()
        record = node.source.trust.principal(to) if to else None
        return user_root(
            self.id, voice.identity.key, voice.instance.epoch, scopes, now=now, expires=now + int(seconds * SECOND),
            link_id=os.urandom(16), to=to, to_epoch=record.epoch if record else 1,
            targets=[node.name_id(t) for t in targets], depth=depth,
        )  # fmt: skip

    async def aclose(self) -> None:
        """Stop serving, close the connection, leave nothing behind. Twice is harmless."""
        for service in reversed(self._services):
            await service.aclose()
        self._services.clear()
        await self._node.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


class LocalBus(Bus):
    """A bus whose whole trust domain lives in this process. It is ``agent/local`` itself."""

    _core: Directory
    _entropy: Callable[[int], bytes]
    _identities: dict[PrincipalId, Identity]

    @classmethod
    async def _start(
        cls,
        domain: str,
        *,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        log: LogStore | None = None,
    ) -> Self:
        clock = clock or SystemClock()
        keys, root, log_key = OnlineKeys.make(entropy), SigningKey(entropy(32)), SigningKey(entropy(32))
        core = Directory.create(SqliteStore(None), keys, root, domain=domain, now=clock.now())
        server = DirectoryServer(core, clock, entropy)
        curve = CurveKey(entropy(32))
        node = Node(
            "local",
            transport=MemoryTransport(MemoryHub(), key=curve.public),
            source=server,
            curve_key=curve.public,
            log=log or MemoryLog(key=log_key, origin=f"agentbus.{domain}/local/1"),
            log_key=log_key.public.raw,
            clock=clock,
            entropy=entropy,
        )
        me = Identity(name_id("local", domain), SigningKey(entropy(32)), curve)
        enrol_here(core, me, now=clock.now(), may_talk_to=[everyone(domain)])
        await node.open()
        own = Identity(name_id("service/directory", domain), keys.identity, keys.curve)
        bus = cls(node, await node.enter(me))
        bus._core, bus._entropy, bus._identities = core, entropy, {}
        directory = directory_agent(server)
        add_discovery(directory, core, Claims(None), clock.now)
        service = Service(directory, node, await node.enter(own))
        bus._services.append(service)
        node.set_rules(policy_of(bus._services))
        await service.open()
        return bus

    async def _seat(self, agent: Agent[Any], who: PrincipalId) -> Voice:
        """A local agent is enrolled as it is first served; its ceiling is all that the handlers here require."""
        declared = {s for service in self._services for h in service.agent.handlers.values() for s in h.rule.scopes}
        declared |= {s for h in agent.handlers.values() for s in h.rule.scopes}
        declared |= {str(s) for v in self._node.voices.values() for s in self._record(v.identity.id).ceiling}
        now = self._node.clock.now()
        if self._core.trust.principal(who) is None:
            identity = Identity(who, SigningKey(self._entropy(32)), CurveKey(self._entropy(32)))
            enrol_here(self._core, identity, now=now, ceiling=declared, may_talk_to=[everyone(self._core.domain)])
            self._identities[who] = identity
        for voice in list(self._node.voices.values()):
            mine = self._record(voice.identity.id)
            if mine.id.kind == "agent" and {str(s) for s in mine.ceiling} != declared:
                self._core.amend(mine.id, now=now, ceiling=declared)
                await self._node.renew(voice)
        return await self._node.enter(self._identities[who])

    def _record(self, who: PrincipalId) -> Any:
        return self._core.trust.principals[who]

    def user(
        self,
        name: str,
        *,
        scopes: Sequence[str | Scope],
        targets: Sequence[str] = (),
        expires_in: float = 600,
        depth: int = 4,
    ) -> Session:
        """A user of this local bus: her key, a root grant of hers, and an instance that speaks for her.

        Args:
            name: ``alice``; the same name again is the same user with another grant.
            scopes: Her rights, and what the grant gives.
            targets: Whom it may be used with; everyone by default.
            expires_in: Seconds.
            depth: How many links may follow.
        """
        core, node = self._core, self._node
        who = name_id(name if "/" in name else f"user/{name}", core.domain)
        now = node.clock.now()
        if who not in self._identities:
            identity = Identity(who, SigningKey(self._entropy(32)), CurveKey(self._entropy(32)))
            enrol_here(core, identity, now=now, rights=scopes, may_talk_to=[everyone(core.domain)])
            self._identities[who] = identity
        else:
            held = core.trust.principals[who].rights or ()
            core.amend(who, now=now, rights={*held, *scopes_of(scopes)})
        identity = self._identities[who]
        voice = next((v for v in node.voices.values() if v.identity.id == who), None)
        if voice is None:
            key, instance, statement = node.introduce(identity, self._entropy(16))
            chain = core.publish(statement, now=now, link_id=self._entropy(16))
            voice = node.seat(identity, key, instance, statement, chain)
        root = user_root(
            who, identity.key, voice.instance.epoch, scopes, now=now, expires=now + int(expires_in * SECOND),
            link_id=self._entropy(16), targets=[name_id(t, core.domain) for t in targets], depth=depth,
        )  # fmt: skip
        return Session(node, voice, root)


def scopes_of(of: Sequence[str | Scope]) -> set[Scope]:
    """Scopes as a set."""
    return {s if isinstance(s, Scope) else Scope(s) for s in of}


def _identity(of: Identity | str | None) -> Identity:
    if isinstance(of, Identity):
        return of
    name = of or os.environ.get("AGENTBUS_IDENTITY")
    if not name:
        raise ConfigError("config.no_identity", "pass identity=, or set AGENTBUS_IDENTITY to a name enrolled here")
    return Identity.load(name)


async def connect_bus(
    url: BusUrl,
    identity: Identity,
    *,
    listen: str | None,
    advertise: str | None = None,
    folder: Path | None = None,
    transport: Transport | None = None,
    clock: Clock | None = None,
) -> Bus:
    """A bus over ZeroMQ with its log in files: what :meth:`Bus.connect` does once everything is known.

    A node is named after its identity; where a running node has that name, ``-2``, ``-3`` and so on.
    """
    clock = clock or SystemClock()
    base = identity.id.name if identity.id.kind == "agent" else f"{identity.id.kind}-{identity.id.name}"
    async with AsyncExitStack() as undo:
        for attempt in range(1, 65):
            name = base if attempt == 1 else f"{base}-{attempt}"
            log_key = SigningKey(os.urandom(32))
            carrier = transport or zmq_transport(identity.curve, listen=listen, advertise=advertise)
            try:
                log, log_key = open_log(folder or log_folder(name), identity.id.domain, name, clock)
            except AgentBusError as error:
                if error.code != "log.locked" or folder is not None:
                    raise
                continue
            node = Node(
                name,
                transport=carrier,
                source=TrustCache(carrier, endpoint=url.endpoint, key=url.curve_key, root=url.root, clock=clock),
                curve_key=identity.curve.public,
                log=log,
                log_key=log_key.public.raw,
                clock=clock,
            )
            undo.push_async_callback(node.aclose)
            await node.open()
            try:
                bus = Bus(node, await node.enter(identity))
            except DirectoryRefused as error:
                if error.code != "directory.node_taken" or folder is not None:
                    raise
                await undo.aclose()
                continue
            undo.pop_all()
            return bus
    raise ConfigError("config.no_identity", f"64 nodes are called {base}")


def run_agent(agent: Agent[Any], name: str | None = None) -> None:
    """``agent.run()``: everything from the environment and the profile, until SIGTERM."""

    async def main() -> None:
        async with Bus.connect(identity=name or os.environ.get("AGENTBUS_IDENTITY") or agent.name) as bus:
            await bus.run(agent)

    asyncio.run(main())


async def enrol_identity(name: str, token: str, url: str | None = None) -> Identity:
    """``Identity.enrol``: keys made here, registered, and kept in a key file."""
    path = key_path(name)
    if path.exists():
        raise KeyFileError("key.exists", f"{path} exists: {name} is enrolled on this machine already")
    identity = await enrol(find_url(url), name, token)
    identity.save(path)
    return identity


agentbus.identity._late["enrol"] = enrol_identity
agentbus.runtime.agent._late["run"] = run_agent
