"""Every agent answers ``agentbus.Redact``: a party of a message asks the other to erase its body.

Request and answer are signed messages like any other, so both are on the record of both sides.
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
    "denied.redaction": "A redaction is asked for by the sender or the recipient of the message, of the other one.",
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
    """Erase, when both who asks and who is asked are parties of the message.

    Raises:
        Denied: ``denied.redaction``.
        LogError: ``log.reason``.
        Malformed: ``malformed.base64``.
    """
    digest, reason = unb64(request.message, 32), check_reason(request.reason)
    recorder, me = ctx._node.recorder, ctx._voice.identity.id
    recorder.flush()
    found = await asyncio.to_thread(lambda: find_erasable(iter(recorder.log), digest))
    if found.header is None:
        return Redacted(erased=0)
    if {ctx.sender, me} != {found.header.sender, found.header.recipient} and not (
        ctx.sender == me and me in (found.header.sender, found.header.recipient)
    ):
        raise Denied("denied.redaction", CODES["denied.redaction"])
    if not await asyncio.to_thread(lambda: any(recorder.log.box(name) is not None for name in found.boxes)):
        return Redacted(erased=0)
    now = ctx._node.clock.now()
    recorder.redaction(found.header.body_commitment, authority=ctx.sender, reason=reason, now=now)
    await asyncio.to_thread(recorder.log.sync)
    return Redacted(erased=await asyncio.to_thread(lambda: sum(recorder.log.erase(name) for name in found.boxes)))


BUILT_IN: Final = {
    type_of(Redact): Handler(redact, Redact, Redacted, False, Rule((), False), 4, True),
}
"""What every agent answers besides its own handlers, by message type."""
