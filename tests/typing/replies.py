"""What the type checkers have to infer: a message names its reply. Both read this file; nothing runs it.

Every ``ignore`` below stands where a checker must complain; where it no longer does, the unused comment is an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel

from agentbus import Agent, Bus, Context, PrincipalId, Request, Stream, StreamRequest


class Summary(BaseModel):
    text: str


class Summarize(Request[Summary]):
    text: str


class Word(BaseModel):
    text: str


class Write(StreamRequest[Word]):
    about: str


async def a_reply_has_the_type_its_request_names(bus: Bus, ctx: Context) -> None:
    assert_type(await bus.request("summarizer", Summarize(text="a")), Summary)
    assert_type(await ctx.request("summarizer", Summarize(text="a"), timeout=3), Summary)
    wrong: Word = await bus.request("summarizer", Summarize(text="a"))  # type: ignore[arg-type]
    print(wrong)


async def who_requires_a_user_has_one(ctx: Context) -> None:
    assert_type(ctx.user, PrincipalId | None)
    assert_type(ctx.require_user(), PrincipalId)


async def an_item_has_the_type_its_stream_names(bus: Bus) -> None:
    stream = bus.stream("writer", Write(about="the sea"))
    assert_type(stream, Stream[Word])
    async with stream as items:
        async for item in items:
            assert_type(item, Word)


async def connecting_gives_a_bus() -> None:
    async with Bus.connect() as bus:
        assert_type(bus, Bus)
    assert_type(await Bus.connect(), Bus)


agent = Agent("summarizer")


@agent.handler(scopes=["docs:read"])
async def summarize(request: Summarize, ctx: Context) -> Summary:
    return Summary(text=request.text)


async def a_handler_stays_what_it_was(ctx: Context) -> None:
    assert_type(await summarize(Summarize(text="a"), ctx), Summary)
