"""An agent's message types as Python source, from the JSON Schemas it claims: to be pasted, and to work.

Rule 1: a schema is a stranger's text. Names become identifiers or are left out, values are written by ``repr``; nothing
of a schema is ever written as code, and nothing of it stands in a comment.
Rule 2: what cannot be said in types becomes ``Any``: the agent checks what it is sent, whatever is said here.
"""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from agentbus.runtime.discovery import MessageType
from agentbus.runtime.message import Request

_IMPORTS: Final = """from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from agentbus import Request, StreamRequest
"""
_TAKEN: Final = frozenset(
    [*dir(builtins), *keyword.kwlist, *keyword.softkwlist, "date", "datetime", "time", "timedelta", "Annotated", "Any",
     "ClassVar", "Literal", "UUID", "BaseModel", "ConfigDict", "Field", "Request", "StreamRequest", "agentbus"]
)  # fmt: skip
_FORMATS: Final = {
    "date-time": "datetime", "date": "date", "time": "time", "duration": "timedelta", "uuid": "UUID", "binary": "bytes",
}  # fmt: skip
_SCALARS: Final = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_NUMBER: Final = {"minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt"}
_TEXT: Final = {"minLength": "min_length", "maxLength": "max_length"}
_ITEMS: Final = {"minItems": "min_length", "maxItems": "max_length"}
_BOUNDS: Final = {"int": _NUMBER, "float": _NUMBER, "str": _TEXT, "list": _ITEMS, "set": _ITEMS}
_DEPTH: Final = 16  # nested types; deeper ones are Any


def python_source(types: Sequence[MessageType], *, agent: str) -> str:
    """Classes for ``types`` that can be pasted into a program that asks ``agent``.

    Types without a schema are left out; :class:`~agentbus.Raw` asks for those.
    """
    writer = _Writer()
    for of in types:
        writer.message(of)
    rebuilt = [f"{name}.model_rebuild()" for name in writer.recursive]
    title = repr(f"Message types of {agent}, as it describes them itself.")
    return "\n\n".join(part for part in (title, _IMPORTS.rstrip(), *writer.classes, "\n".join(rebuilt)) if part) + "\n"


