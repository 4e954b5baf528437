"""A node: one process's socket, log, trust and engine, shared by the instances that live in it.

The pump never waits: what cannot go now is refused or stays in the engine, which knows its bounds. What comes in goes
through :mod:`agentbus.runtime.inbound`; who speaks here lives in :mod:`agentbus.runtime.voices`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Final, Protocol

from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.chain import Authority
from agentbus.delegation.decide import Policy
from agentbus.delegation.memory import Memory
from agentbus.delegation.statements import Instance, directory_id
from agentbus.errors import (
    AgentBusError,
    AgentGone,
    Backpressure,
    DeadlineExceeded,
    LogError,
    Rejected,
    StreamBroken,
)
from agentbus.identity import Identity
from agentbus.log.base import LogStore
from agentbus.protocol.engine import Engine, Ready, ToSign
from agentbus.protocol.events import Answered, Asked, Ended, Event, Steered
from agentbus.protocol.exchange import Exchange
from agentbus.runtime import problems
from agentbus.runtime.admission import Admission
from agentbus.runtime.again import Again
from agentbus.runtime.alarms import Alarm, Alarms
from agentbus.runtime.clock import Clock
from agentbus.runtime.entropy import Pool
from agentbus.runtime.finding import Finder
from agentbus.runtime.gossip import Gossip
from agentbus.runtime.inbound import Inbound
from agentbus.runtime.record import Recorder
from agentbus.runtime.tape import Recording, Tape
from agentbus.runtime.trust_cache import TrustCache, TrustSource
from agentbus.runtime.voices import Place, Voice, Voices
from agentbus.runtime.witnessing import Witnessing
from agentbus.transport.base import Connection, Transport
from agentbus.wire.frame import ENROLMENT, ENVELOPE, STATEMENTS
from agentbus.wire.header import Kind, decode_header
from agentbus.wire.ids import PrincipalId, name_id
from agentbus.wire.limits import LIMITS, SECOND

CODES: Final = {
    "agent.gone": "The agent's process or connection ended before it answered.",
    "deadline.exceeded": "No answer came within the time given.",
    "stream.broken": "The stream lost an item.",
}

logger = logging.getLogger("agentbus.node")
SYNC: Final = 0.1  # seconds between fsyncs of the log while it grows
CHECKPOINT_EVERY: Final = 10  # of them


class Server(Protocol):
    """What answers synchronisation and enrolment frames: only a directory's node has one."""

    def serve(self, connection: Connection, frame: bytes) -> None: ...
    def lost(self, connection: Connection) -> None: ...
    def admits(self, key: bytes) -> bool: ...


class Waiter(Protocol):
    """Who waits for an exchange that this side opened."""

    def answered(self, event: Answered) -> None: ...
    def failed(self, error: AgentBusError) -> None: ...


