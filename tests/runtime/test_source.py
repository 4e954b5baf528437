"""Message types printed as Python source: pasted, they work; and a stranger's schema is never more than data."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from enum import Enum
from types import ModuleType
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from agentbus import Agent, Bus, Context, MessageType, Request, StreamRequest
from agentbus.runtime.describing import describe
from agentbus.runtime.source import python_source


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    """One line of an order."""

    model_config = ConfigDict(extra="forbid")
    article: str = Field(min_length=1, max_length=20)
    count: Annotated[int, Field(ge=1, le=99)] = 1
    colours: set[str] = set()
    made: date | None = None


class Node(BaseModel):
    name: str
    children: list[Node] = []
    parent: Node | None = None


class Receipt(BaseModel):
    id: UUID
    at: datetime
    total: float
    lines: list[Line]
    tree: Node


class Order(Request[Receipt]):
    """Orders things."""

    lines: list[Line]
    colour: Colour = Colour.RED
    speed: Literal["slow", "fast"] = "slow"
    where: dict[str, tuple[float, float]] = Field(default_factory=dict)
    within: timedelta = timedelta(hours=1)
    note: str | int | None = None
    date: date
    json_: dict[str, Any] = Field(default_factory=dict, alias="json")
    tags: list[str] = ["new"]  # noqa: RUF012 - so that the default stands in the schema


class Watch(StreamRequest[int]):
    message_type = "shop.watch"
    to: int


class Hint(BaseModel):
    """Takes no answer."""

    text: str


shop = Agent("shop")


@shop.handler
async def order(request: Order, ctx: Context) -> Receipt:
    lines = [line.model_copy(update={"count": line.count + 1}) for line in request.lines]
    tree = Node(name="root", children=[Node(name="leaf")])
    return Receipt(id=UUID(int=7), at=datetime(2026, 1, 1), total=len(lines), lines=lines, tree=tree)


@shop.handler
async def watch(request: Watch, ctx: Context) -> AsyncIterator[int]:
    for n in range(request.to):
        yield n


@shop.handler
async def hint(request: Hint, ctx: Context) -> None:
    pass


def run(source: str) -> dict[str, Any]:
    """What the source defines, as if it had been pasted into a module."""
    module = ModuleType("pasted")
    sys.modules["pasted"] = module
    try:
        exec(compile(source, "pasted", "exec"), module.__dict__)
    finally:
        del sys.modules["pasted"]
    return vars(module)


async def test_what_is_printed_works_when_it_is_pasted() -> None:
    async with Bus.local() as bus, bus.serve(shop):
        (card,) = await bus.discover(message="Order", schemas=True)
        source = python_source(card.types, agent="shop")
        made = run(source)
        line = made["Line"](article="pen", count=2)
        receipt = await bus.request("shop", made["Order"](lines=[line], date=date(2026, 1, 2), json={"a": 1}))
        assert type(receipt).__name__ == "Receipt" and receipt.lines[0].count == 3 and receipt.id == UUID(int=7)
        assert receipt.tree.children[0].name == "leaf" and receipt.at == datetime(2026, 1, 1)
        async with bus.stream("shop", made["shop_watch"](to=3)) as items:
            assert [item async for item in items] == [0, 1, 2]
        await bus.send("shop", made["Hint"](text="x"), ack="handled")
        for wrong in ({"article": ""}, {"article": "x" * 21}, {"count": 0}, {"count": 100}, {"unknown": 1}):
            with pytest.raises(ValueError):
                made["Line"](**{"article": "pen", **wrong})
        assert made["Order"](lines=[], date="2026-01-02").tags == ["new"]
        assert "Orders things." in source and "import agentbus" not in source


def test_a_type_without_a_schema_is_left_out() -> None:
    assert "class" not in python_source([MessageType("A", "request", "", (), False)], agent="x")


def one(request: Any, answer: Any = None, *, name: str = "Ask", kind: Any = "request", agent: str = "shop") -> str:
    return python_source([MessageType(name, kind, "", (), False, request, answer)], agent=agent)


EVIL = [
    "__import__('os').system('touch /tmp/owned')", "x]\nimport os\n", "a\nb", "'" * 3, '"' * 3, "\\", "{0}", "class",
    "None", "str", "Field", "x = 1 #", "\u202e", "ℌ", "", " ", "0", "__class__", "model_config", "message_type", "mro",
]  # fmt: skip


@pytest.mark.parametrize("evil", EVIL)
def test_a_strangers_words_are_data(evil: str) -> None:
    """Everywhere a text can stand in a schema."""
    part = {"type": "object", "title": evil, "description": evil, "properties": {evil: {"type": "string"}}}
    request = {
        "type": "object", "title": evil, "description": evil, "required": [evil],
        "properties": {
            evil: {"type": "string", "default": evil, "description": evil, "pattern": evil, "format": evil},
            "ref": {"$ref": f"#/$defs/{evil}"}, "literal": {"enum": [evil]}, "const": {"const": evil},
            "kind": {"type": evil}, "inline": part, "default": {"default": {evil: [evil]}}, "odd": {"$ref": evil},
            "bound": {"type": "string", "minLength": evil, "maxLength": True},
        },
        "$defs": {evil: part},
    }  # fmt: skip
    source = one(request, {"$ref": f"#/$defs/{evil}", "$defs": {evil: part}}, name=evil, agent=evil)
    assert_harmless(source)
    run(source)


def assert_harmless(source: str) -> None:
    """Nothing is called but what makes models, nothing is imported but what types need, nothing moves a cursor."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assert all(name in ("Field", "ConfigDict") or name.endswith(".model_rebuild") for name in called), called
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported == {"datetime", "typing", "uuid", "pydantic", "agentbus"}
    assert not any(isinstance(node, ast.Import | ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes)
    assert {node.attr for node in nodes if isinstance(node, ast.Attribute)} <= {"model_rebuild"}
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", source)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.sampled_from(EVIL),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "properties", "items", "$ref", "$defs", "anyOf", "allOf", "enum", "const", "default", "required",
             "additionalProperties", "prefixItems", "minLength", "maximum", "format", "title", "A", "B"]
        ),
        inner,
        max_size=6,
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(properties=st.dictionaries(st.sampled_from([*EVIL, "A", "B", "date"]), JSON, max_size=4), defs=JSON, answer=JSON)
def test_whatever_a_schema_says_the_source_is_harmless(properties: Any, defs: Any, answer: Any) -> None:
    assert_harmless(one({"type": "object", "properties": properties, "$defs": defs}, answer))


