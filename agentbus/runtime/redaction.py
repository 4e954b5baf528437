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
from agentbus.log.redact import check_reason, find_erasable
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


async def redact(request: Redact, ctx: Context[Any]) -> Redacted:
    """Erase, when who is asked is a party of the message, and who asks may have it erased here.

    Raises:
        Denied: ``denied.redaction``, ``denied.redaction_owner``.
        LogError: ``log.reason``.
        Malformed: ``malformed.base64``.
    """
    digest, reason = unb64(request.message, 32), check_reason(request.reason)
    recorder, me = ctx._node.recorder, ctx._voice.identity.id
    recorder.flush()
    found = await asyncio.to_thread(lambda: find_erasable(recorder.log.about(digest), digest))
    if found.header is None:
        return Redacted(erased=0)
    _require_may_erase(ctx, me, {found.header.sender, found.header.recipient})
    if not await asyncio.to_thread(lambda: any(recorder.log.box(name) is not None for name in found.boxes)):
        return Redacted(erased=0)
    now = ctx._node.clock.now()
    recorder.redaction(found.header.body_commitment, authority=ctx.sender, reason=reason, now=now)
    await asyncio.to_thread(recorder.log.sync)
    return Redacted(erased=await asyncio.to_thread(lambda: sum(recorder.log.erase(name) for name in found.boxes)))


def _require_may_erase(ctx: Context[Any], me: str, parties: set[str]) -> None:
    record = ctx._node.source.trust.principal(me)
    owner = record.owner if record is not None else ""
    if me in parties and ctx.sender in {me, owner}:
        return
    if me not in parties or ctx.sender not in parties:
        raise Denied("denied.redaction", CODES["denied.redaction"])
    handlers = ctx._voice.handlers
    if handlers is None or handlers.erasure != "parties":
        raise Denied("denied.redaction_owner", CODES["denied.redaction_owner"])


BUILT_IN: Final = {
    type_of(Redact): Handler(redact, Redact, Redacted, False, Rule((), False), 4, True),
}
"""What every agent answers besides its own handlers, by message type."""
