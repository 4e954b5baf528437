"""A peer that says what no honest node would: crafted frames over a real bus, and what came of each.

It is enrolled like anybody else (nobody else gets a connection), signs with its own keys, and breaks one rule at a
time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel

from agentbus.bus.base import Bus
from agentbus.bus.opening import connect_bus
from agentbus.connect import find_url
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import Link, chain_digest, encode_link
from agentbus.delegation.scope import Scope
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError
from agentbus.identity import Identity
from agentbus.protocol.engine import Ready
from agentbus.protocol.events import Answered
from agentbus.protocol.sealing import Batch, Draft
from agentbus.runtime import problems
from agentbus.runtime.links import extend, signed
from agentbus.runtime.message import encode_body, type_of
from agentbus.transport.base import Connection
from agentbus.wire.header import Header, Kind, decode_header, encode_header
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS, SECOND


@dataclass(frozen=True, slots=True)
class Sealed:
    """A frame that is ready to be delivered."""

    frame: bytes
    digest: bytes
    outcome: asyncio.Future[str]
    connection: Connection


class _Outcome:
    def __init__(self, future: asyncio.Future[str]) -> None:
        self._future = future

    def answered(self, event: Answered) -> None:
        if not self._future.done():
            kind = event.message.header.kind
            error = problems.decode(event.message.body, "peer") if kind == Kind.ERROR else None
            self._future.set_result(error.code if error else "ok")

    def failed(self, error: AgentBusError) -> None:
        if not self._future.done():
            self._future.set_result(error.code)


class RawPeer:
    """An enrolled peer that seals and delivers frames by hand."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._node, self._voice = bus._node, bus._voice

    @classmethod
    async def connect(cls, identity: Identity, *, url: str | None = None, folder: Path | None = None) -> Self:
        """Connect over ZeroMQ, dialling out only."""
        return cls(await connect_bus(find_url(url), identity, listen=None, folder=folder))

    @property
    def heard(self) -> Trust:
        """All that it heard of the directory until now."""
        return self._node.source.trust

    async def aclose(self) -> None:
        """Close the connection."""
        await self.bus.aclose()

    async def seal(
        self,
        to: str,
        message: BaseModel,
        *,
        kind: Kind = Kind.REQUEST,
        authority: Authority | None = None,
        handover: Link | None = None,
        edit: Callable[[Header], Header] | None = None,
        timeout: float = 30,
        recorded: bool = False,
        knows: Trust | None = None,
    ) -> Sealed:
        """Lay out and sign one frame to ``to``, with the header as ``edit`` leaves it.

        With ``recorded`` it goes on this peer's own record, as an honest node's does; else its log leaves it out.
        What it ``knows`` of the directory is all that it heard, or what it had heard at some instant.
        """
        node, voice = self._node, self._voice
        trust = knows or node.source.trust
        instance = await node.finder.find(node.name_id(to))
        now = node.clock.now()
        connection = node.transport.dial(instance.endpoints[0], instance.curve_key)
        exchange = node._engine.ask(
            kind, voice.local, instance, action=type_of(message), body=encode_body(message),
            chain=authority or voice.standing, now=now, mono=node.clock.mono(), deadline=now + int(timeout * SECOND),
            trust=trust, route=connection, handover=encode_link(handover) if handover else b"",
        )  # fmt: skip
        draft, _, _ = voice.local.drafts.pop()
        if edit is not None:
            header = edit(decode_header(draft.header, LIMITS))
            draft = Draft.of(encode_header(header), draft.chain, draft.handover, draft.salt, draft.body)
        batch = Batch.prepare([draft], key_id=voice.key.id, instance_id=voice.local.instance_id)
        proofs = batch.proofs(sign(voice.key, Purpose.BATCH, batch.to_sign))
        frame = batch.frames(proofs)[0]
        if recorded:
            node.recorder.sent([Ready(connection, frame, proofs[0], draft, voice.key.id)], trust, now)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        node._waiters[exchange.digest] = _Outcome(future)
        return Sealed(frame, draft.digest, future, connection)

    async def deliver(self, sealed: Sealed, *, frame: bytes | None = None, wait: float = 1.0) -> str | None:
        """Deliver a sealed frame, or another in its place.

        Returns:
            ``"ok"``, the code of the signed refusal, or None when nobody answered (before a signature verifies,
            nobody does).
        """
        sealed.connection.offer(sealed.frame if frame is None else frame)
        done, _ = await asyncio.wait([sealed.outcome], timeout=wait)
        return sealed.outcome.result() if done else None

    def widened(self, held: Authority, to: str, scopes: Sequence[str | Scope]) -> Link:
        """A handover of ``held`` to ``to`` that grants ``scopes``, whether or not ``held`` does."""
        node, last = self._node, held.links[-1].grant
        now = node.clock.now()
        proper = extend(
            held, self._voice, node.name_id(to), (), trust=node.source.trust, now=now, expires=now + 60 * SECOND,
            link_id=node._entropy(16),
        )  # fmt: skip
        wide = proper.grant._replace(scopes=tuple(Scope(str(s)) for s in scopes), depth=max(0, last.depth - 1))
        return signed(wide, self._voice.key, Purpose.GRANT)


def sender_is(who: str) -> Callable[[Header], Header]:
    """Claim to be somebody else."""
    return lambda header: header._replace(sender=PrincipalId(who))


def carries(chain: bytes) -> Callable[[Header], Header]:
    """Commit to another chain."""
    return lambda header: header._replace(chain_digest=chain_digest(chain))
