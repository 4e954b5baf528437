"""The engine: every rule of the protocol, and no clock, socket, randomness or log.

Bytes and instants go in: ``now`` by the clock on the wall, ``mono`` by the monotonic. Frames and events come out. The
runtime's pump takes batches, signs them, attaches, takes frames, logs and offers them. Bounds are here: what does not
fit is refused before anything is laid out.
"""

from __future__ import annotations

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
from agentbus.errors import AgentBusError, HandlerMissing, Malformed, ReplyInvalid, RequestInvalid
from agentbus.protocol.events import Answered, Asked, Ended, Event, Refused, Steered, Stray
from agentbus.protocol.exchange import MOVES, TRANSITIONS, Exchange
from agentbus.protocol.exchanges import OPEN, Exchanges
from agentbus.protocol.opening import Party, Read, open_envelope
from agentbus.protocol.sealing import Batch, Draft, commit_body
from agentbus.protocol.seen import ReplayWindow
from agentbus.wire.frame import Envelope, encode_frame
from agentbus.wire.header import ANSWERING, OPENING, Flag, Header, Kind, encode_header
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS, Limits

CODES: Final = {
    "request.too_large": "The message does not fit into one frame; send a reference instead.",
    "reply.too_large": "The reply or item does not fit into one frame; answer with a reference, or stream it in parts.",
}

