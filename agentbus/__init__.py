"""agentbus: cooperating agents whose every message is signed and carries the chain of authority behind it.

A public name is imported when it is first asked for (PEP 562), so ``import agentbus`` costs nothing that is not used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from agentbus.bus.base import Bus, Opening
    from agentbus.bus.local import LocalBus
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
    from agentbus.runtime.caller import Caller, Receipt, Session, Stream
    from agentbus.runtime.context import Context, current_context
    from agentbus.runtime.discovery import AgentCard, MessageType
    from agentbus.runtime.exchange import AccessToken
    from agentbus.runtime.grants import Explanation, GrantState
    from agentbus.runtime.message import Raw, RawStream, Request, StreamRequest
    from agentbus.wire.ids import PrincipalId

__all__ = [
    "AccessToken",
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
    "Explanation",
    "GrantState",
    "HandlerFailed",
    "HandlerMissing",
    "Identity",
    "KeyFileError",
    "Link",
    "LocalBus",
    "Malformed",
    "MessageType",
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

_HOMES: Final = {
    "bus.base": "Bus Opening",
    "bus.local": "LocalBus",
    "delegation.chain": "Authority",
    "delegation.grant": "Link",
    "delegation.scope": "AtMost Before OneOf Prefix Scope",
    "errors": "AgentBusError AgentGone AgentNotFound Backpressure Cancelled ConfigError DeadlineExceeded "
    "Denied DirectoryRefused HandlerFailed HandlerMissing KeyFileError Malformed Problem ProgrammingError Rejected "
    "ReplyInvalid RequestInvalid StreamBroken Unavailable",
    "identity": "Identity",
    "runtime.agent": "Agent",
    "runtime.caller": "Caller Receipt Session Stream",
    "runtime.context": "Context current_context",
    "runtime.discovery": "AgentCard MessageType",
    "runtime.exchange": "AccessToken",
    "runtime.grants": "Explanation GrantState",
    "runtime.message": "Raw RawStream Request StreamRequest",
    "wire.ids": "PrincipalId",
}
_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # so that a checker knows the names above and no others

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