class _Writer:
    """Writes each class once, after those it needs."""

    def __init__(self) -> None:
        self.classes: list[str] = []
        self.recursive: list[str] = []
        self._named: dict[str, Any] = {}  # class name → the schema it was written from
        self._open: list[str] = []

    def message(self, of: MessageType) -> None:
        if not _is_object(of.request):
            return
        request: Mapping[str, Any] = of.request or {}
        base = "BaseModel"
        if of.kind != "send":
            answer = self._type(of.answer if of.answer is not None else {}, _defs(of.answer), 0)
            base = f"{'StreamRequest' if of.kind == 'stream' else 'Request'}[{answer}]"
        name = self._name(of.name, ("message", of.name))
        if name is None:
            return
        lines = [] if name == of.name else [f"message_type: ClassVar[str] = {of.name!r}"]
        self._class(name, base, request, _defs(request), lines)

    def _class(
        self, name: str, base: str, schema: Mapping[str, Any], defs: Mapping[str, Any], first: list[str]
    ) -> None:
        self._open.append(name)
        text = schema.get("description")
        lines = [repr(text)] if isinstance(text, str) else []
        config = ["protected_namespaces=()"]
        if base == "BaseModel" and schema.get("additionalProperties") is False:
            config.insert(0, 'extra="forbid"')
        required = schema.get("required")
        needed = {n for n in required if isinstance(n, str)} if isinstance(required, list) else set()
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        types = {key: self._type(value, defs, 1) for key, value in known.items()}
        taken = set(re.findall(r"\w+", " ".join(types.values()))) | {"Field", "ConfigDict"}
        fields = [self._field(key, value, types[key], key in needed, taken) for key, value in known.items()]
        if any("alias=" in field for field in fields):
            config += ["populate_by_name=True", "serialize_by_alias=True"]
        lines += [*first, f"model_config = ConfigDict({', '.join(config)})", *fields]
        self.classes.append(f"class {name}({base}):\n" + "\n".join(f"    {line}" for line in lines))
        self._open.pop()

    def _field(self, key: str, schema: Any, of: str, required: bool, taken: set[str]) -> str:
        """One field. Its name is no attribute of a model, and no word of a type: it would stand for it further down."""
        name = _identifier(key).lstrip("_") or "field"
        name = f"field_{name}" if name[0].isdigit() else name
        while name in taken or keyword.iskeyword(name) or hasattr(Request, name):
            name += "_"
        taken.add(name)
        arguments = [] if name == key else [f"alias={key!r}"]
        if not required:
            known = isinstance(schema, Mapping) and "default" in schema and _plain(schema["default"])
            default = schema["default"] if known else None
            base = of.removeprefix("Annotated[").partition("[")[0]
            if isinstance(default, list | dict):
                arguments.insert(0, f"default_factory=lambda: {default!r}")
            elif not known and base in ("list", "set", "dict"):
                arguments.insert(0, f"default_factory={base}")
            else:
                arguments.insert(0, f"default={default!r}")
                of = of if known else _union([of, "None"])
            if known and default is not None:
                arguments.append("validate_default=True")
        if set(re.findall(r"\w+", of)) & set(self._open):
            of = repr(of)  # it speaks of a class that is being written
        return f"{name}: {of}" + (f" = Field({', '.join(arguments)})" if arguments else "")

    # ── types ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _type(self, schema: Any, defs: Mapping[str, Any], depth: int) -> str:
        if not isinstance(schema, Mapping) or depth > _DEPTH:
            return "Any"
        if isinstance(schema.get("$ref"), str):
            return self._reference(schema["$ref"], defs, depth)
        if "const" in schema or isinstance(schema.get("enum"), list):
            return _literal(schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]])
        for several in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(several), list) and schema[several]:
                parts = schema[several][:1] if several == "allOf" else schema[several]
                return _union(self._type(part, defs, depth + 1) for part in parts)
        kind = schema.get("type")
        if isinstance(kind, list):
            return _union(self._type({**schema, "type": one}, defs, depth + 1) for one in kind)
        if kind == "array":
            return _bounded(self._array(schema, defs, depth), schema)
        if kind == "object":
            return self._object(schema, defs, depth)
        of = _SCALARS.get(kind, "Any") if isinstance(kind, str) else "Any"
        if of == "str":
            form = schema.get("format")
            of = _FORMATS.get(form, "str") if isinstance(form, str) else "str"
        return _bounded(of, schema)

    def _reference(self, path: str, defs: Mapping[str, Any], depth: int) -> str:
        key = path.removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")
        target = defs.get(key)
        if not path.startswith("#/$defs/") or not isinstance(target, Mapping):
            return "Any"
        if not _is_object(target):
            return self._type(target, defs, depth + 1)
        return self._model(key, target, defs)

    def _model(self, key: str, target: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
        name = self._name(key, target)
        if name is not None:
            self._class(name, "BaseModel", target, defs, [])
            return name
        name = next(n for n, known in self._named.items() if known == target and _stem(n) == _stem(_class_name(key)))
        if name in self._open and name not in self.recursive:
            self.recursive.append(name)
        return name

    def _object(self, schema: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> str:
        if isinstance(schema.get("properties"), Mapping):
            title = schema.get("title")
            return self._model(title if isinstance(title, str) else "Part", schema, defs)
        values = schema.get("additionalProperties")
        return f"dict[str, {self._type(values, defs, depth + 1) if isinstance(values, Mapping) else 'Any'}]"

    def _array(self, schema: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> str:
        fixed = schema.get("prefixItems")
        if isinstance(fixed, list) and fixed:
            return f"tuple[{', '.join(self._type(item, defs, depth + 1) for item in fixed)}]"
        item = self._type(schema.get("items"), defs, depth + 1)
        return f"set[{item}]" if schema.get("uniqueItems") is True and item in _SCALARS.values() else f"list[{item}]"

    def _name(self, wanted: str, schema: Any) -> str | None:
        """A free name for this schema's class; None where the class was written already."""
        name = stem = _class_name(wanted)
        number = 1
        while name in self._named:
            if self._named[name] == schema:
                return None
            number += 1
            name = f"{stem}{number}"
        self._named[name] = schema
        return name


def _is_object(schema: Any) -> bool:
    return (
        isinstance(schema, Mapping)
        and schema.get("type") == "object"
        and (isinstance(schema.get("properties"), Mapping) or schema.get("additionalProperties") in (None, False))
    )


def _defs(schema: Any) -> Mapping[str, Any]:
    found = schema.get("$defs") if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _identifier(text: str) -> str:
    """``text`` as an ASCII identifier, or as near as it gets."""
    made = re.sub(r"[^A-Za-z0-9_]", "_", text)[:64]
    return f"_{made}" if not made or made[0].isdigit() else made


def _class_name(text: str) -> str:
    name = _identifier(text).lstrip("_") or "Part"
    name = f"T{name}" if name[0].isdigit() else name
    return f"{name}_" if name in _TAKEN or hasattr(Request, name) else name


def _stem(name: str) -> str:
    return name.rstrip("0123456789")


def _literal(values: Sequence[Any]) -> str:
    if not values or any(value is not None and type(value) not in (str, int, bool) for value in values):
        return "Any"
    return f"Literal[{', '.join(map(repr, values))}]"


def _union(parts: Iterable[str]) -> str:
    found = list(dict.fromkeys(part for text in parts for part in _members(text)))
    return "Any" if "Any" in found or not found else " | ".join(found)


def _members(text: str) -> list[str]:
    return [text.removesuffix(" | None"), "None"] if text.endswith(" | None") else [text]


def _bounded(of: str, schema: Mapping[str, Any]) -> str:
    base = of.partition("[")[0]
    bounds = []
    for name, argument in _BOUNDS.get(base, {}).items():
        value = schema.get(name)
        whole = type(value) is int and abs(value) < 1 << 63 and (base in ("int", "float") or value >= 0)
        if whole or (base == "float" and type(value) is float and math.isfinite(value)):
            bounds.append(f"{argument}={value!r}")
    return f"Annotated[{of}, Field({', '.join(bounds)})]" if bounds else of


def _plain(value: Any) -> bool:
    """Whether ``repr`` of a JSON value is that value in Python."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) for k in value) and all(map(_plain, value.values()))
    return value is None or isinstance(value, str | int)
