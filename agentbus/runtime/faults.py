"""Errors on the record: enough to raise the same one again, and nothing that runs when it is read.

An error of agentbus is its code, message and details. Any other is its class's name and its text; read back, it is the
class of that name if this process has loaded it, made without its constructor. Nothing is imported because of a log.
"""

from __future__ import annotations

import json
from typing import Any

from agentbus.errors import AgentBusError, from_code


def encode_fault(error: Exception) -> bytes:
    """An error as it is kept."""
    if isinstance(error, AgentBusError):
        fields: dict[str, Any] = {
            "code": error.code, "message": error.message, "retryable": error.retryable, "details": error.details,
        }  # fmt: skip
    else:
        cls = type(error)
        fields = {"class": f"{cls.__module__}.{cls.__qualname__}", "text": str(error)[:4096]}
    return json.dumps(fields, separators=(",", ":"), default=str).encode()


def decode_fault(data: bytes) -> Exception:
    """The error that was kept, as far as this process has its class; else a RuntimeError that names it."""
    try:
        fields: dict[str, Any] = json.loads(data)
        return _made(fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return RuntimeError("an error that cannot be read")


def _made(fields: dict[str, Any]) -> Exception:
    if "code" in fields:
        return from_code(fields["code"], fields["message"], retryable=fields["retryable"], details=fields["details"])
    cls = _loaded(fields["class"])
    if cls is None:
        return RuntimeError(f"{fields['class']}: {fields['text']}")
    try:
        error = cls.__new__(cls, fields["text"])  # not __init__: its arguments are the application's
    except TypeError:
        return RuntimeError(f"{fields['class']}: {fields['text']}")
    error.args = (fields["text"],)
    return error


def _loaded(name: str) -> type[Exception] | None:
    """The exception class of this full name, among those that are loaded."""
    todo: list[type[Exception]] = [Exception]
    seen: set[type] = set()
    while todo:
        cls = todo.pop()
        if cls in seen:
            continue
        seen.add(cls)
        if f"{cls.__module__}.{cls.__qualname__}" == name:
            return cls
        todo += cls.__subclasses__()
    return None
