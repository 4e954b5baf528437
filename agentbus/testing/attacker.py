"""Mallory: an enrolled agent who breaks one rule at a time, with real frames, her own keys and her own connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pydantic import BaseModel

from agentbus.bus.base import Bus
from agentbus.crypto.keys import SigningKey
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import Grant, Link, chain_digest, encode_chain, encode_link
from agentbus.delegation.scope import Scope, scopes
from agentbus.delegation.statements import Instance
from agentbus.directory.core import Directory
from agentbus.errors import AgentBusError, ProgrammingError
from agentbus.protocol.sealing import Batch, Draft, commit_body
from agentbus.runtime.message import encode_body, type_of
from agentbus.runtime.node import Node
from agentbus.runtime.voices import Voice
from agentbus.testing.clock import ManualClock
from agentbus.transport.base import Connection, Sink
from agentbus.wire.codec import unpack_array
from agentbus.wire.frame import ENVELOPE, Envelope, decode_frame
from agentbus.wire.header import Header, Kind, decode_header, encode_header
from agentbus.wire.ids import name_id
from agentbus.wire.limits import LIMITS, SECOND

_INSTANCE, _KEY = Header._fields.index("sender_instance"), Header._fields.index("sender_key")
UNRECORDED = ""
"""The verdict on a frame that left no trace: nothing was judged, or too much was refused within a second."""


CODES: Final = {
    "usage.nothing_captured": "The attacker has seen no such frame yet; let something be sent first.",
}


@dataclass(frozen=True, slots=True)
class Captured:
    """One envelope as it came out of the transport."""

    frame: bytes
    header: Header
    connection: Connection = field(repr=False)
    sink: Sink = field(repr=False)

    @property
    def envelope(self) -> Envelope:
        """Its sections."""
        return decode_frame(self.frame, LIMITS)

    @property
    def authority(self) -> Authority:
        """The chain it carries."""
        return Authority.from_bytes(self.envelope.chain)


class Tap:
    """A sink that keeps a copy of every envelope on its way to another."""

    def __init__(self, sink: Sink, kept: list[Captured]) -> None:
        self._sink, self._kept = sink, kept

    def received(self, connection: Connection, frame: bytes) -> None:
        if frame[:1] == bytes([ENVELOPE]):
            try:
                header = decode_header(decode_frame(frame, LIMITS).header, LIMITS)
                self._kept.append(Captured(frame, header, connection, self._sink))
            except AgentBusError:
                pass  # what cannot be read is delivered all the same
        self._sink.received(connection, frame)

    def lost(self, connection: Connection, reason: str) -> None:
        self._sink.lost(connection, reason)

    async def admit(self, key: bytes) -> bool:
        return await self._sink.admit(key)


class Victims(Protocol):
    """What she knows of the network she attacks."""

    captured: list[Captured]
    clock: ManualClock
    _core: Directory
    _node: Node

    async def settle(self) -> None: ...
    def verdicts(self, since: int = 0) -> list[str]: ...


class Attacker(Bus):
    """The agent ``mallory``. As a bus she speaks, serves and acts like anybody; the other verbs break rules.

    Attributes:
        received: Every envelope that reached her node, newest last.
    """

    def __init__(self, node: Node, voice: Voice, net: Victims) -> None:
        super().__init__(node, voice)
        self.received: list[Captured] = []
        self._net = net

    @property
    def node(self) -> Node:
        """Her node."""
        return self._node

    @property
    def voice(self) -> Voice:
        """Her instance and its key."""
        return self._voice

    # ── what she sees ────────────────────────────────────────────────────────────────────────────────────────────

    def capture(
        self, action: str | None = None, *, kind: Kind | None = None, sender: str | None = None, mine: bool = False
    ) -> Captured:
        """The newest envelope that fits, of all that reached the network's node (``mine``: or her own).

        Args:
            action: Its message type.
            kind: What it is: a request, a reply and so on.
            sender: Who sent it: a short name or a full id.
            mine: Look at what reached her own node, too.

        Raises:
            ProgrammingError: ``usage.nothing_captured``.
        """
        who = None if sender is None else name_id(sender, self._net._core.domain)
        for one in reversed(self.received if mine else self._net.captured):
            h = one.header
            if (action in (None, h.action)) and (kind in (None, h.kind)) and (who in (None, h.sender)):
                return one
        raise ProgrammingError("usage.nothing_captured", f"no envelope {action or ''} was seen yet")

    # ── chains ───────────────────────────────────────────────────────────────────────────────────────────────────

    def widen(self, held: Authority, granted: Sequence[str | Scope], *, to: str, **changes: Any) -> Authority:
        """``held`` and one more link that she signs, whatever it grants; ``changes`` replace its fields.

        Args:
            held: What she holds.
            granted: What her link grants, within it or not.
            to: Whom her link is for.
            changes: Fields of the link's grant that are replaced.
        """
        return _chain((*held.links, self.link(held, granted, to=to, **changes)))

    def link(self, held: Authority, granted: Sequence[str | Scope], *, to: str, **changes: Any) -> Link:
        """The next link on ``held``, signed by her instance key and within nothing but the wire's form."""
        last, who, now = held.links[-1], name_id(to, self._net._core.domain), self._net.clock.now()
        record = self._net._core.trust.principal(who)
        grant = Grant(
            self.id, self._voice.instance.epoch, self._voice.key.id, now, who, record.epoch if record else 1, None,
            held.subject, held.links[0].digest, len(held.links), last.digest, now,
            min(held.expires_at, self._voice.instance.not_after), scopes(granted), last.grant.targets,
            max(0, last.grant.depth - 1), self._node._entropy(16), None, last.grant.conversation, None,
        )._replace(**changes)  # fmt: skip
        return self.sign_link(grant)

    def sign_link(self, grant: Grant, key: SigningKey | None = None) -> Link:
        """Any grant under her instance key's signature, or another's."""
        body = grant.encode()
        return Link(grant, body, sign(key or self._voice.key, Purpose.GRANT, body))

    def strip(self, held: Authority, links: int = 1) -> Authority:
        """``held`` without its last links: what its holder was given by somebody, as that somebody held it.

        Args:
            held: What she holds.
            links: How many to leave away.
        """
        return _chain(held.links[:-links])

    def splice(self, head: Authority, tail: Authority, at: int) -> Authority:
        """The first ``at`` links of one chain, and the rest of another.

        Args:
            head: The chain whose beginning is taken.
            tail: The chain whose end is taken.
            at: Where they meet.
        """
        return _chain((*head.links[:at], *tail.links[at:]))

    def reorder(self, held: Authority, order: Sequence[int]) -> Authority:
        """The links in another order.

        Args:
            held: What she holds.
            order: The positions of its links, as they are to stand.
        """
        return _chain(tuple(held.links[at] for at in order))

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def forge(
        self,
        to: str,
        message: BaseModel,
        *,
        kind: Kind = Kind.REQUEST,
        authority: Authority | None = None,
        handover: Link | None = None,
        key: SigningKey | None = None,
        purpose: Purpose = Purpose.BATCH,
        timeout: float = 30,
        edit: Callable[[Header], Header] | None = None,
        **changes: Any,
    ) -> bytes:
        """A frame to a running agent that she lays out and signs herself.

        Args:
            to: Whom it is for.
            message: The body, and its type.
            kind: What it is.
            authority: The chain it carries; her standing grant by default.
            handover: A link that travels with it.
            key: Who signs the batch; her instance key by default.
            purpose: What the signature is for.
            timeout: Seconds from issue to deadline.
            edit: Changes the header before it is signed.
            changes: Fields of the header that are replaced before it is signed.
        """
        who = name_id(to, self._net._core.domain)
        target = self.instance_of(to)
        body, salt, entropy = encode_body(message), self._node._entropy(32), self._node._entropy
        chain = (authority or self.authority).data
        passed = encode_link(handover) if handover is not None else b""
        local, now, trust = self._voice.local, self._net.clock.now(), self._node.source.trust
        local.seq += 1
        peer_seq = local.peer_seq[target.instance_id] = local.peer_seq.get(target.instance_id, 0) + 1
        header = Header(
            1, int(kind), entropy(16), entropy(16), self.id, local.instance_id, local.key_id, local.seq, who,
            target.instance_id, peer_seq, None, None, None, None, type_of(message), now, now + int(timeout * SECOND),
            "application/json", len(body), commit_body(salt, body), chain_digest(chain),
            chain_digest(passed) if passed else None, trust.size, trust.revocation_seq, None, None, 0, [],
        )._replace(**changes)  # fmt: skip
        header = edit(header) if edit is not None else header
        return self.seal(Draft.of(encode_header(header), chain, passed, salt, body), key=key, purpose=purpose)

    def seal(self, *drafts: Draft, key: SigningKey | None = None, purpose: Purpose = Purpose.BATCH) -> bytes:
        """The first frame of a batch that she signs, or somebody else's key."""
        row = unpack_array(drafts[0].header)  # read as it is: the header may be one that no receiver takes
        batch = Batch.prepare(drafts, key_id=row[_KEY], instance_id=row[_INSTANCE])
        return batch.attach(sign(key or self._voice.key, purpose, batch.to_sign))[0]

    def flip(self, frame: bytes, at: int, bit: int = 0) -> bytes:
        """The frame with one bit turned.

        Args:
            frame: Any frame.
            at: Which byte.
            bit: Which of its bits; 0 is the lowest.
        """
        turned = bytearray(frame)
        turned[at] ^= 1 << bit
        return bytes(turned)

    def instance_of(self, name: str) -> Instance:
        """The newest running instance of somebody."""
        found = self._node.finder.running(name_id(name, self._net._core.domain))
        if not found:
            raise ProgrammingError("usage.nothing_captured", f"{name} does not run here")
        return found[0]

    # ── delivery ─────────────────────────────────────────────────────────────────────────────────────────────────

    def connection(self) -> Connection:
        """Her connection to the network's node."""
        target = self._net._node.transport
        return self._node.transport.dial(target.endpoints[0], self._net._node._curve_key)

    async def deliver(self, frame: bytes) -> str:
        """Send a frame as it is over her own connection.

        Args:
            frame: Its bytes.

        Returns:
            The verdict that the receiving node put on the record: ``ok``, a code, or ``UNRECORDED``.
        """
        before = self._net._node.recorder.log.size
        self.connection().offer(frame)
        await self._net.settle()
        return self._verdict(before)

    async def replay(self, captured: Captured, *, frame: bytes | None = None) -> str:
        """A network that repeats: the same envelope once more (or ``frame`` in its place), where it came from.

        Args:
            captured: What ``capture`` gave.
            frame: Other bytes instead of its own.

        Returns:
            The verdict, as of ``deliver``.
        """
        before = self._net._node.recorder.log.size
        captured.sink.received(captured.connection, captured.frame if frame is None else frame)
        await self._net.settle()
        return self._verdict(before)

    def _verdict(self, before: int) -> str:
        return next(iter(self._net.verdicts(before)), UNRECORDED)


def _chain(links: tuple[Link, ...]) -> Authority:
    """A chain as it is, good or not."""
    return Authority(links, encode_chain(links))
