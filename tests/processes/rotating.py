"""The agent whose key is rotated while it serves."""

from pydantic import BaseModel

from agentbus import Agent, Context, Request


class Number(BaseModel):
    n: int


class Next(Request[Number]):
    n: int


class Relay(Request[Number]):
    n: int


adder = Agent("adder")
relay = Agent("relay")


@adder.handler(scopes=["sum"])
async def add(request: Next, ctx: Context) -> Number:
    return Number(n=request.n + 1)


@relay.handler
async def pass_on(request: Relay, ctx: Context) -> Number:
    return await ctx.request("adder", Next(n=request.n))
