"""The body of a request to try fits the type it was made for."""

from __future__ import annotations

import json
import shlex
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model, field_validator

from agentbus import Agent, Context, Request
from agentbus.cli.dev.sample import askable, request_line, sample


class Colour(Enum):
    RED = "red"


class Inner(BaseModel):
    size: Annotated[int, Field(ge=3)]
    colour: Colour


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


FIELDS: dict[str, Any] = {
    "text": str,
    "short text": Annotated[str, Field(max_length=2)],
    "long text": Annotated[str, Field(min_length=12)],
    "whole": int,
    "even": Annotated[int, Field(multiple_of=2, gt=10)],
    "negative": Annotated[int, Field(lt=0)],
    "fraction": Annotated[float, Field(gt=0, lt=1)],
    "rate": Annotated[float, Field(ge=0.5, le=0.75)],
    "yes or no": bool,
    "list": list[str],
    "three": Annotated[list[int], Field(min_length=3)],
    "pair": tuple[int, str],
    "mapping": dict[str, int],
    "choice": Literal["a", "b"],
    "either": int | str,
    "maybe": str | None,
    "nested": Inner,
    "recursive": Tree,
    "moment": datetime,
    "day": date,
    "span": timedelta,
    "id": UUID,
    "example": Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["ABC"])],
    "default": (int, 7),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_sample_fits_its_type(name: str) -> None:
    field = FIELDS[name] if isinstance(FIELDS[name], tuple) else (FIELDS[name], ...)
    model = create_model("Message", value=field)
    schema = model.model_json_schema()
    body = json.loads(json.dumps(sample(schema, schema.get("$defs", {}))))
    model.model_validate_json(json.dumps(body))


@given(st.integers(-50, 50), st.integers(0, 50), st.integers(1, 7))
def test_a_number_lies_within_its_bounds(low: int, width: int, step: int) -> None:
    high = low + width + step
    model = create_model("Message", value=(Annotated[int, Field(ge=low, le=high, multiple_of=step)], ...))
    model.model_validate(sample(model.model_json_schema(), {}))


class Done(BaseModel):
    pass


class Work(Request[Done]):
    what: str
    often: int = 1


class Odd(Request[Done]):
    what: str

    @field_validator("what")
    @classmethod
    def check(cls, value: str) -> str:
        if value != "it's":
            raise ValueError("something nobody guesses")
        return value


class Note(BaseModel):
    text: str


def test_a_line_survives_a_shell_and_says_when_its_body_is_a_guess() -> None:
    worker = Agent("worker")

    @worker.handler
    async def work(request: Work, ctx: Context) -> Done:
        return Done()

    @worker.handler
    async def odd(request: Odd, ctx: Context) -> Done:
        return Done()

    @worker.handler
    async def note(request: Note, ctx: Context) -> None:
        return None

    first, second = askable(worker)  # a plain message is sent, not asked
    line = request_line("agentbus", worker, first, ["--as", "user/alice"])
    assert shlex.split(line) == ["agentbus", "request", "worker", "Work", '{"what": "what"}', "--as", "user/alice"]
    assert request_line("agentbus", worker, second, []).endswith("  # adapt the JSON")
