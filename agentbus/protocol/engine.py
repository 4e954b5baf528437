"""The engine: every rule of the protocol, and no clock, socket, randomness or log.

Bytes and ``now`` go in; frames and events come out. The runtime's pump takes batches, signs them, attaches, takes
frames, logs and offers them. Bounds are here: what does not fit is refused before anything is laid out.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from agentbus.crypto.signing import Purpose
from agentbus.delegation.chain import Authority
from agentbus.delegation.decide import Policy, decide
from agentbus.delegation.grant import chain_digest
from agentbus.delegation.memory import Memory
from agentbus.delegation.messages import VerifiedMessage
from agentbus.delegation.statements import Instance
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError, Backpressure, HandlerMissing, Rejected
from agentbus.protocol.events import Answered, Asked, Cut, Ended, Event, Refused, Steered, Stray
from agentbus.protocol.exchange import MOVES, TRANSITIONS, Exchange
from agentbus.protocol.kept import Kept
from agentbus.protocol.opening import Party, open_envelope
from agentbus.protocol.sealing import Batch, Draft, commit_body
from agentbus.protocol.seen import ReplayWindow
from agentbus.wire.header import ANSWERING, OPENING, Flag, Header, Kind, encode_header
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS, Limits

CODES: Final = {
    "backpressure.exchanges": "Too many exchanges are open on this node; wait for some to end.",
    "backpressure.peer": "The peer takes no more for now. Nothing was sent.",
    "request.too_large": "The message does not fit into one frame; send a reference instead.",
}

ACK: Final = 1  # extension: the receipt level that a send asks for
OVER: Final = 8192  # exchanges that are over and still known
WINDOW: Final = 64  # stream items that may be under way; half of it is given back at a time
UNDER_WAY: Final = 2048  # exchanges that one instance may be asked at once: half of what a peer lets wait
AGAIN: Final = 2  # times that a frame is sent again after its connection broke
REPEATS: Final = 4  # times that an answer is repeated; who asks more often is no honest peer with a bad line
_ONCE: Final = frozenset({Kind.REQUEST, Kind.SEND})  # one answer, which can be repeated; a stream breaks instead


@dataclass(slots=True)
class Local:
    """One of this node's instances: who speaks, and its counters."""

    principal: PrincipalId
    epoch: int
    instance_id: bytes
    key_id: bytes
    standing: Authority | None = None
    seq: int = 0
    peer_seq: dict[bytes, int] = field(default_factory=dict)
    drafts: list[tuple[Draft, Exchange | None, Any]] = field(default_factory=list)


@dataclass(slots=True)
class ToSign:
    """A batch that waits for its signature; ``places`` says of each frame which exchange it is of and where it goes."""

    local: Local
    batch: Batch
    places: list[tuple[Exchange | None, Any]]


class Ready(NamedTuple):
    """A signed frame, where it goes, and what it is made of."""

    route: Any
    frame: bytes
    proof: bytes
    draft: Draft
    sender_key: bytes


