"""The agents of the deployment tests, each on a host of its own."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from agentbus import Agent, Context, Request


class Done(BaseModel):
    by: str


class Work(Request[Done]):
    seconds: float = 0.0


def working(name: str) -> Agent[None]:
    """An agent that takes its time."""
    agent: Agent[None] = Agent(name)

    @agent.handler
    async def work(request: Work, ctx: Context[None]) -> Done:
        await asyncio.sleep(request.seconds)
        return Done(by=name)

    return agent


worker, helper, mole = working("worker"), working("helper"), working("mole")
