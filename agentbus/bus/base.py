"""The public Bus: connect to a trust domain, serve agents, speak for oneself or for a user."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from agentbus.connect import find_url
from agentbus.delegation.chain import Authority
from agentbus.delegation.scope import Fact, Scope
from agentbus.errors import Denied, LogError, ProgrammingError
from agentbus.holdings import Holdings
from agentbus.identity import Identity
from agentbus.runtime.agent import Agent
from agentbus.runtime.caller import Caller, Session
from agentbus.runtime.describing import describe
from agentbus.runtime.exchange import exchange
from agentbus.runtime.grants import Explanation, GrantState, explain_request, state_of
from agentbus.runtime.links import conversation_id, grant_to, lifetime, user_root
from agentbus.runtime.node import Node
from agentbus.runtime.renewal import rotate
from agentbus.runtime.serving import Service, policy_of
from agentbus.runtime.voices import Voice
from agentbus.wire.ids import PrincipalId

if TYPE_CHECKING:
    from agentbus.bus.local import LocalBus

CODES: Final = {
    "denied.not_holder": "An authority is bound to its holder; this bus speaks for somebody else.",
    "usage.not_served": "Only who speaks over this bus can be rotated over it.",
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

    if not TYPE_CHECKING:  # a type checker says so by itself

        def __getattr__(self, name: str) -> Any:
            todo = "`async with Bus.connect() as bus`, or `bus = await Bus.connect()`"
            raise AttributeError(f"a bus is opened before it is used (bus.{name}): {todo}", name=name, obj=self)

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

    def __init__(self, node: Node, voice: Voice, holdings: Holdings | None = None) -> None:
        self._node, self._voice = node, voice
        self._holdings = holdings or Holdings()
        self._exchanged = Holdings()  # in memory alone: a user comes back with a fresh token
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
                A name without a key file is enrolled first where ``AGENTBUS_ENROLMENT_TOKEN_FILE`` names its token.
            listen: Where to bind (``tcp://0.0.0.0:7500``); else ``AGENTBUS_LISTEN``; by default a free loopback port.
                An empty text: this node only dials out.
            advertise: What others dial instead, where that differs; else ``AGENTBUS_ADVERTISE``.

        Returns:
            The bus to come: ``async with`` it, or ``await`` it and ``aclose`` it. What is raised is raised there.

        Raises:
            ConfigError: No bus is known, its URL has no pin, or an address cannot be used.
            KeyFileError: The identity was not enrolled here, or its key file cannot be used.
            Unavailable: The directory cannot be reached.
            Rejected: It is not the directory that is pinned.
        """

        async def start() -> Bus:
            from agentbus.bus.opening import connect_bus, speaking_as

            where = find_url(url)
            who = await speaking_as(identity, where)
            bind = listen if listen is not None else os.environ.get("AGENTBUS_LISTEN", "tcp://127.0.0.1:*")
            known_as = advertise or os.environ.get("AGENTBUS_ADVERTISE")
            return await connect_bus(where, who, listen=bind or None, advertise=known_as)

        return Opening(start)

    @classmethod
    def local(cls, *, domain: str = "local.test") -> Opening[LocalBus]:
        """A whole trust domain in this process: directory, transport and log in memory; for tests and first steps.

        An agent's ceiling holds all that the handlers served here declare and that users here were given, and everybody
        may ask everybody.

        Args:
            domain: The trust domain's name, as it stands in every id.

        Returns:
            The bus to come: ``async with`` it, or ``await`` it and ``aclose`` it.
        """
        from agentbus.bus.local import LocalBus

        return Opening(lambda: LocalBus._start(domain))

    @property
    def id(self) -> PrincipalId:
        """Whom this bus speaks for."""
        return self._voice.identity.id

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where others dial this node; empty when it only dials out, so that nobody can ask it anything."""
        return self._node.transport.endpoints

    @property
    def authority(self) -> Authority:
        """The standing grant of this bus's own identity."""
        return self._voice.standing

    def serve(self, *agents: Agent[Any]) -> AbstractAsyncContextManager[None]:
        """Serve agents inside the block, each under the identity of its name: there they are registered and reachable.

        Args:
            agents: One or more; on a local bus they are enrolled as they are first served.

        Returns:
            The block: ``async with bus.serve(planner):``. What is raised is raised where it is entered.

        Raises:
            KeyFileError: there is no key file for an agent's name.
            ProgrammingError: ``usage.served_twice``.
        """
        return self._serve(agents)

    @asynccontextmanager
    async def _serve(self, agents: Sequence[Agent[Any]], drain: float = 0.0) -> AsyncIterator[None]:
        async with AsyncExitStack() as started:
            for agent in agents:
                started.push_async_callback(self._stop_service, await self._start_service(agent), drain)
            yield

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
            if service in self._services:  # not so where the bus was closed first
                self._services.remove(service)
            self._node.set_rules(policy_of(self._services))
            if service.voice is not self._voice:
                self._node.voices.leave(service.voice)

    async def _seat(self, agent: Agent[Any], who: PrincipalId) -> Voice:
        if who == self._voice.identity.id:
            return self._voice
        return await self._node.enter(await asyncio.to_thread(Identity.load, agent.name))  # a passphrase takes its time

    async def _describe(self, service: Service) -> None:
        """Tell the directory what this agent answers: its own claim, for discovery."""
        speaker = Session(self._node, service.voice, service.voice.standing)
        with suppress(
            Denied
        ):  # an agent that may not talk to the directory is not discoverable, and serves all the same
            await speaker.request("service/directory", describe(service.agent))

    async def run(self, *agents: Agent[Any], ready: Callable[[], Any] | None = None) -> None:
        """Serve agents until SIGTERM or SIGINT, then drain.

        Args:
            agents: One or more.
            ready: Called once they can be asked.

        Raises:
            KeyFileError: There is no key file for an agent's name.
            LogError: the node's log failed, and it takes nothing more; whoever starts it again finds out what is there.
        """
        stop = asyncio.Event()
        self._node.stopped = stop.set
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            async with self._serve(agents, drain=10.0):
                if ready is not None:
                    ready()
                await stop.wait()
            if (failed := self._node.recorder.failed) is not None:
                raise LogError(failed.code, failed.message)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def acting(self, authority: Authority) -> Session:
        """Speak under ``authority``: one task, one authority.

        Args:
            authority: One whose holder is this bus's identity, or an agent that is served here.

        Returns:
            A caller whose requests carry this chain, in a conversation of their own.

        Raises:
            Denied: ``denied.not_holder``.
        """
        for voice in self._node.voices:
            if voice.identity.id == authority.holder:
                return Session(self._node, voice, authority)
        raise Denied("denied.not_holder", f"held by {authority.holder.short}; this bus speaks for {self.id.short}")

    def as_user(
        self, scopes: Sequence[str | Scope], *, targets: Sequence[str] = (), expires_in: float = 600, depth: int = 4
    ) -> Session:
        """A user's bus speaking under a root grant that its own identity key signs now.

        Args:
            scopes: What it is for.
            targets: Whom it may ask; none given: everyone of the trust domain.
            expires_in: Seconds.
            depth: How many links may follow.

        Returns:
            A session under that grant.

        Raises:
            Denied: ``denied.not_holder``: this bus is no user's.
            ProgrammingError: ``usage.expires``, ``usage.grant``.
        """
        voice, node = self._user(), self._node
        now = node.clock.now()
        root = user_root(
            self.id, voice.identity.key, voice.instance.epoch, scopes, now=now, expires=now + lifetime(expires_in),
            link_id=node._entropy(16), targets=[node.name_id(t) for t in targets], depth=depth,
        )  # fmt: skip
        return Session(node, voice, root)

    async def grant(
        self,
        to: str,
        scopes: Sequence[str | Scope],
        *,
        targets: Sequence[str] = (),
        expires_in: float = 600,
        depth: int = 1,
        purpose: str = "",
        conversation: str | None = None,
        pin: bool = False,
    ) -> Authority:
        """A user's root grant to an agent, signed by her identity key and kept here; it outlives this bus.

        Args:
            to: Who may act for her.
            scopes: What for.
            targets: Whom it may be used with; everyone by default.
            expires_in: Seconds, at most a year.
            depth: How many links may follow.
            purpose: A code of at most 64 characters that stands in it.
            conversation: The only conversation it counts in (:attr:`Session.conversation`).
            pin: Bind it to the identity key that ``to`` has now.

        Raises:
            Denied: ``denied.not_holder``: this bus is no user's. AgentNotFound: ``agent.not_found``.
            ProgrammingError: ``usage.expires``, ``usage.grant``.
        """
        node = self._node
        made = grant_to(
            self._user(), node.name_id(to), scopes, trust=node.source.trust, now=node.clock.now(), pin=pin,
            expires=node.clock.now() + lifetime(expires_in), link_id=node._entropy(16), depth=depth, purpose=purpose,
            targets=[node.name_id(t) for t in targets],
            conversation=conversation_id(conversation),
        )  # fmt: skip
        self._holdings.add(made)
        return made

    def _user(self) -> Voice:
        if self._voice.identity.id.kind != "user":
            raise Denied("denied.not_holder", f"{self.id.short} is no user; only users sign root grants")
        return self._voice

    def keep(self, authority: Authority) -> None:
        """Keep an authority that somebody sent, where :meth:`grants` finds it.

        Args:
            authority: Its form was checked; :meth:`state` and whoever is asked judge whether it holds.

        Raises:
            OSError: Its file cannot be written.
        """
        self._holdings.add(authority)

    async def grants(self, *, user: str) -> list[Authority]:
        """The authorities of ``user`` that are held here and hold now, of any root kind but standing.

        Args:
            user: ``alice`` or a full id.

        Raises:
            Unavailable: ``unavailable.directory_stale``.
        """
        who = self._node.name_id(user if "/" in user else f"user/{user}")
        mine = {voice.identity.id for voice in self._node.voices}
        kept = {a.id: a for holdings in (self._holdings, self._exchanged) for a in holdings.all()}.values()
        found = [a for a in kept if a.user == who and a.holder in mine and a.root_kind != "standing"]
        return [authority for authority in found if await self.state(authority)]

    async def exchange(
        self,
        subject_token: str,
        *,
        scopes: Sequence[str | Scope],
        targets: Sequence[str] = (),
        expires_in: float = 600,
        depth: int = 1,
        consent: str | None = None,
    ) -> Authority:
        """An authority for the user whom an outside issuer's token names (RFC 8693); it is kept until it ends.

        Args:
            subject_token: A JWT of an issuer that the operator configured, made for a client that this bus may be.
                It is good once.
            scopes: Of these, those that the issuer's rule, the token, the user's rights and this agent's ceiling all
                allow are granted.
            targets: Whom it may be used with; everyone by default.
            expires_in: Seconds; without consent no longer than the token.
            depth: How many links may follow.
            consent: The text to which the user agreed. A digest of it, and who says so, goes on the directory's record.

        Raises:
            Rejected: ``reject.token_*``. Denied: ``denied.exchange_*``. RequestInvalid, Malformed, Unavailable.
        """
        made = await exchange(self, subject_token, scopes, targets, expires_in, depth, consent)
        self._exchanged.forget_ended(self._node.clock.now())
        self._exchanged.add(made)
        return made

    async def state(self, authority: Authority) -> GrantState:
        """Whether an authority holds now, and if not, why: by all that this node knows of the directory.

        Args:
            authority: Anybody's; nothing is asked of its holder.

        Returns:
            ``valid``, or what is wrong with it.

        Raises:
            Unavailable: ``unavailable.directory_stale``.
        """
        return await state_of(authority, self._node)

    async def explain(
        self,
        to: str,
        action: str,
        *,
        authority: Authority | None = None,
        facts: Mapping[str, Mapping[str, Fact]] | None = None,
    ) -> Explanation:
        """Why asking ``to`` for ``action`` would be permitted or refused, check by check; nothing is sent to it.

        Args:
            to: Who would be asked: a short name or full id.
            action: The message type.
            authority: The chain it would be asked under; this bus's own by default.
            facts: Scopes, with facts, that the handler asks of ``ctx.require``: ``{"pay:send": {"amount": 5}}``.

        Returns:
            Every check in its order, with what it found and what would change it.

        Raises:
            DirectoryRefused: ``directory.unknown``.
        """
        return await explain_request(self, authority or self.authority, to, action, facts=facts or {})

    async def rotate(self, name: str | None = None, *, overlap: float = 3600.0) -> None:
        """Let a new identity key follow the one that speaks here; nothing that is under way notices.

        The old key goes on to verify for ``overlap`` seconds. Other processes that run from the same key file take the
        new key by themselves.

        Args:
            name: An agent that is served here; this bus's own identity by default.
            overlap: Seconds, at most seven days.

        Raises:
            ProgrammingError: ``usage.not_served``, ``usage.overlap``.
            DirectoryRefused: ``directory.rotation``. KeyFileError: the new key cannot be written.
        """
        who, node = self._node.name_id(name) if name else self.id, self._node
        voice = next((v for v in node.voices if v.identity.id == who), None)
        if voice is None:
            raise ProgrammingError("usage.not_served", f"{who.short} does not speak over this bus")
        seed = node._entropy(32)
        voice.identity = await rotate(voice.identity, node.source, overlap=overlap, now=node.clock.now(), seed=seed)
        self._rotated(voice.identity)
        await node.voices.renew(voice)

    def _rotated(self, identity: Identity) -> None:
        """An identity that speaks here has another key."""

    async def aclose(self) -> None:
        """Stop serving, close the connection, leave nothing behind. Twice is harmless."""
        async with AsyncExitStack() as rest:  # from the last to the first, whatever goes wrong meanwhile
            rest.push_async_callback(self._node.aclose)
            rest.callback(self._services.clear)
            for service in self._services:
                rest.push_async_callback(service.aclose)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
