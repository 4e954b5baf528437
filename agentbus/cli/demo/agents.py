"""The demo's three agents, as a user would write them: public names only.

planner answers a question by asking librarian for passages and summarizer for the text; summarizer reads the passages
itself, with what planner handed over. Nobody but librarian touches the corpus.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import BaseModel

from agentbus import Agent, Caller, Context, Request, StreamRequest
from agentbus.cli.demo.corpus import Library, Passage, load
from agentbus.cli.demo.extract import summarise

CORPUS = "AGENTBUS_DEMO_CORPUS"


class Hit(BaseModel):
    passage: str
    source: str
    snippet: str


class Hits(BaseModel):
    hits: list[Hit]


class Search(Request[Hits]):
    question: str
    limit: int = 8


class Text(BaseModel):
    passage: str
    source: str
    text: str


class Read(Request[Text]):
    passage: str


class Piece(BaseModel):
    text: str
    citation: str


class Summarize(StreamRequest[Piece]):
    question: str
    passages: list[str]


class Ask(StreamRequest[Piece]):
    question: str


class Tick(BaseModel):
    n: int


class Watch(StreamRequest[Tick]):
    """A stream without end: what a revocation cuts."""


@asynccontextmanager
async def library(bus: Caller) -> AsyncIterator[Library]:
    """The index, built as the agent starts."""
    folder = os.environ.get(CORPUS)
    yield Library.build(load(Path(folder) if folder else None))


librarian = Agent("librarian", description="Finds and reads passages of the corpus", lifespan=library)
summarizer = Agent("summarizer", description="Answers from passages, in their own words", replayable=True)
planner = Agent("planner", description="Answers questions about the corpus", replayable=True)


@librarian.handler(scopes=["docs:search"])
async def search(request: Search, ctx: Context[Library]) -> Hits:
    found = ctx.state.search(request.question, limit=request.limit)
    return Hits(hits=[Hit(passage=h.id, source=h.source, snippet=h.snippet) for h in found])


@librarian.handler(scopes=["docs:read"])
async def read(request: Read, ctx: Context[Library]) -> Text:
    passage = ctx.state.read(request.passage)
    return Text(passage=passage.id, source=passage.source, text=passage.text)


@summarizer.handler(scopes=["text:summarize"])
async def summarize(request: Summarize, ctx: Context) -> AsyncIterator[Piece]:
    texts = [await ctx.request("librarian", Read(passage=p), timeout=10) for p in request.passages]
    for sentence in summarise(request.question, [Passage(t.passage, t.source, t.text) for t in texts]):
        yield Piece(text=sentence.text, citation=sentence.citation)


@planner.handler(requires_user=True)
async def ask(request: Ask, ctx: Context) -> AsyncIterator[Piece]:
    search = Search(question=request.question)
    found = await ctx.request("librarian", search, timeout=10, delegate=["docs:read"])
    work = Summarize(question=request.question, passages=[hit.passage for hit in found.hits])
    async with ctx.stream("summarizer", work, timeout=20, delegate=["docs:read"]) as pieces:
        async for piece in pieces:
            yield piece


@planner.handler
async def watch(request: Watch, ctx: Context) -> AsyncIterator[Tick]:
    for n in range(100_000):
        yield Tick(n=n)
        await asyncio.sleep(0.005)
