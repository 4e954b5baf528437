"""A node: one process's socket, log, trust and engine, shared by the instances that live in it.

The pump never waits: what cannot go now is refused or stays in the engine, which knows its bounds.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Protocol

from agentbus.crypto.keys import SigningKey, thumbprint
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.chain import Authority
from agentbus.delegation.decide import Policy
from agentbus.delegation.statements import Instance
from agentbus.delegation.trust import USABLE, NeedsTrust
from agentbus.errors import (
    AgentBusError,
    AgentGone,
    AgentNotFound,
    Backpressure,
    DeadlineExceeded,
    Rejected,
    StreamBroken,
)
from agentbus.identity import Identity
from agentbus.log.base import LogStore
from agentbus.protocol.engine import Engine, Local, ToSign
from agentbus.protocol.events import Answered, Asked, Ended, Event, Refused, Steered
from agentbus.protocol.exchange import Exchange
from agentbus.runtime import problems
from agentbus.runtime.clock import Clock
from agentbus.runtime.record import Recorder
from agentbus.runtime.trust_cache import TrustSource
from agentbus.transport.base import Connection, Transport
from agentbus.wire.frame import ENROLMENT, ENVELOPE, STATEMENTS, Envelope, decode_frame
from agentbus.wire.header import Kind
from agentbus.wire.ids import PrincipalId, name_id
from agentbus.wire.limits import LIMITS, SECOND

CODES: Final = {
    "agent.not_found": "Nobody of this name is enrolled in the trust domain.",
    "agent.not_running": "The agent is enrolled and no instance of it runs now.",
    "agent.dials_out_only": "The agent's node does not listen, so it can ask and cannot be asked.",
    "agent.gone": "The agent's process or connection ended before it answered.",
    "backpressure.peer": "The peer takes no more for now: its queue is full. Nothing was sent.",
    "deadline.exceeded": "No answer came within the time given.",
    "stream.broken": "The stream lost an item.",
}

INSTANCE_LIFE: Final = 3600 * SECOND
SYNC: Final = 0.1  # seconds between fsyncs of the log while it grows
CHECKPOINT_EVERY: Final = 10  # of them
LOOK_UPS: Final = 2  # the sender's statement first, then those of its chain's issuers
LOOK_UP_RATE: Final = 20  # a second, for each connection: beyond it a message of an unknown sender is not looked up
HELD: Final = 1024  # frames of one connection that may wait for a look-up
LATE: Final = 0.1  # what an honest peer's late answer costs, of the bucket's
FORGERIES: Final = frozenset({"reject.body", "reject.chain_digest", "reject.handover_digest"})  # never an accident
BAD_FRAMES: Final = 64  # unverifiable frames of one connection before it is dropped; one a second is forgiven


class Server(Protocol):
    """What answers synchronisation and enrolment frames: only a directory's node has one."""

    def serve(self, connection: Connection, frame: bytes) -> None: ...
    def lost(self, connection: Connection) -> None: ...
    def admits(self, key: bytes) -> bool: ...


class Waiter(Protocol):
    """Who waits for an exchange that this side opened."""

    def answered(self, event: Answered) -> None: ...
    def failed(self, error: AgentBusError) -> None: ...


class Handlers(Protocol):
    """What handles the messages of one voice."""

    def start(self, asked: Asked) -> None: ...
    def steered(self, event: Steered) -> None: ...
    def ended(self, event: Ended) -> None: ...
    def recheck(self) -> None: ...


@dataclass
class Voice:
    """One principal's instance in this node: who speaks."""

    identity: Identity
    key: SigningKey
    local: Local
    instance: Instance
    statement: bytes  # the same, as it was signed
    handlers: Handlers | None = None
    renewal: asyncio.TimerHandle | None = None

    @property
    def standing(self) -> Authority:
        """The standing grant the directory answered this instance with."""
        assert self.local.standing is not None
        return self.local.standing


@dataclass
class _Peer:
    """What is kept of one connection: frames that wait for a look-up, and how often it misbehaved."""

    held: deque[bytes] = field(default_factory=deque)
    looking: bool = False
    bad: float = 0.0
    bad_at: int = 0
    second: int = 0
    looked: int = 0

    def may_look(self, now: int) -> bool:
        """Count a look-up on behalf of this connection; False when it has had all of this second's."""
        if now // SECOND != self.second:
            self.second, self.looked = now // SECOND, 0
        self.looked += 1
        return self.looked <= LOOK_UP_RATE


