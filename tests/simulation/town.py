"""A directory, three agents and a user, each on a node of its own with a clock of its own, in virtual time.

Everything but the network, the clocks and the disk is what runs in production: nodes, engines, services, trust caches,
the directory. The event loop's clock stands still while anything can run, so a minute of it costs no minute, and a seed
is the same run each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Context, Request, Session, StreamRequest
from agentbus.bus.base import Bus
from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.delegation.chain import Authority
from agentbus.directory.core import Directory, OnlineKeys
from agentbus.directory.store import SqliteStore
from agentbus.host import enrol_here
from agentbus.identity import Identity
from agentbus.logstore.memory import MemoryLog
from agentbus.runtime.node import Node
from agentbus.runtime.serving import Service, policy_of
from agentbus.runtime.trust_cache import TrustCache
from agentbus.services.administration import directory_agent
from agentbus.services.directory import DirectoryServer
from agentbus.transport.memory import MemoryTransport
from agentbus.wire.ids import PrincipalId, everyone, name_id
from agentbus.wire.limits import SECOND

from .faults import Faults, FaultyHub

DOMAIN: Final = "sim.test"
START: Final = 1_767_268_800 * SECOND
MAX_AGE: Final = 10 * SECOND
SCOPES: Final = ("docs:read", "docs:write", "pay:send")
NEEDS: Final = {
    "Read": ("docs:read",),
    "Pay": ("pay:send",),
    "Ask": (),
    "Flow": ("docs:read",),
    "Note": ("docs:write",),
}
CEILINGS: Final = {"planner": SCOPES, "reader": ("docs:read", "docs:write"), "payer": ("pay:send",)}
RIGHTS: Final = ("docs:read", "docs:write")


class Got(BaseModel):
    text: str = ""


class Ask(Request[Got]):
    n: int
    scopes: list[str]


class Read(Request[Got]):
    n: int


class Pay(Request[Got]):
    n: int


class Flow(StreamRequest[Got]):
    n: int


class Note(BaseModel):
    n: int


class SkewedClock:
    """The loop's time, and how far this machine's clock is off."""

    def __init__(self, skew: int) -> None:
        self.skew = skew

    def now(self) -> int:
        return START + self.mono() + self.skew

    def mono(self) -> int:
        return int(asyncio.get_running_loop().time() * SECOND)


class SimNode(Node):
    """A node whose disk needs no thread."""

    async def _keep_durable(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self.recorder.log.size:
                self.recorder.log.checkpoint()

    def crash(self) -> None:
        """The process is gone between two instructions: what was not written is lost, and nobody is told."""
        self._closed = self.inbound.closed = self.again.closed = True
        self.recorder._pending.clear()
        for task in list(self._tasks):
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()


class Disk(MemoryLog):
    """A log that outlives the process that wrote it."""

    def close(self) -> None:
        self.checkpoint()


class Town:
    """One run.

    Args:
        seed: Decides everything that could be otherwise.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.faults = Faults(
            random.Random(seed + 1), drop=self.chance.choice([0, 0.02, 0.1]), twice=self.chance.choice([0, 0.1]),
            late=self.chance.choice([0, 0.1, 0.3]),
        )  # fmt: skip
        self.hub = FaultyHub(self.faults)
        self.logs: dict[str, MemoryLog] = {}
        self.keys: dict[str, SigningKey] = {}
        self.clocks: dict[str, SkewedClock] = {}
        self.nodes: dict[str, SimNode] = {}
        self.buses: dict[str, Bus] = {}
        self.handled: Counter[str] = Counter()  # by message id: how often a handler was started for it
        self.revoked: list[tuple[int, str]] = []  # true instant, principal
        self.notes: dict[str, list[bytes]] = {}  # checkpoints that were published
        self.running: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self.within: dict[str, set[asyncio.Task[Any]]] = {"planner": set()}  # what a node's own process waits for
        self.acknowledged: list[str] = []  # message digests of sends whose receipt came
        self._entropy = _entropy(seed)
        self._count = 0

    # ── set up ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """The directory first, then everybody else."""
        make = self._entropy
        clock = self._clock("directory", 0)
        online, root = OnlineKeys.make(make), SigningKey(make(32))
        self.core = Directory.create(SqliteStore(None), online, root, domain=DOMAIN, now=clock.now(), max_age=MAX_AGE)
        self.root, self.directory_key = root.id, online.curve.public
        server = DirectoryServer(self.core, clock, make)
        carrier = MemoryTransport(self.hub, key=online.curve.public)
        node = self._node("directory", carrier, server, online.curve.public, server=server)
        await node.open()
        identity = Identity(name_id("service/directory", DOMAIN), online.identity, online.curve)
        self.service = Service(directory_agent(server), node, await node.enter(identity))
        node.set_rules(policy_of([self.service]))
        await self.service.open()
        self.endpoint = carrier.endpoints[0]
        self.identities = {}
        for name, scopes in CEILINGS.items():
            self._enrol(name, ceiling=scopes)
        self._enrol("user/alice", rights=RIGHTS)
        for name in (*CEILINGS, "user/alice"):
            await self.start(name)

    def _enrol(self, name: str, **record: Any) -> None:
        make = self._entropy
        who = Identity(name_id(name, DOMAIN), SigningKey(make(32)), CurveKey(make(32)))
        self.identities[name] = who
        enrol_here(self.core, who, now=self.clocks["directory"].now(), may_talk_to=[everyone(DOMAIN)], **record)

    def _clock(self, name: str, skew: int) -> SkewedClock:
        self.clocks[name] = SkewedClock(skew)
        return self.clocks[name]

    def _node(self, name: str, carrier: MemoryTransport, source: Any, curve: bytes, **more: Any) -> SimNode:
        log = self.logs.get(name)
        if log is None:
            self.keys[name] = SigningKey(self._entropy(32))
            log = self.logs[name] = Disk(key=self.keys[name], origin=f"agentbus.{DOMAIN}/{_file(name)}/1")
        node = self.nodes[name] = SimNode(
            _file(name), transport=carrier, source=source, curve_key=curve, log=log,
            clock=self.clocks[name], entropy=self._entropy, **more,
        )  # fmt: skip
        return node

    async def start(self, name: str) -> None:
        """A node's process starts, or starts again, and tries until the directory hears it."""
        identity = self.identities[name]
        clock = self.clocks.get(name) or self._clock(name, self.chance.randrange(-8, 9) * SECOND)
        while not any(who == identity.id for _, who in self.revoked):  # the directory would never hear it again
            carrier = MemoryTransport(self.hub, key=identity.curve.public)
            source = TrustCache(carrier, endpoint=self.endpoint, key=self.directory_key, root=self.root, clock=clock)
            node = self._node(name, carrier, source, identity.curve.public)
            try:
                await node.open()
                bus = self.buses[name] = Bus(node, await node.enter(identity))
                break
            except AgentBusError:
                node.crash()
                await source.aclose()
                await carrier.aclose()
                await asyncio.sleep(1.0)
        else:
            return
        agent = getattr(self, f"_{name}", None)
        if agent is not None:
            service = Service(agent(), node, bus._voice)
            bus._services.append(service)
            node.set_rules(policy_of(bus._services))
            await service.open()
        self.running.add(name)

    async def crash(self, name: str) -> None:
        """kill -9, and a new start after a while."""
        node = self.nodes[name]
        self.running.discard(name)
        node.crash()
        for task in self.within.get(name, ()):
            task.cancel()
        await node.transport.aclose()
        await node.source.aclose()
        await asyncio.sleep(self.chance.random() * 3)
        await self.start(name)

    async def aclose(self) -> None:
        """Everybody leaves; then the directory."""
        for name in reversed(list(self.nodes)):
            if name == "directory":
                await self.service.aclose()
            elif name in self.buses:
                await self.buses[name].aclose()
                continue
            await self.nodes[name].aclose()

    # ── agents ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _planner(self) -> Agent[Any]:
        agent = Agent("planner")

        @agent.handler
        async def ask(request: Ask, ctx: Context) -> Got:
            self.handled[ctx.message_id] += 1
            await asyncio.sleep(self.chance.random() * 0.3)
            texts = []
            for to, message in (("reader", Read(n=request.n)), ("payer", Pay(n=request.n))):
                try:
                    texts.append((await ctx.request(to, message, timeout=4, delegate=request.scopes)).text)
                except AgentBusError as error:
                    texts.append(error.code)
            return Got(text=" ".join(texts))

        return agent

    def _reader(self) -> Agent[Any]:
        agent = Agent("reader")

        @agent.handler(scopes=NEEDS["Read"])
        async def read(request: Read, ctx: Context) -> Got:
            self.handled[ctx.message_id] += 1
            return Got(text=f"read {request.n}")

        @agent.handler(scopes=NEEDS["Flow"])
        async def flow(request: Flow, ctx: Context) -> AsyncIterator[Got]:
            self.handled[ctx.message_id] += 1
            for n in range(request.n):
                yield Got(text=str(n))
                await asyncio.sleep(0.05)

        @agent.handler(scopes=NEEDS["Note"])
        async def note(request: Note, ctx: Context) -> None:
            self.handled[ctx.message_id] += 1

        return agent

    def _payer(self) -> Agent[Any]:
        agent = Agent("payer")

        @agent.handler(scopes=NEEDS["Pay"])
        async def pay(request: Pay, ctx: Context) -> Got:
            self.handled[ctx.message_id] += 1
            return Got(text=f"paid {request.n}")

        return agent

    # ── what people do ───────────────────────────────────────────────────────────────────────────────────────────

    def alice(self, scopes: list[str]) -> Session:
        """Alice under a root grant of hers; she may write more into it than she has rights to."""
        return self.buses["user/alice"].as_user(scopes, expires_in=300, depth=3)

    async def work(self) -> None:
        """One thing that somebody asks, with whatever comes of it."""
        self._count += 1
        chance, n = self.chance, self._count
        held = [s for s in SCOPES if chance.random() < 0.8]
        handed = [s for s in held if chance.random() < 0.8]
        verb = chance.choice(["ask", "ask", "read", "pay", "note", "flow"])
        try:
            alice = self.alice(held)
            if verb == "ask":
                await alice.request("planner", Ask(n=n, scopes=handed[:1]), timeout=12, delegate=handed)
            elif verb == "read":
                await alice.request("reader", Read(n=n), timeout=5)
            elif verb == "pay":
                asking = asyncio.create_task(self.buses["planner"].request("payer", Pay(n=n), timeout=5))
                self.within["planner"].add(asking)
                await asyncio.wait([asking])
                self.within["planner"].discard(asking)
                if not asking.cancelled():  # its process died
                    asking.result()
            elif verb == "note":
                ack = chance.choice(["delivered", "handled"])
                receipt = await alice.send("reader", Note(n=n), ack=ack, timeout=5)  # type: ignore[arg-type]
                self.acknowledged.append(receipt.message)
            else:
                async with alice.stream("reader", Flow(n=chance.randrange(6)), timeout=8, idle=4) as items:
                    async for _ in items:
                        if chance.random() < 0.1:
                            break
            self.outcomes["ok"] += 1
        except AgentBusError as error:
            self.outcomes[error.code] += 1

    def revoke(self, name: str) -> None:
        """The operator revokes a principal in the directory, now."""
        now = self.clocks["directory"].now()
        who = PrincipalId(name_id(name, DOMAIN))
        self.core.revoke("principal", who.encode(), revoker=name_id("service/directory", DOMAIN), reason="x", now=now)
        self.revoked.append((now, who))

    def part(self, one: str, other: str) -> None:
        """Two nodes do not hear each other any more."""
        self.faults.apart.add(frozenset((self._key(one), self._key(other))))

    def join(self) -> None:
        """Everybody hears everybody."""
        self.faults.apart.clear()

    def _key(self, name: str) -> bytes:
        return self.directory_key if name == "directory" else self.identities[name].curve.public


def _entropy(seed: int) -> Any:
    count = 0

    def make(length: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed}/{count}".encode()).digest(length)

    return make


def _file(name: str) -> str:
    return name.replace("/", "-")


__all__ = ["Authority", "Town"]
