"""The messages of discovery: what an agent claims of itself, and who answers what."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from agentbus.runtime.message import Request, Strict
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import SECOND

SCHEMA_SIZE: Final = 16 * 1024  # characters of JSON of one schema; a frame holds a megabyte, and an answer many schemas
CLAIM_SIZE: Final = 128 * 1024  # characters of JSON of all that one agent claims
TYPES: Final = 128  # message types of one agent

Schema = dict[str, Any]


class MessageClaim(Strict):
    """One message type that an agent says it answers, and what it says it requires."""

    type: str = Field(max_length=128)
    kind: Literal["request", "stream", "send"] = "request"
    description: str = Field(default="", max_length=512)
    scopes: list[str] = Field(default_factory=list, max_length=64)
    requires_user: bool = False
    request: Schema | None = None  # JSON Schema (2020-12) of the message; None: too large, or it has none
    answer: Schema | None = None  # of the reply or of each item

    @field_validator("request", "answer")
    @classmethod
    def _bounded(cls, schema: Schema | None) -> Schema | None:
        if schema is not None and len(json.dumps(schema)) > SCHEMA_SIZE:
            raise ValueError(f"a schema has at most {SCHEMA_SIZE} characters")
        return schema

    def without_schemas(self) -> MessageClaim:
        """The same claim, shorter."""
        return self.model_copy(update={"request": None, "answer": None})


class Described(Strict):
    """The claims are kept; they replace what this agent claimed before."""


class Describe(Request[Described]):
    """An agent's own claims about itself."""

    description: str = Field(default="", max_length=1024)
    messages: list[MessageClaim] = Field(default_factory=list, max_length=TYPES)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.model_dump_json()) > CLAIM_SIZE:
            raise ValueError(f"what an agent claims of itself has at most {CLAIM_SIZE} characters")
        return self


class Found(Strict):
    """One agent: what the directory knows of it, and what it claims."""

    id: str
    state: str
    owner: str
    purpose: str
    tags: list[str]
    ceiling: list[str]
    running: int  # instances that the directory hears now
    description: str
    messages: list[MessageClaim]
    claimed_at: int | None  # microseconds; None: it never described itself


class FoundAgents(Strict):
    """The agents that fit, by id."""

    agents: list[Found]
    more: bool = False  # others fit as well: ask more narrowly


class Discover(Request[FoundAgents]):
    """Agents that fit everything that is given."""

    name: str | None = Field(default=None, max_length=2048)
    message: str | None = Field(default=None, max_length=128)
    scope: str | None = Field(default=None, max_length=256)
    tag: str | None = Field(default=None, max_length=256)
    text: str | None = Field(default=None, max_length=256)
    schemas: bool = False  # with their JSON Schemas


@dataclass(frozen=True, slots=True)
class MessageType:
    """A message type that an agent claims to answer."""

    name: str
    kind: Literal["request", "stream", "send"]
    description: str
    scopes: tuple[str, ...]  # what its handler requires of the asker's whole chain
    requires_user: bool
    request: Schema | None = field(default=None, repr=False, hash=False)  # JSON Schema; None: not asked for, or none
    answer: Schema | None = field(default=None, repr=False, hash=False)


@dataclass(frozen=True, slots=True)
class AgentCard:
    """What the directory knows of an agent, and (description, types) what the agent claims of itself."""

    id: PrincipalId
    description: str
    types: tuple[MessageType, ...]
    tags: tuple[str, ...]
    running: int  # instances that the directory hears now; 0: asking it will fail
    state: str
    owner: str
    purpose: str
    ceiling: tuple[str, ...]
    described: datetime | None  # when it last described itself; None: never

    @property
    def messages(self) -> tuple[str, ...]:
        """The names of its message types."""
        return tuple(of.name for of in self.types)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Every scope that one of its handlers requires."""
        return tuple(sorted({scope for of in self.types for scope in of.scopes}))


def card_of(found: Found) -> AgentCard:
    """What was found, as users see it."""
    types = [
        MessageType(m.type, m.kind, m.description, tuple(m.scopes), m.requires_user, m.request, m.answer)
        for m in found.messages
    ]
    described = None if found.claimed_at is None else datetime.fromtimestamp(found.claimed_at / SECOND, UTC)
    return AgentCard(
        PrincipalId(found.id), found.description, tuple(types), tuple(found.tags), found.running, found.state,
        found.owner, found.purpose, tuple(found.ceiling), described,
    )  # fmt: skip
