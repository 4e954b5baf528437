"""A request that can be pasted: the command line that asks a handler, with a body that fits its type's JSON Schema."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from agentbus.runtime.agent import Agent, Handler
from agentbus.runtime.message import Request, StreamRequest

_BY_FORMAT: Final = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "duration": "PT1M",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "alice@example.org",
    "uri": "https://example.org/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "binary": "",
    "path": "file.txt",
}


def askable(agent: Agent[Any]) -> list[Handler]:
    """The handlers that ``agentbus request`` can ask, in the order they were written."""
    return [h for h in agent.handlers.values() if issubclass(h.model, Request | StreamRequest)]


def request_line(prefix: str, agent: Agent[Any], handler: Handler, options: Sequence[str]) -> str:
    """``agentbus request AGENT TYPE JSON …`` for a shell; a body that a validator refuses is marked for mending."""
    schema = handler.model.model_json_schema()
    body = sample(schema, schema.get("$defs", {}))
    try:
        handler.model.model_validate(body)
        note = ""
    except ValidationError:
        note = "  # adapt the JSON"
    text = json.dumps(body, ensure_ascii=False)
    more = ["--stream"] if handler.streams else []
    return f"{prefix} request {shlex.join([agent.name, handler.action, text, *options, *more])}{note}"


def sample(schema: Mapping[str, Any], defs: Mapping[str, Any], name: str = "text", depth: int = 0) -> Any:
    """A small value that fits ``schema``: required fields only; what the type itself suggests wins."""
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    if depth > 8:
        return None
    if "$ref" in schema:
        return sample(defs.get(schema["$ref"].rpartition("/")[2], {}), defs, name, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return sample(schema[key][0], defs, name, depth + 1)
    kind = schema.get("type")
    if kind == "object":
        fields, needed = schema.get("properties", {}), schema.get("required", ())
        return {field: sample(fields[field], defs, field, depth + 1) for field in fields if field in needed}
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})] * max(1, schema.get("minItems", 0))
        return [sample(item, defs, name, depth + 1) for item in items]
    if kind in ("integer", "number"):
        return _number(schema, kind == "integer")
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return _text(schema, name)


def _number(schema: Mapping[str, Any], whole: bool) -> int | float:
    """One step, else the smallest multiple of it within the bounds; halfway between them where there is none."""
    step = schema.get("multipleOf", 1)
    low, over = schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf)
    high, under = schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf)
    least, most = max(low, over), min(high, under)
    near = next((bound for bound in (least, most) if math.isfinite(bound)), step)
    first: float = math.ceil(near / step) * step
    tries: tuple[float, ...] = (step, first, first + step, first - step, (least + most) / 2)
    fitting = (value for value in tries if low <= value <= high and over < value < under)
    value = next(fitting, step)
    return int(value) if whole else value


def _text(schema: Mapping[str, Any], name: str) -> str:
    value = str(_BY_FORMAT.get(schema.get("format", ""), name))
    value = value.ljust(schema.get("minLength", 0), "x")
    longest: int = schema.get("maxLength", len(value))
    return value[:longest]
