"""What the engine tells the runtime: one small value for each thing that happened."""

from __future__ import annotations

from typing import Any, NamedTuple

from agentbus.delegation.messages import Permitted, VerifiedMessage
from agentbus.errors import AgentBusError
from agentbus.protocol.exchange import Exchange
from agentbus.wire.header import Header


class Asked(NamedTuple):
    """A permitted message waits for its handler."""

    permitted: Permitted
    exchange: Exchange


class Answered(NamedTuple):
    """An exchange that this side opened moved: a reply, an error, an item, an end, a receipt or progress."""

    exchange: Exchange
    message: VerifiedMessage
    final: bool  # nothing follows; the exchange itself may have gone on since


class Steered(NamedTuple):
    """The caller cancelled, or gave credit."""

    exchange: Exchange
    message: VerifiedMessage


class Stray(NamedTuple):
    """A verified message that the exchange's table has no place for: late or repeated."""

    exchange: Exchange
    message: VerifiedMessage


class Ended(NamedTuple):
    """An exchange ended without an answer: expired or gone; or by the message that showed a gap in its stream."""

    exchange: Exchange
    reason: str
    message: VerifiedMessage | None = None


class Cut(NamedTuple):
    """The connection of an open exchange broke; it may go on over another one."""

    exchange: Exchange


class Refused(NamedTuple):
    """A frame was not accepted. ``header`` is set only where the signature had verified."""

    error: AgentBusError
    header: Header | None
    digest: bytes | None
    route: Any


Good = Asked | Answered | Steered | Stray | Ended
"""What came of a frame that was accepted."""
Event = Good | Refused
