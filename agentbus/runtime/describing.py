"""What an agent says of itself to the directory, read off its handlers."""

from __future__ import annotations

import inspect
import json
from typing import Any, Literal

from agentbus.runtime.agent import Agent, Handler
from agentbus.runtime.discovery import CLAIM_SIZE, SCHEMA_SIZE, TYPES, Describe, MessageClaim, Schema
from agentbus.runtime.message import adapter


def describe(agent: Agent[Any]) -> Describe:
    """What an agent says of itself: its handlers, what each requires, and the schemas of its messages.

    Args:
        agent: Whose handlers.

    Returns:
        The claim, within the bounds of discovery: schemas that do not fit are left out.
    """
    handlers = sorted(agent.handlers.values(), key=lambda h: h.action)[:TYPES]
    claims, left = [], CLAIM_SIZE // 2  # the other half is for what is not schemas
    for claim in map(_claim, handlers):
        size = len(json.dumps([claim.request, claim.answer]))
        claims.append(claim if size <= left else claim.without_schemas())
        left -= size if size <= left else 0
    return Describe(description=agent.description[:1024], messages=claims)


def _claim(handler: Handler) -> MessageClaim:
    kind: Literal["request", "stream", "send"] = "request"
    if handler.streams:
        kind = "stream"
    elif handler.answer is None:
        kind = "send"
    return MessageClaim(
        type=handler.action,
        kind=kind,
        description=(inspect.getdoc(handler.function) or inspect.cleandoc(handler.model.__doc__ or ""))[:512],
        scopes=list(handler.rule.scopes),
        requires_user=handler.rule.requires_user,
        request=_schema(handler.model, "validation"),
        answer=None if handler.answer is None else _schema(handler.answer, "serialization"),
    )


def _schema(of: Any, mode: Literal["validation", "serialization"]) -> Schema | None:
    """The JSON Schema of a type; None where it has none, or a larger one than discovery carries."""
    try:
        made: Schema = adapter(of).json_schema(mode=mode)
        return made if len(json.dumps(made)) <= SCHEMA_SIZE else None
    except Exception:  # pydantic raises what a custom type makes it raise; the agent serves all the same
        return None
