"""The messages of discovery: what an agent claims of itself, and who answers what."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from agentbus.runtime.message import Request


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Described(_Strict):
    """The claims are kept; they replace what this agent claimed before."""


class Describe(Request[Described]):
    """An agent's own claims about itself."""

    description: str = Field(default="", max_length=1024)
    messages: list[str] = Field(default_factory=list, max_length=256)
    scopes: list[str] = Field(default_factory=list, max_length=256)


class Found(_Strict):
    """One agent: what the directory knows of it, and what it claims."""

    id: str
    tags: list[str]
    running: int
    description: str
    messages: list[str]
    scopes: list[str]


class FoundAgents(_Strict):
    """The agents that fit, by id."""

    agents: list[Found]


class Discover(Request[FoundAgents]):
    """Agents by message type, required scope or tag."""

    message: str | None = None
    scope: str | None = None
    tag: str | None = None
