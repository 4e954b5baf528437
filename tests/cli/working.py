"""An agent with a handler for everything that can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel

from agentbus import Agent, Context, Problem, Request, StreamRequest


class Done(BaseModel):
    n: int


class Work(Request[Done]):
    n: int = 0


class Slow(Request[Done]):
    pass


class Read(Request[Done]):
    pass


class Write(Request[Done]):
    pass


class Onward(Request[Done]):
    pass


class Personal(Request[Done]):
    pass


class Fail(Request[Done]):
    pass


class Odd(Request[Done]):
    pass


class Buy(Request[Done]):
    pass


class Count(StreamRequest[Done]):
    to: int


class Note(BaseModel):
    text: str


class OutOfStock(Problem):
    code = "shop.out_of_stock"


worker = Agent("worker")


@worker.handler
async def work(request: Work, ctx: Context) -> Done:
    return Done(n=request.n)


@worker.handler
async def slow(request: Slow, ctx: Context) -> Done:
    await asyncio.Event().wait()
    return Done(n=0)


@worker.handler(scopes=["docs:read"])
async def read(request: Read, ctx: Context) -> Done:
    return Done(n=0)


@worker.handler(scopes=["docs:write"])
async def write(request: Write, ctx: Context) -> Done:
    return Done(n=0)


@worker.handler
async def onward(request: Onward, ctx: Context) -> Done:
    return await ctx.request("worker", Read())


@worker.handler(requires_user=True)
async def personal(request: Personal, ctx: Context) -> Done:
    return Done(n=0)


@worker.handler
async def fail(request: Fail, ctx: Context) -> Done:
    raise RuntimeError("a text that nobody else may see")


@worker.handler
async def odd(request: Odd, ctx: Context) -> Done:
    return "nothing"  # type: ignore[return-value]


@worker.handler
async def buy(request: Buy, ctx: Context) -> Done:
    raise OutOfStock("there are no more ferns")


@worker.handler
async def count(request: Count, ctx: Context) -> AsyncIterator[Done]:
    for n in range(request.to):
        yield Done(n=n)


@worker.handler
async def note(request: Note, ctx: Context) -> None:
    return None
