"""Every agent answers ``agentbus.Redact``: erase the body of a message that it sent or received.

Rule 1: a body is evidence of what was ordered. Its receiver's owner decides whether it goes: the other party of a
message erases it here only where the agent says so (``Agent(erasure="parties")``).
Rule 2: header, chain and commitments stay, whoever asks. So what was erased can still be shown to have been said.
Rule 3: request and answer are signed messages like any other, so both are on the record of both sides.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Final

from pydantic import BaseModel

from agentbus.delegation.decide import Rule
from agentbus.errors import Denied
from agentbus.log.redact import Erasable, check_reason, find_erasable
from agentbus.runtime.agent import Handler
from agentbus.runtime.context import Context
from agentbus.runtime.message import Request, type_of
from agentbus.wire.ids import unb64

CODES: Final = {
    "denied.redaction": "A redaction is asked for by a party of the message, or by the owner of the agent.",
    "denied.redaction_owner": "This agent erases for itself and its owner alone; Agent(erasure='parties') allows it.",
}


class Redacted(BaseModel):
    """What was done: how many boxes were erased; none where the message is not known here or was erased before."""

    erased: int


class Redact(Request[Redacted]):
    """Erase the body of a message that we two exchanged."""

    message_type: ClassVar[str] = "agentbus.Redact"
    message: str  # its digest, base64url
    reason: str  # a code


class Known(BaseModel):
    """What a node knew of a message as it was asked to erase it."""

    parties: list[str]  # none: the log has no such message
    owner: str  # of the agent that is asked
    held: bool  # whether any of its body was still there


async def redact(request: Redact, ctx: Context[Any]) -> Redacted:
    """Erase, when who is asked is a party of the message, and who asks may have it erased here.

    What the log holds and what was erased in it is not determined by the request, so both are steps on its record: a
    replay judges the request again and erases nothing.

    Raises:
        Denied: ``denied.redaction``, ``denied.redaction_owner``.
        LogError: ``log.reason``.
        Malformed: ``malformed.base64``.
    """
    digest, reason = unb64(request.message, 32), check_reason(request.reason)
    known = await ctx.step("find", lambda: _find(ctx, digest), type=Known)
    if not known.parties:
        return Redacted(erased=0)
    _require_may_erase(ctx, known)
    if not known.held:
        return Redacted(erased=0)
    return Redacted(erased=await ctx.step("erase", lambda: _erase(ctx, digest, reason), type=int, given=reason))


async def _find(ctx: Context[Any], digest: bytes) -> Known:
    found = await _erasable(ctx, digest)
    record = ctx._node.source.trust.principal(ctx._voice.identity.id)
    parties = [] if found.header is None else [found.header.sender, found.header.recipient]
    log = ctx._node.recorder.log
    held = await asyncio.to_thread(lambda: any(log.box(name) is not None for name in found.boxes))
    return Known(parties=parties, owner=record.owner if record is not None else "", held=held)


async def _erase(ctx: Context[Any], digest: bytes, reason: str) -> int:
    found, recorder = await _erasable(ctx, digest), ctx._node.recorder
    assert found.header is not None
    now = ctx._node.clock.now()
    recorder.redaction(found.header.body_commitment, authority=ctx.sender, reason=reason, now=now)
    await asyncio.to_thread(recorder.log.sync)
    return await asyncio.to_thread(lambda: sum(recorder.log.erase(name) for name in found.boxes))


async def _erasable(ctx: Context[Any], digest: bytes) -> Erasable:
    recorder = ctx._node.recorder
    recorder.flush()
    mine = ctx._voice.identity.id  # other agents of this node share its log, and decide about their own copies
    return await asyncio.to_thread(lambda: find_erasable(recorder.log.about(digest), digest, of=mine))


def _require_may_erase(ctx: Context[Any], known: Known) -> None:
    me = ctx._voice.identity.id
    if me in known.parties and ctx.sender in {me, known.owner}:
        return
    if me not in known.parties or ctx.sender not in known.parties:
        raise Denied("denied.redaction", CODES["denied.redaction"])
    handlers = ctx._voice.handlers
    if handlers is None or handlers.erasure != "parties":
        raise Denied("denied.redaction_owner", CODES["denied.redaction_owner"])


BUILT_IN: Final = {
    type_of(Redact): Handler(redact, Redact, Redacted, False, Rule((), False), 4, True),
}
"""What every agent answers besides its own handlers, by message type."""
