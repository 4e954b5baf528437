"""The agent that the failure tests kill, stop and start again."""

import asyncio
import time
from collections.abc import AsyncIterator

from pydantic import BaseModel

from agentbus import Agent, Context, Request, StreamRequest


class Done(BaseModel):
    n: int


class Work(Request[Done]):
    seconds: float = 0.0
    n: int = 0


class Count(StreamRequest[Done]):
    pass


class Hog(Request[Done]):
    """Hold the whole process."""

    seconds: float


class Poke(Request[Done]):
    """Ask somebody else, speaking for itself."""

    to: str


worker = Agent("worker")


@worker.handler
async def work(request: Work, ctx: Context) -> Done:
    await asyncio.sleep(request.seconds)
    return Done(n=request.n)


@worker.handler
async def count(request: Count, ctx: Context) -> AsyncIterator[Done]:
    yield Done(n=1)
    await asyncio.sleep(60)


@worker.handler
async def poke(request: Poke, ctx: Context) -> Done:
    return await ctx.bus.request(request.to, Work())


@worker.handler
async def hog(request: Hog, ctx: Context) -> Done:
    time.sleep(request.seconds)  # on purpose
    return Done(n=1)
