"""The messages that the directory answers as an agent: ordinary signed requests of people and agents."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from agentbus.runtime.message import Request, Strict


class Card(Strict):
    """What the directory says of one principal."""

    id: str
    state: str
    epoch: int
    owner: str
    purpose: str
    ceiling: list[str]
    may_talk_to: list[str]
    rights: list[str] | None
    tags: list[str]
    keys: list[str]
    nodes: list[str]
    running: int


class Cards(Strict):
    """Several principals."""

    agents: list[Card]


class Done(Strict):
    """It is in the directory's log."""

    seq: int


class Token(Strict):
    """A single-use enrolment token; it is shown once."""

    token: str
    expires: int


class Retired(Strict):
    """The directory's receipt of everything it ended: an evidence file that is verified offline."""

    receipt: dict[str, Any]


class CreatePrincipal(Request[Token]):
    """Create an agent, user or service, and a token to enrol it with. Its owner is who asks, or who is named."""

    name: str
    owner: str = ""
    purpose: str = ""
    ceiling: list[str] = Field(default_factory=list)
    may_talk_to: list[str] = Field(default_factory=list)
    rights: list[str] | Literal["all"] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)


class List(Request[Cards]):
    """Everybody of one kind."""

    kind: Literal["agent", "user", "service"] = "agent"


class Show(Request[Card]):
    """One principal."""

    name: str


class SetState(Request[Done]):
    """Suspend or resume a principal."""

    name: str
    state: Literal["active", "suspended"]


class NewToken(Request[Token]):
    """Another enrolment token for somebody who was created and has no key yet."""

    name: str


class LostKey(Request[Token]):
    """The key is lost: end the epoch, and give a token to enrol with new keys. For the owner or the operator."""

    name: str


class Taint(Request[Done]):
    """Say that keys are not what they should be: they verify on, sign nothing new, and must be rotated."""

    name: str
    key: str = ""


class Compromised(Request[Done]):
    """Say since when keys are in other hands; the epoch ends with it."""

    name: str
    since: int
    key: str = ""


class Retire(Request[Retired]):
    """End somebody for good, in good order."""

    name: str
    reason: str = Field(default="", max_length=256)


class Revoke(Request[Done]):
    """Revoke a grant, instance, key or principal, for good."""

    kind: Literal["grant", "instance", "key", "principal"]
    id: str
    reason: str = Field(max_length=256)
    chain: str = ""
