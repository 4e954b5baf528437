"""A whole trust domain in one process: for tests and first steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Self

from agentbus.bus.base import Bus
from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.delegation.scope import Scope
from agentbus.delegation.scope import scopes as encodable
from agentbus.directory.core import Directory, OnlineKeys
from agentbus.directory.store import SqliteStore
from agentbus.host import enrol_here
from agentbus.identity import Identity
from agentbus.log.base import LogStore
from agentbus.logstore.memory import MemoryLog
from agentbus.runtime.agent import Agent
from agentbus.runtime.caller import Session
from agentbus.runtime.clock import Clock, SystemClock
from agentbus.runtime.exchange import IssuerRule
from agentbus.runtime.links import lifetime, user_root
from agentbus.runtime.node import Node
from agentbus.runtime.serving import Service, policy_of
from agentbus.runtime.trust_cache import TrustSource
from agentbus.runtime.voices import Voice
from agentbus.services.administration import directory_agent
from agentbus.services.directory import DirectoryServer
from agentbus.services.discovery import Claims, add_discovery
from agentbus.services.exchange import add_exchange, issuer_of
from agentbus.services.once import Once
from agentbus.transport.memory import MemoryHub, MemoryTransport
from agentbus.wire.ids import PrincipalId, everyone, name_id


class LocalBus(Bus):
    """A bus whose whole trust domain lives in this process. It is ``agent/local`` itself."""

    _core: Directory
    _entropy: Callable[[int], bytes]
    _identities: dict[PrincipalId, Identity]
    _given: set[str]  # the names of all scopes that users of this bus were given

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
        keys, root = OnlineKeys.make(entropy), SigningKey(entropy(32))
        log = log or MemoryLog(key=SigningKey(entropy(32)), origin=f"agentbus.{domain}/local/1")
        core = Directory.create(SqliteStore(None), keys, root, domain=domain, now=clock.now())
        server = DirectoryServer(core, clock, entropy)
        curve = CurveKey(entropy(32))
        node = Node(
            "local",
            transport=MemoryTransport(MemoryHub(), key=curve.public),
            source=cls._view(server),
            curve_key=curve.public,
            log=log,
            clock=clock,
            entropy=entropy,
        )
        me = Identity(name_id("local", domain), SigningKey(entropy(32)), curve)
        enrol_here(core, me, now=clock.now(), may_talk_to=[everyone(domain)])
        await node.open()
        own = Identity(name_id("service/directory", domain), keys.identity, keys.curve)
        bus = cls(node, await node.enter(me))
        bus._core, bus._entropy, bus._identities, bus._given = core, entropy, {}, set()
        directory = directory_agent(server)
        add_discovery(directory, core, Claims(None), clock.now)
        add_exchange(directory, core, Once(None), clock.now, entropy)
        service = Service(directory, node, await node.enter(own))
        bus._services.append(service)
        node.set_rules(policy_of(bus._services))
        await service.open()
        return bus

    @staticmethod
    def _view(server: DirectoryServer) -> TrustSource:
        """What the node is told of the directory in its own process: all of it, at once."""
        return server

    async def _seat(self, agent: Agent[Any], who: PrincipalId) -> Voice:
        """A local agent is enrolled as it is first served.

        Its ceiling is all that the handlers here declare and that users here were given: what a handler only asks
        of ``ctx.require`` is declared nowhere else.
        """
        declared = {s for service in self._services for h in service.agent.handlers.values() for s in h.rule.scopes}
        declared |= {s for h in agent.handlers.values() for s in h.rule.scopes}
        declared |= {str(s) for v in self._node.voices for s in self._record(v.identity.id).ceiling} | self._given
        now = self._node.clock.now()
        if self._core.trust.principal(who) is None:
            identity = Identity(who, SigningKey(self._entropy(32)), CurveKey(self._entropy(32)))
            enrol_here(self._core, identity, now=now, ceiling=declared, may_talk_to=[everyone(self._core.domain)])
            self._identities[who] = identity
        for voice in self._node.voices:
            mine = self._record(voice.identity.id)
            if mine.id.kind == "agent" and {str(s) for s in mine.ceiling} != declared:
                self._core.amend(mine.id, now=now, ceiling=declared)
                await self._node.voices.renew(voice)
        return await self._node.enter(self._identities[who])

    def _rotated(self, identity: Identity) -> None:
        self._identities[identity.id] = identity

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
            scopes: Her rights, and what the grant gives. Agents of this bus may use them for her.
            targets: Whom it may be used with; everyone by default.
            expires_in: Seconds.
            depth: How many links may follow.

        Returns:
            A session under that grant.

        Raises:
            Malformed: ``malformed.scope``, ``malformed.id``. ProgrammingError: ``usage.scope``, ``usage.expires``.
        """
        core, node, rights = self._core, self._node, encodable(scopes)
        who = name_id(name if "/" in name else f"user/{name}", core.domain)
        now = node.clock.now()
        if who not in self._identities:
            identity = Identity(who, SigningKey(self._entropy(32)), CurveKey(self._entropy(32)))
            enrol_here(core, identity, now=now, rights=rights, may_talk_to=[everyone(core.domain)])
            self._identities[who] = identity
        else:
            held = core.trust.principals[who].rights or ()
            core.amend(who, now=now, rights={*held, *rights})
        self._allow({right.name for right in rights}, now)
        identity = self._identities[who]
        voice = next((v for v in node.voices if v.identity.id == who), None)
        if voice is None:
            key, instance, statement = node.voices.introduce(identity, self._entropy(16))
            chain = core.presence.publish(statement, now=now, link_id=self._entropy(16))
            voice = node.voices.seat(identity, key, instance, statement, chain)
        root = user_root(
            who, identity.key, voice.instance.epoch, rights, now=now, expires=now + lifetime(expires_in),
            link_id=self._entropy(16), targets=[name_id(t, core.domain) for t in targets], depth=depth,
        )  # fmt: skip
        return Session(node, voice, root)

    def _allow(self, names: set[str], now: int) -> None:
        """Let the ceilings of the agents that are served hold what a user was given for the first time."""
        fresh = names - self._given
        self._given |= fresh
        for voice in self._node.voices:
            ceiling = {str(s) for s in self._record(voice.identity.id).ceiling}
            if voice.identity.id.kind == "agent" and fresh - ceiling:
                self._core.amend(voice.identity.id, now=now, ceiling=ceiling | fresh)
                self._node.voices.renew_soon(voice)

    def trust_issuer(self, rule: IssuerRule | dict[str, Any]) -> None:
        """Let tokens of an outside issuer count in this domain, as `agentbus token issuer add` does elsewhere.

        Args:
            rule: ``{"issuer": …, "audience": …, "jwks": {…}, "clients": [("web", "app")], "scopes": […]}``.

        Raises:
            pydantic.ValidationError: The rule lacks a field or has one too many.
            DirectoryRefused: ``directory.issuer``: a field's value cannot be used.
        """
        made = issuer_of(IssuerRule.model_validate(rule), self._core.domain)
        self._core.write(self._node.clock.now(), [("issuer", made.issuer, made.encode())])