class Engine:
    """One node's protocol state.

    Args:
        entropy: ``n`` → n random bytes: message ids and salts.
        limits: Bounds of the wire.
        max_exchanges: Open exchanges, both roles together.
        purpose: BATCH, or REPLAY_BATCH for a replay run: the two never accept each other's messages.
    """

    def __init__(
        self,
        entropy: Callable[[int], bytes],
        *,
        limits: Limits = LIMITS,
        max_exchanges: int = 100_000,
        purpose: Purpose = Purpose.BATCH,
    ) -> None:
        self.purpose = purpose
        self._flags = int(Flag.REPLAY) if purpose is Purpose.REPLAY_BATCH else 0
        self._entropy = entropy
        self._limits = limits
        self._max = max_exchanges
        self._me: dict[bytes, PrincipalId] = {}
        self._locals: dict[bytes, Local] = {}
        self._asked: dict[bytes, Exchange] = {}  # this side opened
        self._serving: dict[bytes, Exchange] = {}  # the other side opened
        self._deadlines: list[tuple[int, int, Exchange]] = []
        self._over: OrderedDict[tuple[str, bytes], Exchange] = OrderedDict()
        self._under_way: dict[bytes, int] = {}  # by the instance that is asked
        self._kept = Kept()
        self._ready: list[Ready] = []
        self._window = ReplayWindow()
        self.memory = Memory()
        self._count = 0

    # ── who is here ──────────────────────────────────────────────────────────────────────────────────────────────

    def add_local(self, local: Local) -> None:
        """Let an instance of this node speak and be spoken to."""
        self._locals[local.instance_id] = local
        self._me[local.instance_id] = local.principal

    def remove_local(self, instance_id: bytes) -> None:
        """Nobody of this instance id is here any more."""
        self._locals.pop(instance_id, None)
        self._me.pop(instance_id, None)

    @property
    def open_exchanges(self) -> int:
        """How many exchanges are known, both roles together."""
        return len(self._asked) + len(self._serving)

    def asked(self) -> list[Exchange]:
        """The exchanges that this side opened and that are not over."""
        return list(self._asked.values())

    def asked_by(self, digest: bytes) -> Exchange | None:
        """The exchange that the message of this digest opened here, while it is open."""
        return self._asked.get(digest)

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(
        self,
        kind: Kind,
        local: Local,
        to: Instance,
        *,
        action: str,
        body: bytes,
        chain: Authority,
        now: int,
        deadline: int,
        trust: Trust,
        route: Any,
        handover: bytes = b"",
        conversation: bytes | None = None,
        cause: bytes | None = None,
        ack: str = "handled",
    ) -> Exchange:
        """Open an exchange: lay out a request, send or stream, and wait for what answers it.

        Raises:
            Backpressure: ``backpressure.exchanges``, ``backpressure.peer``.
            Rejected: ``request.too_large``.
        """
        if self.open_exchanges >= self._max:
            raise Backpressure("backpressure.exchanges", f"{self._max} exchanges are open")
        if self._under_way.get(to.instance_id, 0) >= UNDER_WAY:
            who = to.principal.short
            raise Backpressure("backpressure.peer", f"{UNDER_WAY} exchanges with {who} are open; wait for some to end")
        conversation = conversation or self._entropy(16)
        extensions = [[ACK, False, ack.encode()]] if kind is Kind.SEND else []
        draft = self._lay_out(
            kind, local, to.principal, to.instance_id, action, body, chain, handover, now, deadline, trust,
            conversation=conversation, cause=cause, extensions=extensions,
        )  # fmt: skip
        exchange = Exchange(
            draft.digest,
            "caller",
            kind,
            Party(to.principal, to.instance_id, local.instance_id),
            deadline,
            conversation,
            route,
            ack=ack,
            allowed=WINDOW,
        )
        self._under_way[to.instance_id] = self._under_way.get(to.instance_id, 0) + 1
        self._open(self._asked, exchange)
        local.drafts.append((draft, exchange, route))
        return exchange

    def answer(
        self,
        kind: Kind,
        local: Local,
        exchange: Exchange,
        *,
        action: str,
        body: bytes,
        now: int,
        trust: Trust,
        stream_index: int | None = None,
        chain: Authority | None = None,
    ) -> bool:
        """Lay out an answer, or a credit or cancel, within an exchange.

        Returns:
            False: the exchange's table has no place for it any more; nothing is sent.
        """
        move = MOVES[kind]
        if kind is Kind.RECEIPT and action == exchange.ack:
            move = "final receipt"
        if not exchange.move(move):
            return False
        carried = chain or local.standing
        if carried is None:
            return False
        draft = self._lay_out(
            kind, local, PrincipalId(exchange.party.principal), exchange.party.instance, action, body, carried,
            b"", now, max(exchange.deadline, now + 1), trust, conversation=exchange.conversation,
            in_reply_to=exchange.digest, stream_index=stream_index,
        )  # fmt: skip
        if kind is Kind.ITEM:
            exchange.next_index += 1
        local.drafts.append((draft, exchange if exchange.done and exchange.role == "callee" else None, exchange.route))
        self._retire(exchange)
        return True

    def refuse(self, refused: Refused, *, action: str, body: bytes, now: int, trust: Trust) -> None:
        """Lay out a signed error to whoever's authenticated message was refused, if it asked for something."""
        header = refused.header
        if header is None or refused.digest is None or header.kind not in OPENING:
            return
        local = self._locals.get(header.recipient_instance or b"")
        if local is None or local.standing is None:
            return
        draft = self._lay_out(
            Kind.ERROR, local, PrincipalId(header.sender), header.sender_instance, action, body, local.standing,
            b"", now, max(header.deadline, now + 1), trust, conversation=header.conversation,
            in_reply_to=refused.digest,
        )  # fmt: skip
        local.drafts.append((draft, None, refused.route))

    def _lay_out(
        self,
        kind: Kind,
        local: Local,
        recipient: PrincipalId,
        instance: bytes,
        action: str,
        body: bytes,
        chain: Authority,
        handover: bytes,
        now: int,
        deadline: int,
        trust: Trust,
        *,
        conversation: bytes,
        cause: bytes | None = None,
        in_reply_to: bytes | None = None,
        stream_index: int | None = None,
        extensions: list[list[Any]] | None = None,
    ) -> Draft:
        if len(body) + len(chain.data) + len(handover) + self._limits.header + self._limits.note > self._limits.frame:
            raise Rejected("request.too_large", f"{len(body)} bytes do not fit into one frame")
        salt = self._entropy(32)
        local.seq += 1
        peer_seq = local.peer_seq.get(instance, 0) + 1
        local.peer_seq[instance] = peer_seq
        header = Header(
            1, int(kind), self._entropy(16), conversation, local.principal, local.instance_id, local.key_id, local.seq,
            recipient, instance, peer_seq, None, stream_index, in_reply_to, cause, action, now,
            min(deadline, now + self._limits.lifetime), "application/json", len(body), commit_body(salt, body),
            chain.digest, chain_digest(handover) if handover else None, trust.size, trust.revocation_seq, None,
            None, self._flags, extensions or [],
        )  # fmt: skip
        return Draft.of(encode_header(header), chain.data, handover, salt, body)

    def take_batches(self) -> list[ToSign]:
        """What waits to be signed: at most 64 of one instance together."""
        taken = []
        for local in self._locals.values():
            waiting, local.drafts = local.drafts, []
            for at in range(0, len(waiting), self._limits.batch):
                part = waiting[at : at + self._limits.batch]
                batch = Batch.prepare([d for d, _, _ in part], key_id=local.key_id, instance_id=local.instance_id)
                taken.append(ToSign(local, batch, [(exchange, route) for _, exchange, route in part]))
        return taken

    def attach(self, signed: ToSign, signature: bytes) -> None:
        """Attach a batch's signature; its frames are ready now."""
        proofs = signed.batch.proofs(signature)
        frames = signed.batch.frames(proofs)
        for (exchange, route), frame, proof, draft in zip(
            signed.places, frames, proofs, signed.batch.drafts, strict=True
        ):
            self._ready.append(Ready(route, frame, proof, draft, signed.local.key_id))
            if exchange is not None and exchange.kind in _ONCE and (exchange.role == "callee" or not exchange.done):
                self._kept.put(exchange.role, exchange.digest, frame)

    def take_frames(self) -> list[Ready]:
        """What may leave, in the order it was laid out."""
        ready, self._ready = self._ready, []
        return ready

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def receive(
        self, data: bytes, *, route: Any, peer: bytes | None, trust: Trust, policy: Policy, now: int, age: int | None
    ) -> Event:
        """Steps 2 to 14 and the protocol's part of 15, for one frame.

        Raises:
            NeedsTrust: fetch and call again; nothing changed.
        """
        try:
            message = open_envelope(
                data, me=self._me, trust=trust, now=now, seen=self._window.seen, exchanges=self._party, peer=peer,
                limits=self._limits, cache=self.memory, purpose=self.purpose,
            )  # fmt: skip
        except AgentBusError as error:
            return Refused(error, error.about, error.digest, route)
        try:
            if message.header.kind in OPENING:
                return self._accept(message, route, peer, trust, policy, now, age)
            return self._advance(message, now, trust)
        except AgentBusError as error:
            return Refused(error, message.header, message.digest, route)

    def _accept(
        self,
        message: VerifiedMessage,
        route: Any,
        peer: bytes | None,
        trust: Trust,
        policy: Policy,
        now: int,
        age: int | None,
    ) -> Event:
        header = message.header
        if header.kind not in TRANSITIONS:
            raise HandlerMissing("handler.missing", f"this node takes no {Kind(header.kind).name.lower()}s")
        permitted = decide(message, trust=trust, policy=policy, now=now, age=age)  # (14)
        if self.open_exchanges >= self._max:
            raise Backpressure("backpressure.exchanges", "this node serves as many requests as it may")
        self._window.add(header)  # (15)
        party = Party(header.sender, header.sender_instance, header.recipient_instance or b"")
        ack = _ack(header.extensions) if header.extensions else "handled"
        exchange = Exchange(
            message.digest, "callee", Kind(header.kind), party, header.deadline, header.conversation, route,
            ack=ack, allowed=WINDOW, peer=peer,
        )  # fmt: skip
        self._open(self._serving, exchange)
        return Asked(permitted, exchange, route)

    def _advance(self, message: VerifiedMessage, now: int, trust: Trust) -> Event:
        header = message.header
        answering = header.kind in ANSWERING
        self._window.add(header)
        exchange = self._find(header.in_reply_to or b"", answering)
        assert exchange is not None  # step 12 found it
        exchange.unheard = False
        kind, index = Kind(header.kind), header.stream_index
        move = "final receipt" if kind is Kind.RECEIPT and header.action == exchange.ack else MOVES[kind]
        if kind in (Kind.ITEM, Kind.END) and not exchange.done:
            if index != exchange.next_index or (kind is Kind.ITEM and exchange.next_index >= exchange.allowed):
                self._call_off(exchange, now, trust)
                return Ended(exchange, "gap", message)
            exchange.next_index += kind is Kind.ITEM
        if not exchange.move(move):
            return Stray(exchange, message)
        if kind is Kind.CREDIT:
            exchange.allowed = max(exchange.allowed, min(index or 0, exchange.next_index + 2 * WINDOW))
        self._retire(exchange)
        return (Answered if answering else Steered)(exchange, message)

    def _call_off(self, exchange: Exchange, now: int, trust: Trust) -> None:
        """A stream that lost an item is of no use to anybody: its sender is told to stop."""
        local = self._locals.get(exchange.party.mine)
        if local is None or not self.answer(
            Kind.CANCEL, local, exchange, action="cancel", body=b"", now=now, trust=trust
        ):
            exchange.move("lose")
            self._retire(exchange)

    def _party(self, digest: bytes, answering: bool) -> Party | None:
        exchange = self._find(digest, answering)
        return exchange.party if exchange else None

    def _find(self, digest: bytes, answering: bool) -> Exchange | None:
        exchange = (self._asked if answering else self._serving).get(digest)
        return exchange or self._over.get(("caller" if answering else "callee", digest))

    def _retire(self, exchange: Exchange) -> None:
        """What is over leaves the table; the newest are remembered, so that a late answer is called late."""
        if not exchange.done:
            return
        if exchange.role == "callee":
            self._serving.pop(exchange.digest, None)
        elif self._asked.pop(exchange.digest, None) is not None:
            self._kept.drop("caller", exchange.digest)
            left = self._under_way.pop(exchange.party.instance, 0) - 1
            if left > 0:
                self._under_way[exchange.party.instance] = left
        self._over[exchange.role, exchange.digest] = exchange
        if len(self._over) > OVER:
            (role, digest), _ = self._over.popitem(last=False)
            self._kept.drop(role, digest)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def end(self, exchange: Exchange, how: str) -> bool:
        """End an exchange without a message: ``lose``, ``cancel`` or ``expire``; False when it was over already."""
        moved = exchange.move(how)
        self._retire(exchange)
        return moved

    # ── when a connection breaks ─────────────────────────────────────────────────────────────────────────────────

    def lose(self, route: Any) -> list[Ended | Cut]:
        """The connection behind ``route`` is gone: a stream over it has ended, the rest may go on over another."""
        events: list[Ended | Cut] = []
        for exchange in [e for table in (self._asked, self._serving) for e in table.values() if e.route is route]:
            mine = exchange.role == "caller"
            again = exchange.tries < AGAIN and self._kept.get("caller", exchange.digest) is not None if mine else True
            if exchange.kind in _ONCE and again:
                events.append(Cut(exchange))
            elif self.end(exchange, "lose"):
                events.append(Ended(exchange, "gone"))
        return events

    def send_again(self, exchange: Exchange, route: Any) -> bytes | None:
        """The frame of an open question, to be offered to ``route``; None when it cannot be sent again."""
        frame = self._kept.get("caller", exchange.digest)
        if exchange.done or frame is None or exchange.tries >= AGAIN:
            return None
        exchange.route, exchange.unheard = route, True
        exchange.tries += 1
        return frame

    def repeat(self, digest: bytes, *, route: Any, peer: bytes | None) -> tuple[Exchange, bytes | None] | None:
        """What to say to whoever sends a message again that was accepted here.

        Args:
            digest: The message's.
            route: The connection it came over now: an answer that is still to come goes there.
            peer: The key at the other end of it; the same as then, or nothing is said.

        Returns:
            The exchange, and the frame of its final answer where there is one; None: no honest repetition.
        """
        exchange = self._find(digest, answering=False)
        if exchange is None or exchange.kind not in _ONCE or peer is None or peer != exchange.peer:
            return None
        exchange.tries += 1
        if exchange.tries > REPEATS:
            return None
        exchange.route = route
        return exchange, self._kept.get("callee", digest) if exchange.done else None

    def tick(self, now: int) -> list[Ended]:
        """Expire what is due."""
        ended = []
        while self._deadlines and self._deadlines[0][0] <= now:
            exchange = heapq.heappop(self._deadlines)[2]
            if self.end(exchange, "expire"):
                ended.append(Ended(exchange, "expired"))
        self._window.forget(now)
        return ended

    def next_deadline(self) -> int | None:
        """When :meth:`tick` has something to do."""
        while self._deadlines and self._deadlines[0][2].done:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _open(self, table: dict[bytes, Exchange], exchange: Exchange) -> None:
        table[exchange.digest] = exchange
        self._count += 1
        heapq.heappush(self._deadlines, (exchange.deadline, self._count, exchange))
        if len(self._deadlines) > 4 * self.open_exchanges + 1024:  # mostly exchanges that ended long before they had to
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
            heapq.heapify(self._deadlines)


def _ack(extensions: list[list[Any]]) -> str:
    """The receipt that a send asks for."""
    return next((e[2].decode("ascii", "replace") for e in extensions if e[0] == ACK), "handled")
