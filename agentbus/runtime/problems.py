"""Errors on the wire: code, message and details as JSON; never a class, a body or a traceback."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from agentbus.errors import AgentBusError, HandlerFailed, from_code

_CODE: Final = re.compile(r"(?=.{1,128}\Z)[a-z0-9_]+(\.[a-z0-9_]+)*")


def encode(error: AgentBusError) -> bytes:
    """The body of an error envelope."""
    whole = {"code": error.code, "message": error.message, "retryable": error.retryable, "details": error.details}
    try:
        body = json.dumps(whole, separators=(",", ":"), default=str).encode()
    except (ValueError, TypeError):
        body = b""
    if not 0 < len(body) <= 65_536:
        whole["details"] = {}
        whole["message"] = error.message[:1024]
        body = json.dumps(whole, separators=(",", ":")).encode()
    return body


def code_of(body: bytes) -> str:
    """The code in a body, for the record, which keeps no text of a peer's; ``handler.failed`` where it is none."""
    try:
        code = json.loads(body)["code"]
    except (ValueError, TypeError, LookupError, RecursionError):
        code = None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else "handler.failed"


def decode(body: bytes, by: str) -> AgentBusError:
    """The error in a body, as the class this process has for its code. ``details["by"]`` names who sent it."""
    try:
        data: Any = json.loads(body)
        code, message, details = data["code"], data["message"], data["details"]
        retryable = data["retryable"] is True
        if not (isinstance(code, str) and isinstance(message, str) and isinstance(details, dict)):
            raise TypeError
        error = from_code(code[:128], message[:4096], retryable=retryable, details=details)
    except Exception:  # the bytes are a peer's and the class may be an application's: whatever they raise ends here
        return HandlerFailed("handler.failed", f"{by} answered with an error that cannot be read")
    error.details["by"] = by
    return error