class Node:
    """One socket, one log, one trust.

    Args:
        name: The node's name, unique in the trust domain.
        transport: Not yet opened.
        source: Where trust comes from, once the transport is open.
        curve_key: The public half of the CURVE key that the transport holds.
        log: The node's log.
        server: What answers synchronisation, on a directory's node.
        purpose: What this node's signatures are for, and the only ones it accepts: BATCH, or REPLAY_BATCH.
    """

    def __init__(
        self,
        name: str,
        *,
        transport: Transport,
        source: TrustSource,
        curve_key: bytes,
        log: LogStore,
        clock: Clock,
        server: Server | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        purpose: Purpose = Purpose.BATCH,
    ) -> None:
        self.name = name
        self.clock = clock
        self.source = source
        self.transport = transport
        self.stopped: Callable[[], Any] = lambda: None
        """Called when this node takes and sends nothing more, because its log failed."""
        self.recorder = Recorder(log)
        self.recorder.on_failure = self._log_failed
        self.server = server
        self._admission = Admission(source, clock, server.admits) if server else Admission(source, clock)
        self._curve_key = curve_key
        self._entropy = entropy
        self._engine = Engine(Pool() if entropy is os.urandom else entropy, purpose=purpose)
        self.finder = Finder(source, clock)
        self.again = Again(self._engine.exchanges, self.finder, transport, ended=self._ended, alive=self._alive)
        self.witnessing = Witnessing(self.recorder, clock.now, self._logs_at)
        self._engine.held_of, self._engine.notes_for = self.witnessing.held_of, self.witnessing.notes_for
        self.inbound = Inbound(
            engine=self._engine, source=source, recorder=self.recorder, clock=clock, deliver=self._deliver,
            repeated=self.again.repeated, wake=self.wake, witness=self.witnessing.received, spawn=self.spawn,
        )  # fmt: skip
        self.voices = Voices(
            Place(name, log.log_key, curve_key, lambda: transport.endpoints), source=source, engine=self._engine,
            recorder=self.recorder, clock=clock, entropy=entropy, before_switch=self._pump, spawn=self.spawn,
        )  # fmt: skip
        self.alarms = Alarms()
        self.gossip: Gossip | None = None
        if isinstance(source, TrustCache):  # who is the directory has nothing to compare
            self.gossip = Gossip(source, clock, spawn=self.spawn, charge=self.inbound.charge)
            self.inbound.named = self.gossip.named
        self._waiters: dict[bytes, Waiter] = {}
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Open the transport and hear the directory."""
        await self.transport.open(self)
        try:
            await self.source.open()
        except BaseException:
            await self.aclose()
            raise
        self.source.changed.append(self._trust_changed)
        self.source.left.append(self.again.left)
        self.source.returned += [
            self.voices.announce,
            lambda: self.again.returned(directory_id(self.source.trust.domain)),
        ]
        self.spawn(self._keep_durable())
        self.spawn(self._keep_current())
        self.recorder.opened(self.clock.now(), node=self.name, domain=self.source.trust.domain, software="agentbus")

    async def aclose(self) -> None:
        """Say goodbye, close everything, leave nothing behind, whatever goes wrong meanwhile. Twice is harmless."""
        if self._closed:
            return
        self._closed = self.inbound.closed = self.again.closed = True
        async with AsyncExitStack() as rest:  # from the last to the first
            rest.callback(self.recorder.log.close)
            rest.callback(self._conclude_log)
            rest.callback(self._give_up)
            rest.push_async_callback(self.transport.aclose)
            rest.push_async_callback(self.source.aclose)
            rest.push_async_callback(self._end_tasks)
            rest.callback(self.voices.leave_all)

    async def _end_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _give_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for waiter in list(self._waiters.values()):
            waiter.failed(AgentGone("agent.gone", "this bus was closed"))
        self._waiters.clear()

    def _conclude_log(self) -> None:
        if self.recorder.log.size and self.recorder.failed is None:
            self.recorder.closed(self.clock.now())
            self.witnessing.save()

    async def _keep_durable(self) -> None:
        """What was written survives a loss of power within a tenth of a second; a checkpoint covers it within one."""
        try:
            await self._sync_and_checkpoint()
        except LogError as error:
            self.recorder.fail(error)

    async def _keep_current(self) -> None:
        """Who speaks here has a key that counts."""
        await self.voices.keep_current()

    def _logs_at(self, curve_key: bytes) -> set[tuple[str, bytes]]:
        """By the word of whose key it is: a statement may name any key that is enrolled."""
        trust = self.source.trust
        who = trust.curve_keys.get(curve_key)
        mine = (one for one in trust.instances.values() if one.curve_key == curve_key and one.principal == who)
        return {(one.node, one.log_key) for one in mine}

    def _log_failed(self, error: LogError) -> None:
        """Nothing can be put on the record: whoever waits hears so at once, and nothing more is taken or sent."""
        logger.critical("%s: the log failed, so this node takes and sends nothing more: %s", self.name, error)
        for waiter in list(self._waiters.values()):
            waiter.failed(LogError(error.code, error.message))
        self._waiters.clear()
        self.stopped()

    async def _sync_and_checkpoint(self) -> None:
        synced = covered = 0
        for turn in count(1):
            await asyncio.sleep(SYNC)
            log = self.recorder.log
            if turn % CHECKPOINT_EVERY == 0 and log.size != covered:
                covered = synced = log.size
                await asyncio.to_thread(log.checkpoint)
            elif log.size != synced:
                synced = log.size
                await asyncio.to_thread(log.sync)
            if self.witnessing.unsaved:
                await asyncio.to_thread(self.witnessing.save)

    async def enter(self, identity: Identity) -> Voice:
        """Start an instance of ``identity`` here; see :meth:`Voices.enter`."""
        return await self.voices.enter(identity)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that this node cancels when it closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def name_id(self, name: str) -> PrincipalId:
        """The full id of a short name, in this node's trust domain."""
        return name_id(name, self.source.trust.domain)

    def ask(
        self,
        kind: Kind,
        voice: Voice,
        to: Instance,
        waiter: Waiter,
        *,
        action: str,
        body: bytes,
        chain: Authority,
        deadline: int,
        handover: Callable[[Instance], bytes] | None = None,
        conversation: bytes | None = None,
        cause: bytes | None = None,
        ack: str = "handled",
    ) -> Exchange:
        """Open an exchange with an instance that :attr:`finder` found; ``waiter`` hears what comes of it.

        Raises:
            DeadlineExceeded: ``deadline.exceeded``. Backpressure, RequestInvalid: as :meth:`Engine.ask`.
            LogError: what the log failed with.
        """
        if self.recorder.failed is not None:
            raise LogError(self.recorder.failed.code, self.recorder.failed.message)
        connection = self.transport.dial(to.endpoints[0], to.curve_key)
        now = self.clock.now()
        if deadline <= now:
            raise DeadlineExceeded("deadline.exceeded", f"{to.principal.short} was not reached in time")
        exchange = self._engine.ask(
            kind, voice.local, to, action=action, body=body, chain=chain, now=now, mono=self.clock.mono(),
            deadline=deadline, trust=self.source.trust, route=connection, handover=handover(to) if handover else b"",
            conversation=conversation, cause=cause, ack=ack,
        )  # fmt: skip
        self._waiters[exchange.digest] = waiter
        self.wake()
        return exchange

    def answer(self, kind: Kind, voice: Voice, exchange: Exchange, **parts: Any) -> bool:
        """Answer, steer or end an exchange; False when it is over."""
        sent = self._engine.answer(kind, voice.local, exchange, now=self.clock.now(), trust=self.source.trust, **parts)
        if sent:
            self.wake()
        return sent

    def forget(self, exchange: Exchange) -> None:
        """Nobody waits for this exchange any more."""
        self._waiters.pop(exchange.digest, None)

    def conclude(self, exchange: Exchange) -> None:
        """Nothing more is said or heard about this exchange, on this side."""
        self._engine.exchanges.end(exchange, "lose")
        self.forget(exchange)

    def tape(self, digest: bytes) -> Tape:
        """What keeps the nondeterministic results of the handler of a message: the record."""
        return Recording(self.recorder, digest, self.clock)

    # ── the pump ─────────────────────────────────────────────────────────────────────────────────────────────────

    def wake(self) -> None:
        """Pump once this loop tick is over, so that what is laid out within it shares one signature."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self._closed:
            return
        for batch in self._engine.take_batches():
            voice = self.voices.get(batch.local.instance_id)
            code = "agent.gone" if voice is None else self.source.trust.refuses(voice.instance, self.clock.now())
            if voice is None or code is not None:
                self._unsigned(batch, code or "agent.gone")
                continue
            self._engine.attach(batch, sign(voice.key, self._engine.purpose, batch.batch.to_sign))
        frames = self._engine.take_frames()
        if frames:
            try:
                self.recorder.sent(frames, self.source.trust, self.clock.now())  # on the record before any leaves
            except LogError as error:
                self.recorder.fail(error)
                for ready in frames:
                    ready.route.drop()  # an answer that cannot be recorded is not given, and nobody waits for it
                return
            for ready in frames:
                if not ready.route.offer(ready.frame):
                    self._undeliverable(ready)
        self._rearm()

    def _unsigned(self, batch: ToSign, code: str) -> None:
        """Who was revoked, suspended or has left signs nothing any more: nobody would accept it."""
        text = f"{batch.local.principal.short} itself counts no more: it signs nothing"
        expired = code == "reject.key_expired"
        if expired:
            text = f"{batch.local.principal.short} takes a new key: this machine slept or its clock was set; ask again"
            self.voices.renew_due()
        for draft in batch.batch.drafts:
            header = decode_header(draft.header, LIMITS)
            if header.kind == Kind.CANCEL and header.in_reply_to is not None:  # given up, and nobody is told
                self.recorder.unanswered(header.in_reply_to, code, self.clock.now())
            exchange = self._engine.exchanges.asked_by(draft.digest)
            if exchange is not None:
                self._engine.exchanges.end(exchange, "lose")
            waiter = self._waiters.pop(draft.digest, None)
            if waiter is not None:
                waiter.failed(Rejected(code, text, retryable=expired))

    def _undeliverable(self, ready: Ready) -> None:
        """The connection is full, or has just broken: over another one it may still go."""
        digest = ready.draft.digest
        exchange = self._engine.exchanges.asked_by(digest)
        if exchange is not None and self.again.send(exchange, but=ready.route):
            return
        self.recorder.unsent(digest, "the connection takes no more", self.clock.now())
        if exchange is not None:
            self._engine.exchanges.end(exchange, "lose")
        waiter = self._waiters.pop(digest, None)
        if waiter is not None:
            waiter.failed(Backpressure("backpressure.peer", "the peer takes no more now; slow down, or try later"))

    def alarm(self, due: int, call: Callable[[], Any]) -> Alarm:
        """Call ``call`` once the monotonic clock shows ``due``, whatever becomes of the exchange it is about."""
        alarm = self.alarms.add(due, call)
        self._rearm()
        return alarm

    def _rearm(self) -> None:
        soonest = (self._engine.exchanges.next_deadline(), self.alarms.next())
        due = min((instant for instant in soonest if instant is not None), default=None)
        if due is None or self._closed or (self._timer is not None and due >= self._due):
            return  # a timer that rings too early costs one look; to move it costs every message
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        wait = min(3600.0, max(0.0, (due - self.clock.mono()) / SECOND + 0.001))
        self._timer = asyncio.get_running_loop().call_later(wait, self.tick)

    def tick(self) -> None:
        """Expire what is due now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        mono = self.clock.mono()
        for event in self._engine.tick(mono):
            self._ended(event)
        self.alarms.ring(mono)
        self._rearm()

    # ── the transport's sink ─────────────────────────────────────────────────────────────────────────────────────

    def received(self, connection: Connection, frame: bytes) -> None:
        """Where each kind of frame belongs."""
        if self.recorder.failed is not None:
            connection.drop()  # what cannot be recorded is not judged; whoever asks hears at once that nobody is here
            return
        tag = frame[0] if frame else 0
        if tag == ENVELOPE:
            self.inbound.received(connection, frame)
        elif tag == STATEMENTS and self.source.owns(connection):
            self.source.received(frame)
        elif tag in (STATEMENTS, ENROLMENT) and self.server is not None and not connection.dialled:
            self.inbound.received(connection, frame, self.server.serve)
        elif tag == STATEMENTS and self.gossip is not None:
            self.inbound.received(connection, frame, self.gossip.received)
        else:
            self.inbound.charge(connection)

    def lost(self, connection: Connection, reason: str) -> None:
        """A connection is gone."""
        self.inbound.lost(connection)
        if self.gossip is not None:
            self.gossip.lost(connection)
        if self.source.owns(connection):
            self.source.cut(reason)
        if self.server is not None:
            self.server.lost(connection)
        self.again.lost(connection)

    async def admit(self, key: bytes) -> bool:
        """Whether a CURVE key may connect."""
        return await self._admission.admit(key)

    def _alive(self, exchange: Exchange) -> None:
        """Whoever asked again hears that its handler still runs."""
        voice = self.voices.get(exchange.party.mine)
        if voice is not None:
            self.answer(Kind.PROGRESS, voice, exchange, action="progress", body=b"")

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _deliver(self, event: Event) -> None:
        if isinstance(event, Answered):
            message = event.message
            if message.header.kind == Kind.ERROR:
                code = problems.code_of(message.body)
                self.recorder.failed_by(message.digest, of=event.exchange.digest, code=code, now=self.clock.now())
            waiter = self._waiters.get(event.exchange.digest)
            if waiter is not None:
                if event.final:
                    self.forget(event.exchange)
                waiter.answered(event)
        elif isinstance(event, Asked):
            voice = self.voices.get(event.exchange.party.mine)
            if voice is not None and voice.handlers is not None:
                voice.handlers.start(event)
                self._rearm()  # its deadline counts here too, whether or not anything is sent until then
        elif isinstance(event, Steered):
            voice = self.voices.get(event.exchange.party.mine)
            if voice is not None and voice.handlers is not None:
                voice.handlers.steered(event)
        elif isinstance(event, Ended):
            self._ended(event)
            self.wake()  # who sent it may have to be told

    def _ended(self, event: Ended) -> None:
        exchange = event.exchange
        if exchange.role == "callee":
            voice = self.voices.get(exchange.party.mine)
            if voice is not None and voice.handlers is not None:
                voice.handlers.ended(event)
            return
        code = {"expired": "deadline.exceeded", "gap": "stream.broken"}.get(event.reason, "agent.gone")
        self.recorder.unanswered(exchange.digest, code, self.clock.now())
        waiter = self._waiters.pop(exchange.digest, None)
        if waiter is None:
            return
        who = PrincipalId(exchange.party.principal).short
        if event.reason == "expired":
            waiter.failed(DeadlineExceeded("deadline.exceeded", f"{who} did not answer in time"))
        elif event.reason == "gap":
            waiter.failed(StreamBroken("stream.broken", f"an item of {who}'s stream was lost; ask again"))
        else:
            waiter.failed(AgentGone("agent.gone", f"{who} died or was cut off before it answered"))

    # ── what the directory changes ───────────────────────────────────────────────────────────────────────────────

    def _trust_changed(self) -> None:
        """Who counts no more is waited for no more, and a handler whose chain broke is stopped."""
        trust = self.source.trust
        self.voices.trust_changed()
        for exchange in self._engine.exchanges.asked:
            party = exchange.party
            record = trust.principal(party.principal)
            gone = record is None or record.state != "active" or trust.is_revoked("instance", party.handle)
            waiter = self._waiters.get(exchange.digest)
            if gone and waiter is not None and self._engine.exchanges.end(exchange, "lose"):
                self.recorder.unanswered(exchange.digest, "reject.revoked", self.clock.now())
                self.forget(exchange)
                who = PrincipalId(party.principal).short
                waiter.failed(Rejected("reject.revoked", f"{who} was revoked or suspended while it was asked"))
        for voice in self.voices:
            if voice.handlers is not None:
                voice.handlers.recheck()

    @property
    def memory(self) -> Memory:
        """What was judged good here."""
        return self._engine.memory

    @property
    def policy(self) -> Policy:
        """The local policy that requests are judged by."""
        return self.inbound.policy

    def set_rules(self, policy: Policy) -> None:
        """Replace the local policy."""
        self.inbound.policy = policy
