"""Two agents and a user: who asks whom, on whose behalf, with what.

In one process: ``python hello.py``. With a directory, keys and ZeroMQ: ``agentbus dev hello.py``.
"""

import asyncio

from pydantic import BaseModel

from agentbus import Agent, Bus, Context, Request


class Summary(BaseModel):
    text: str


class Summarize(Request[Summary]):
    text: str


class Answer(BaseModel):
    text: str


class Ask(Request[Answer]):
    question: str


summarizer = Agent("summarizer", description="Shortens text")
planner = Agent("planner", description="Answers questions")


@summarizer.handler(scopes=["docs:read"])  # who may ask this of me
async def summarize(request: Summarize, ctx: Context) -> Summary:
    return Summary(text=request.text[:40])


@planner.handler  # requires no scope: anyone of this trust domain
async def answer(request: Ask, ctx: Context) -> Answer:
    summary = await ctx.request("summarizer", Summarize(text=request.question * 9))
    return Answer(text=f"{ctx.user} asked: {summary.text}")


async def main() -> None:
    async with Bus.local() as bus, bus.serve(planner, summarizer):  # inside: registered and reachable
        alice = bus.user("alice", scopes=["docs:read"])  # local bus only: a user, her key, a root grant
        print((await alice.request("planner", Ask(question="why?"), delegate=["docs:read"])).text)


if __name__ == "__main__":
    asyncio.run(main())
