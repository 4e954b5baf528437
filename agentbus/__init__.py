"""agentbus: cooperating agents whose every message is signed and carries the chain of authority behind it."""

from agentbus.bus import Bus, LocalBus, Opening
from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import Link
from agentbus.delegation.scope import AtMost, Before, OneOf, Prefix, Scope
from agentbus.errors import (
    AgentBusError,
    AgentGone,
    AgentNotFound,
    Backpressure,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    Denied,
    DirectoryRefused,
    HandlerFailed,
    HandlerMissing,
    KeyFileError,
    Malformed,
    Problem,
    ProgrammingError,
    Rejected,
    ReplyInvalid,
    RequestInvalid,
    StreamBroken,
    Unavailable,
)
from agentbus.identity import Identity
from agentbus.runtime.agent import Agent
from agentbus.runtime.caller import AgentCard, Caller, Receipt, Session, Stream
from agentbus.runtime.context import Context, current_context
from agentbus.runtime.message import Raw, RawStream, Request, StreamRequest
from agentbus.wire.ids import PrincipalId

__all__ = [
    "Agent",
    "AgentBusError",
    "AgentCard",
    "AgentGone",
    "AgentNotFound",
    "AtMost",
    "Authority",
    "Backpressure",
    "Before",
    "Bus",
    "Caller",
    "Cancelled",
    "ConfigError",
    "Context",
    "DeadlineExceeded",
    "Denied",
    "DirectoryRefused",
    "HandlerFailed",
    "HandlerMissing",
    "Identity",
    "KeyFileError",
    "Link",
    "LocalBus",
    "Malformed",
    "OneOf",
    "Opening",
    "Prefix",
    "PrincipalId",
    "Problem",
    "ProgrammingError",
    "Raw",
    "RawStream",
    "Receipt",
    "Rejected",
    "ReplyInvalid",
    "Request",
    "RequestInvalid",
    "Scope",
    "Session",
    "Stream",
    "StreamBroken",
    "StreamRequest",
    "Unavailable",
    "current_context",
]