class Node:
    """One socket, one log, one trust.

    Args:
        name: The node's name, unique in the trust domain.
        transport: Not yet opened.
        source: Makes the trust source once the transport is open.
        owner: The identity whose CURVE key the transport holds.
        log: The node's log.
        log_key: Raw public key of the log.
        rules: What the served handlers require; replaced as a whole.
    """

    def __init__(
        self,
        name: str,
        *,
        transport: Transport,
        source: TrustSource,
        curve_key: bytes,
        log: LogStore,
        log_key: bytes,
        clock: Clock,
        server: Server | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.name = name
        self.clock = clock
        self.source = source
        self.transport = transport
        self.policy = Policy("0")
        self.recorder = Recorder(log)
        self.server = server
        self._curve_key, self._log_key = curve_key, log_key
        self._entropy = entropy
        self._engine = Engine(entropy)
        self._voices: dict[bytes, Voice] = {}
        self._waiters: dict[bytes, Waiter] = {}
        self._peers: dict[int, _Peer] = {}
        self._suspects: dict[bytes, int] = {}  # instance id → monotonic instant until which others are preferred
        self._turn = 0
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._due: int | None = None
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
        self.source.returned.append(self._directory_returned)
        self.spawn(self._keep_durable())
        self.recorder.opened(self.clock.now(), node=self.name, domain=self.source.trust.domain, software="agentbus")

    async def aclose(self) -> None:
        """Say goodbye, close everything, leave nothing behind. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self.source.leave([voice.local.instance_id for voice in self._voices.values()])
        for voice in list(self._voices.values()):
            self._drop_voice(voice)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.source.aclose()
        await self.transport.aclose()
        if self._timer is not None:
            self._timer.cancel()
        for waiter in list(self._waiters.values()):
            waiter.failed(AgentGone("agent.gone", "this bus was closed"))
        self._waiters.clear()
        if self.recorder.log.size:
            self.recorder.closed(self.clock.now())
        self.recorder.log.close()

    async def _keep_durable(self) -> None:
        """What was written survives a loss of power within a tenth of a second; a checkpoint covers it within one."""
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

    async def enter(self, identity: Identity) -> Voice:
        """Start an instance of ``identity`` here: make its key, publish its statement, take its standing grant."""
        key, instance, statement = self.introduce(identity, self._entropy(16))
        return self.seat(identity, key, instance, statement, await self.source.publish(statement))

    def seat(self, identity: Identity, key: SigningKey, instance: Instance, statement: bytes, chain: bytes) -> Voice:
        """Let an instance speak whose statement the directory answered with ``chain``."""
        standing = Authority.from_bytes(chain)
        local = Local(identity.id, instance.epoch, instance.instance_id, key.id, standing)
        voice = Voice(identity, key, local, instance, statement)
        self._voices[instance.instance_id] = voice
        self.recorder.log.put_blob(statement)  # it names the log's key: without it nobody could verify a checkpoint
        self._engine.add_local(local)
        self._schedule_renewal(voice)
        return voice

    def leave(self, voice: Voice) -> None:
        """End an instance: the directory and its peers hear of it."""
        if self._voices.get(voice.local.instance_id) is voice:
            self.source.leave([voice.local.instance_id])
            self._drop_voice(voice)

    def _drop_voice(self, voice: Voice) -> None:
        self._voices.pop(voice.local.instance_id, None)
        self._engine.remove_local(voice.local.instance_id)
        if voice.renewal is not None:
            voice.renewal.cancel()

    def introduce(self, identity: Identity, instance_id: bytes) -> tuple[SigningKey, Instance, bytes]:
        """A new instance key, and the signed statement that introduces it."""
        now = self.clock.now()
        key = SigningKey(self._entropy(32))
        record = self.source.trust.principal(identity.id)
        epoch = record.epoch if record is not None else 1
        instance = Instance(
            identity.id, epoch, instance_id, key.public.raw, identity.key.id, self.name, self._log_key, self._curve_key,
            list(self.transport.endpoints), ["envelope", "grant"], now, now + INSTANCE_LIFE,
        )  # fmt: skip
        return key, instance, instance.signed_by(identity.key, key).encode()

    def _schedule_renewal(self, voice: Voice) -> None:
        seconds = (voice.instance.not_after - self.clock.now()) / SECOND / 2
        voice.renewal = asyncio.get_running_loop().call_later(max(1.0, seconds), self._renew, voice)

    def _renew(self, voice: Voice) -> None:
        self.spawn(self._renew_now(voice))

    async def _renew_now(self, voice: Voice) -> None:
        """A new key for the same instance, half-way through the old one's life; peers know both meanwhile."""
        key, instance, statement = self.introduce(voice.identity, voice.local.instance_id)
        try:
            chain = await self.source.publish(statement)
        except AgentBusError:
            if self._lives(voice):
                voice.renewal = asyncio.get_running_loop().call_later(5.0, self._renew, voice)
            return
        if not self._lives(voice):  # it left meanwhile, and the directory has just heard the opposite
            self.source.leave([voice.local.instance_id])
            return
        self._pump()  # what was laid out under the old key is signed with it
        voice.key, voice.instance, voice.statement = key, instance, statement
        voice.local.key_id, voice.local.standing = key.id, Authority.from_bytes(chain)
        self._schedule_renewal(voice)

    def _lives(self, voice: Voice) -> bool:
        return not self._closed and self._voices.get(voice.local.instance_id) is voice

    async def renew(self, voice: Voice) -> None:
        """Take a new standing grant now: the ceiling changed."""
        if voice.renewal is not None:
            voice.renewal.cancel()
        await self._renew_now(voice)

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def name_id(self, name: str) -> PrincipalId:
        """The full id of a short name, in this node's trust domain."""
        return name_id(name, self.source.trust.domain)

    async def find(self, to: PrincipalId) -> Instance:
        """A running instance of ``to``: the next in turn, healthy ones first.

        Raises:
            AgentNotFound: ``agent.not_found``. AgentGone: ``agent.not_running``, ``agent.dials_out_only``.
        """
        if self.source.trust.principal(to) is None:
            await self.source.refresh()
            if self.source.trust.principal(to) is None:
                raise AgentNotFound(
                    "agent.not_found", f"nobody is called {to.short}; `agentbus agent list` shows who is"
                )
        found = self._running(to)
        if not found:
            await self.source.find(principals=[to])
            found = self._running(to)
        if not found:
            raise AgentGone("agent.not_running", f"{to.short} is enrolled and not running")
        found = [one for one in found if one.endpoints]
        if not found:
            raise AgentGone("agent.dials_out_only", f"{to.short} does not listen: it can ask, and cannot be asked")
        mono = self.clock.mono()
        healthy = [one for one in found if self._suspects.get(one.instance_id, 0) <= mono] or found
        self._turn += 1
        return healthy[self._turn % len(healthy)]

    def _running(self, who: PrincipalId) -> list[Instance]:
        departed = self.source.departed
        known = self.source.trust.instances_of(who, self.clock.now())
        return [one for one in known if thumbprint(one.key) not in departed]

    async def ask(
        self,
        kind: Kind,
        voice: Voice,
        to: str,
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
        """Open an exchange with a running instance of ``to``; ``waiter`` hears what comes of it."""
        instance = await self.find(self.name_id(to))
        connection = self.transport.dial(instance.endpoints[0], instance.curve_key)
        now = self.clock.now()
        if deadline <= now:
            raise DeadlineExceeded("deadline.exceeded", f"{to} was not reached in time")
        exchange = self._engine.ask(
            kind, voice.local, instance, action=action, body=body, chain=chain, now=now, deadline=deadline,
            trust=self.source.trust, route=connection, handover=handover(instance) if handover else b"",
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
        self._engine.end(exchange, "lose")
        self.forget(exchange)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """A task that this node cancels when it closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

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
            voice = self._voices.get(batch.local.instance_id)
            code = "agent.gone" if voice is None else self.source.trust.refuses(voice.instance, self.clock.now())
            if voice is None or code is not None:
                self._unsigned(batch, code or "agent.gone")
                continue
            self._engine.attach(batch, sign(voice.key, Purpose.BATCH, batch.batch.to_sign))
        frames = self._engine.take_frames()
        if frames:
            self.recorder.sent(frames, self.source.trust, self.clock.now())  # on the record before any leaves
            for ready in frames:
                if not ready.route.offer(ready.frame):
                    self._undeliverable(ready.draft.digest)
        self._rearm()

    def _unsigned(self, batch: ToSign, code: str) -> None:
        """Who was revoked, suspended or has left signs nothing any more: nobody would accept it."""
        for draft in batch.batch.drafts:
            waiter = self._waiters.pop(draft.digest, None)
            if waiter is not None:
                waiter.failed(Rejected(code, f"{batch.local.principal.short} itself counts no more: it signs nothing"))

    def _undeliverable(self, digest: bytes) -> None:
        self.recorder.unsent(digest, "the connection takes no more", self.clock.now())
        waiter = self._waiters.pop(digest, None)
        if waiter is not None:
            waiter.failed(Backpressure("backpressure.peer", "the peer takes no more now; slow down, or try later"))

    def _rearm(self) -> None:
        due = self._engine.next_deadline()
        if self._timer is not None and due == self._due and not self._closed:
            return
        self._due = due
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None and not self._closed:
            wait = min(3600.0, max(0.0, (due - self.clock.now()) / SECOND + 0.001))
            self._timer = asyncio.get_running_loop().call_later(wait, self.tick)

    def tick(self) -> None:
        """Expire what is due now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for event in self._engine.tick(self.clock.now()):
            self._ended(event)
        self._rearm()

    # ── the transport's sink ─────────────────────────────────────────────────────────────────────────────────────

    def received(self, connection: Connection, frame: bytes) -> None:
        """Step 1, and where each kind of frame belongs."""
        tag = frame[0] if frame else 0
        if tag == ENVELOPE:
            self._envelope(connection, frame)
        elif tag == STATEMENTS and self.source.owns(connection):
            self.source.received(frame)
        elif tag in (STATEMENTS, ENROLMENT) and self.server is not None and not connection.dialled:
            self.server.serve(connection, frame)
        else:
            self._charge(connection)

    def lost(self, connection: Connection, reason: str) -> None:
        """A connection is gone: who waits for an answer over it hears so."""
        self._peers.pop(connection.id, None)
        if self.source.owns(connection):
            self.source.lost()
        if self.server is not None:
            self.server.lost(connection)
        mono = self.clock.mono()
        for event in self._engine.lose(connection):
            self._suspects[event.exchange.party.instance] = mono + 5 * SECOND
            self._ended(event)
        if len(self._suspects) > 1024:
            self._suspects = {key: until for key, until in self._suspects.items() if until > mono}

    async def admit(self, key: bytes) -> bool:
        """Whether a CURVE key may connect: an enrolled principal's that is not suspended, retired or revoked."""
        if self.server is not None and self.server.admits(key):
            return True
        if key not in self.source.trust.curve_keys:
            await self.source.refresh()  # it may have enrolled a moment ago
        who = self.source.trust.curve_keys.get(key)
        record = self.source.trust.principal(who) if who else None
        if record is None or record.state != "active":
            return False
        keys = self.source.trust.keys.values()
        return any(k.curve_key == key and k.state in USABLE and k.epoch == record.epoch for k in keys)

    def _envelope(self, connection: Connection, frame: bytes) -> None:
        peer = self._peers.get(connection.id)
        if peer is None:
            peer = self._peers[connection.id] = _Peer()
        if peer.looking:
            if len(peer.held) >= HELD:
                connection.drop()
                return
            peer.held.append(frame)
            return
        self._open(connection, peer, frame, looked=0)

    def _open(self, connection: Connection, peer: _Peer, frame: bytes, *, looked: int) -> None:
        now = self.clock.now()
        trust = self.source.trust
        try:
            event = self._engine.receive(
                frame, route=connection, peer=connection.peer, trust=trust, policy=self.policy, now=now,
                age=self.source.age(),
            )  # fmt: skip
        except NeedsTrust as needs:
            if looked < LOOK_UPS and peer.may_look(now):
                peer.looking = True
                self.spawn(self._look_up(connection, peer, frame, needs, looked))
            else:
                self.recorder.rejected(frame, connection=connection.peer, code="reject.sender_key", now=now)
                self._charge(connection)
            return
        self._dispatch(connection, frame, event, now)

    async def _look_up(self, connection: Connection, peer: _Peer, frame: bytes, needs: NeedsTrust, looked: int) -> None:
        """The one wait before verification: bounded in time, and the frames behind it keep their order."""
        try:
            with suppress(AgentBusError):
                await self.source.find(keys=needs.keys)
        finally:
            peer.looking = False
            if not self._closed:
                self._open(connection, peer, frame, looked=looked + 1)
                while peer.held and not peer.looking:
                    self._open(connection, peer, peer.held.popleft(), looked=0)

    def _dispatch(self, connection: Connection, frame: bytes, event: Event, now: int) -> None:
        if isinstance(event, Refused):
            self._refused(connection, frame, event, now)
            return
        message = event.permitted.message if isinstance(event, Asked) else event.message
        if message is not None:
            if message.header.directory_size > self.source.trust.size:
                self.source.hint()  # a hint and no more: it never makes a message good or bad
            self._record(connection, message.envelope, message.header.sender_key, "ok", now)
        if isinstance(event, Asked):
            self._asked(event)
        elif isinstance(event, Answered):
            waiter = self._waiters.get(event.exchange.digest)
            if waiter is not None:
                if event.exchange.done:
                    self.forget(event.exchange)
                waiter.answered(event)
        elif isinstance(event, Steered):
            voice = self._voices.get(event.exchange.party.mine)
            if voice is not None and voice.handlers is not None:
                voice.handlers.steered(event)
        elif isinstance(event, Ended):
            self._ended(event)

    def _asked(self, event: Asked) -> None:
        voice = self._voices.get(event.exchange.party.mine)
        if voice is not None and voice.handlers is not None:
            voice.handlers.start(event)
            self._rearm()  # its deadline counts here too, whether or not anything is sent until then

    def _refused(self, connection: Connection, frame: bytes, event: Refused, now: int) -> None:
        if event.header is None:
            self.recorder.rejected(frame, connection=connection.peer, code=event.error.code, now=now)
            self._charge(connection, LATE if event.error.code in ("reject.expired", "reject.recipient") else 1.0)
            return
        if event.error.code in FORGERIES:
            self._charge(connection)
        self._record(connection, decode_frame(frame, LIMITS), event.header.sender_key, event.error.code, now)
        event.error.details.setdefault("by", event.header.recipient)
        body = problems.encode(event.error)
        self._engine.refuse(event, action=event.header.action, body=body, now=now, trust=self.source.trust)
        self.wake()

    def _record(self, connection: Connection, envelope: Envelope, sender_key: bytes, code: str, now: int) -> None:
        """(15) What was judged goes on the record before the loop's next step acts on it."""
        if not self.recorder.pending:
            asyncio.get_running_loop().call_soon(self.recorder.flush)
        self.recorder.received(
            envelope, sender_key, connection=connection.peer, code=code, trust=self.source.trust,
            policy=self.policy.version, now=now,
        )  # fmt: skip

    def _charge(self, connection: Connection, cost: float = 1.0) -> None:
        """Step 1's bucket: whoever sends what does not verify pays, and nobody else."""
        peer = self._peers.setdefault(connection.id, _Peer())
        mono = self.clock.mono()
        peer.bad = max(0.0, peer.bad - (mono - peer.bad_at) / SECOND) + cost
        peer.bad_at = mono
        if peer.bad > BAD_FRAMES:
            connection.drop()

    def _ended(self, event: Ended) -> None:
        exchange = event.exchange
        if exchange.role == "callee":
            voice = self._voices.get(exchange.party.mine)
            if voice is not None and voice.handlers is not None:
                voice.handlers.ended(event)
            return
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
        for exchange in self._engine.asked():
            party = exchange.party
            record = trust.principal(party.principal)
            gone = record is None or record.state != "active" or trust.is_revoked("instance", party.handle)
            waiter = self._waiters.get(exchange.digest)
            if gone and waiter is not None and self._engine.end(exchange, "lose"):
                self.forget(exchange)
                who = PrincipalId(party.principal).short
                waiter.failed(Rejected("reject.revoked", f"{who} was revoked or suspended while it was asked"))
        for voice in self._voices.values():
            if voice.handlers is not None:
                voice.handlers.recheck()

    def _directory_returned(self) -> None:
        """The directory lost its memory of who is running when it stopped: say it again."""
        for voice in self._voices.values():
            self.spawn(self._announce(voice))

    async def _announce(self, voice: Voice) -> None:
        try:
            await self.source.publish(voice.statement)
        except AgentBusError:
            self._renew(voice)

    def set_rules(self, policy: Policy) -> None:
        """Replace the local policy."""
        self.policy = policy

    @property
    def voices(self) -> Mapping[bytes, Voice]:
        """The instances that live here, by instance id."""
        return self._voices
