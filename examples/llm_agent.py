"""A streaming LLM agent that answers on behalf of a user, from notes that only the user may open.

Any server that speaks OpenAI's chat completions will do, your own as well as somebody's::

    OPENAI_BASE_URL=http://localhost:11434/v1 OPENAI_MODEL=llama3.2 python llm_agent.py "What is due today?"
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from pydantic import BaseModel

from agentbus import Agent, Bus, Caller, Context, Problem, Request, StreamRequest

NOTES = {"alice": "Monday: water the ferns. Tuesday: call Bo.", "bob": "Nothing this week."}


class Notes(BaseModel):
    text: str


class ReadNotes(Request[Notes]):
    pass


class Token(BaseModel):
    text: str


class Chat(StreamRequest[Token]):
    question: str


class ModelUnavailable(Problem):
    code = "assistant.model_unavailable"


@asynccontextmanager
async def connection(bus: Caller) -> AsyncIterator[httpx2.AsyncClient]:
    """Lives as long as the agent is served: handlers see it as ``ctx.state``."""
    key = os.environ.get("OPENAI_API_KEY", "none")
    base = os.environ.get("OPENAI_BASE_URL", "http://localhost:11434/v1")
    async with httpx2.AsyncClient(base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        yield client


notebook = Agent("notebook", description="Keeps everybody's notes, and shows each of them to their owner only")
assistant = Agent("assistant", description="Answers from your notes, with a language model", lifespan=connection)


@notebook.handler(scopes=["notes:read"], requires_user=True)
async def read_notes(request: ReadNotes, ctx: Context) -> Notes:
    return Notes(text=NOTES.get(ctx.require_user().name, ""))  # whose, no message can say: it stands in the chain


@assistant.handler(requires_user=True)
async def chat(request: Chat, ctx: Context[httpx2.AsyncClient]) -> AsyncIterator[Token]:
    notes = await ctx.request("notebook", ReadNotes())
    messages = [{"role": "system", "content": notes.text}, {"role": "user", "content": request.question}]
    async for text in ctx.steps("model", lambda: complete(ctx.state, messages), type=str):  # on the record
        yield Token(text=text)


async def complete(client: httpx2.AsyncClient, messages: list[dict[str, str]]) -> AsyncIterator[str]:
    """The model's answer, piece by piece."""
    body = {"model": os.environ.get("OPENAI_MODEL", "llama3.2"), "messages": messages, "stream": True}
    try:
        async with client.stream("POST", "chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    choices = json.loads(line.removeprefix("data: "))["choices"]
                    yield (choices[0]["delta"].get("content") or "") if choices else ""
    except httpx2.HTTPError as error:
        raise ModelUnavailable(f"the model at {client.base_url} did not answer") from error


async def main(question: str) -> None:
    async with Bus.local() as bus, bus.serve(notebook, assistant):
        alice = bus.user("alice", scopes=["notes:read"])
        async with alice.stream("assistant", Chat(question=question), delegate=["notes:read"]) as tokens:
            async for token in tokens:
                print(token.text, end="", flush=True)
    print()


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "What is due today?"))