ACK: Final = 1  # extension: the receipt level that a send asks for
WINDOW: Final = 64  # stream items that may be under way; half of it is given back at a time


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
    note: bytes = b""  # the note section of the frame


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
        max_exchanges: int = OPEN,
        purpose: Purpose = Purpose.BATCH,
    ) -> None:
        self.purpose = purpose
        self.held_of: Callable[[bytes], bytes | None] = lambda instance: None
        """Instance id → digest of the newest checkpoint held of its node, for the header."""
        self.notes_for: Callable[[Any], bytes] = lambda route: b""
        """Route → the note section of the next frame that goes there."""
        self._flags = int(Flag.REPLAY) if purpose is Purpose.REPLAY_BATCH else 0
        self._entropy = entropy
        self._limits = limits
        self._me: dict[bytes, PrincipalId] = {}
        self._locals: dict[bytes, Local] = {}
        self.exchanges = Exchanges(max_exchanges)
        self._ready: list[Ready] = []
        self._window = ReplayWindow()
        self.memory = Memory()

    # ── who is here ──────────────────────────────────────────────────────────────────────────────────────────────

    def add_local(self, local: Local) -> None:
        """Let an instance of this node speak and be spoken to."""
        self._locals[local.instance_id] = local
        self._me[local.instance_id] = local.principal

    def remove_local(self, instance_id: bytes) -> None:
        """Nobody of this instance id is here any more."""
        self._locals.pop(instance_id, None)
        self._me.pop(instance_id, None)

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
        mono: int,
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
            RequestInvalid: ``request.too_large``.
        """
        self.exchanges.require_room(to.instance_id, to.principal.short)
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
            mono + deadline - now,
            conversation,
            route,
            ack=ack,
            allowed=WINDOW,
        )
        self.exchanges.open(exchange)
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

        Raises:
            ReplyInvalid: ``reply.too_large``; the exchange is where it was, so its caller can still be told.
        """
        move = MOVES[kind]
        if kind is Kind.RECEIPT and action == exchange.ack:
            move = "final receipt"
        carried = chain or local.standing
        if carried is None or not exchange.has(move):
            return False
        draft = self._lay_out(
            kind, local, PrincipalId(exchange.party.principal), exchange.party.instance, action, body, carried,
            b"", now, max(exchange.deadline, now + 1), trust, conversation=exchange.conversation,
            in_reply_to=exchange.digest, stream_index=stream_index,
        )  # fmt: skip
        exchange.move(move)
        if kind is Kind.ITEM:
            exchange.next_index += 1
        local.drafts.append((draft, exchange if exchange.done and exchange.role == "callee" else None, exchange.route))
        self.exchanges.retire(exchange)
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
            text = f"{len(body)} bytes do not fit into one frame"
            if in_reply_to is None:
                raise RequestInvalid("request.too_large", text)
            raise ReplyInvalid("reply.too_large", text)
        salt = self._entropy(32)
        local.seq += 1
        peer_seq = local.peer_seq.get(instance, 0) + 1
        local.peer_seq[instance] = peer_seq
        header = Header(
            1, int(kind), self._entropy(16), conversation, local.principal, local.instance_id, local.key_id, local.seq,
            recipient, instance, peer_seq, None, stream_index, in_reply_to, cause, action, now,
            min(deadline, now + self._limits.lifetime), "application/json", len(body), commit_body(salt, body),
            chain.digest, chain_digest(handover) if handover else None, trust.size, trust.revocation_seq,
            self.held_of(instance), None, self._flags, extensions or [],
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
            note = self.notes_for(route)
            if note:
                frame = encode_frame(
                    Envelope(draft.header, proof, draft.chain, draft.handover, note, draft.salt, draft.body)
                )
            self._ready.append(Ready(route, frame, proof, draft, signed.local.key_id, note))
            if exchange is not None:
                self.exchanges.keep(exchange, frame)

    def take_frames(self) -> list[Ready]:
        """What may leave, in the order it was laid out."""
        ready, self._ready = self._ready, []
        return ready

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def receive(
        self,
        data: bytes | Read | Malformed,
        *,
        route: Any,
        peer: bytes | None,
        trust: Trust,
        policy: Policy,
        now: int,
        mono: int,
        age: int | None,
    ) -> Event:
        """Steps 2 to 14 and the protocol's part of 15, for one frame.

        Args:
            data: The frame, or what :func:`~agentbus.protocol.opening.read_frame` made of it.

        Raises:
            NeedsTrust: fetch and call again; nothing changed.
        """
        try:
            if isinstance(data, Malformed):
                raise data
            message = open_envelope(
                data, me=self._me, trust=trust, now=now, seen=self._window.seen, exchanges=self.exchanges.party,
                peer=peer, limits=self._limits, cache=self.memory, purpose=self.purpose,
            )  # fmt: skip
        except AgentBusError as error:
            return Refused(error, error.about, error.digest, route)
        try:
            if message.header.kind in OPENING:
                return self._accept(message, route, peer, trust, policy, now, mono, age)
            return self._advance(message, now, mono, trust)
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
        mono: int,
        age: int | None,
    ) -> Event:
        header = message.header
        if header.kind not in TRANSITIONS:
            raise HandlerMissing("handler.missing", f"this node takes no {Kind(header.kind).name.lower()}s")
        permitted = decide(message, trust=trust, policy=policy, now=now, age=age)  # (14)
        self.exchanges.require_room(sender=header.sender)
        self._window.add(header, now=now, mono=mono)  # (15)
        party = Party(header.sender, header.sender_instance, header.recipient_instance or b"")
        ack = _ack(header.extensions) if header.extensions else "handled"
        exchange = Exchange(
            message.digest, "callee", Kind(header.kind), party, header.deadline,
            mono + header.deadline - now, header.conversation, route, ack=ack, allowed=WINDOW, peer=peer,
        )  # fmt: skip
        self.exchanges.open(exchange)
        return Asked(permitted, exchange)

    def _advance(self, message: VerifiedMessage, now: int, mono: int, trust: Trust) -> Event:
        header = message.header
        answering = header.kind in ANSWERING
        self._window.add(header, now=now, mono=mono)
        exchange = self.exchanges.find(header.in_reply_to or b"", answering)
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
        self.exchanges.retire(exchange)
        return Answered(exchange, message, exchange.done) if answering else Steered(exchange, message)

    def _call_off(self, exchange: Exchange, now: int, trust: Trust) -> None:
        """A stream that lost an item is of no use to anybody: its sender is told to stop."""
        local = self._locals.get(exchange.party.mine)
        if local is None or not self.answer(
            Kind.CANCEL, local, exchange, action="cancel", body=b"", now=now, trust=trust
        ):
            self.exchanges.end(exchange, "lose")

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, mono: int) -> list[Ended]:
        """Expire what is due."""
        self._window.forget(mono)
        return self.exchanges.expire(mono)


def _ack(extensions: list[list[Any]]) -> str:
    """The receipt that a send asks for."""
    return next((e[2].decode("ascii", "replace") for e in extensions if e[0] == ACK), "handled")