SANE = st.recursive(
    st.sampled_from(
        [{"type": "string"}, {"type": "integer", "minimum": 1}, {"type": "number"}, {"type": "boolean"},
         {"type": "null"}, {"enum": ["a", "b"]}, {"const": 1}, {"type": "string", "format": "date"}, {},
         {"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}, {"type": "string", "format": "uuid"},
         {"type": "string", "maxLength": 3, "default": "x"}]
    ),
    lambda inner: st.builds(lambda i: {"type": "array", "items": i}, inner)
    | st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner)
    | st.builds(lambda a, b: {"type": "object", "properties": {"x": a, "str": b}, "required": ["x"]}, inner, inner)
    | st.builds(lambda a: {"type": "object", "additionalProperties": a}, inner),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(first=SANE, second=SANE, third=SANE)
def test_ordinary_schemas_give_classes_that_can_be_made(first: Any, second: Any, third: Any) -> None:
    again = {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}
    day = {"type": "string", "format": "date"}
    defs = {
        "A": {"type": "object", "properties": {"next": again, "of": third}},
        "B": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}, "date": day}},
    }
    request = {"type": "object", "properties": {"int": first, "b": second}, "$defs": defs}
    made = run(one(request, {**second, "$defs": defs}))
    made["Ask"].model_json_schema()
    made["Ask"].model_construct()


def test_every_type_of_this_shop_has_its_source() -> None:
    claims = describe(shop).messages
    types = [MessageType(c.type, c.kind, "", (), False, c.request, c.answer) for c in claims]
    assert {t.name for t in types} == {"Order", "shop.watch", "Hint"}
    made = run(python_source(types, agent="shop"))
    assert made["shop_watch"].message_type == "shop.watch"
    assert made["Node"].model_fields.keys() >= {"children", "parent"}
