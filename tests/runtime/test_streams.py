"""Streams: order, credit, cancelling down the tree, errors in mid-stream, silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import (
    Agent,
    Context,
    DeadlineExceeded,
    HandlerFailed,
    HandlerMissing,
    Problem,
    ProgrammingError,
    RawStream,
    ReplyInvalid,
    Request,
    RequestInvalid,
    StreamRequest,
)
from agentbus.protocol.engine import WINDOW


class Item(BaseModel):
    n: int


class Count(StreamRequest[Item]):
    upto: int
    fail: str = ""


class Relay(StreamRequest[Item]):
    upto: int


class Once(Request[Item]):
    pass


class TooMuch(Problem):
    code = "count.too_much"


class Counter:
    """A counter that says how far it is, and a relay in front of it."""

    def __init__(self) -> None:
        self.made = 0
        self.endless, self.stopped, self.relay_stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.go_on, self.told = asyncio.Event(), asyncio.Event()
        self.agent, self.relay = Agent("counter"), Agent("relay")
        self.agent.handler(self.count)
        self.agent.handler(self.once)
        self.relay.handler(self.pass_on)

    async def count(self, request: Count, ctx: Context) -> AsyncIterator[Item]:
        try:
            for n in range(request.upto):
                self.made += 1
                yield Item(n=n)
            if request.fail == "problem":
                raise TooMuch("enough", at=request.upto)
            if request.fail == "crash":
                raise RuntimeError("secret")
            if request.fail == "silence":
                self.endless.set()
                await asyncio.Event().wait()
            if request.fail == "progress":
                for _ in range(3):
                    await self.go_on.wait()
                    self.go_on.clear()
                    ctx.progress("still here")
                    self.told.set()
                yield Item(n=request.upto)
        finally:
            self.stopped.set()

    async def once(self, request: Once, ctx: Context) -> Item:
        return Item(n=1)

    async def pass_on(self, request: Relay, ctx: Context) -> AsyncIterator[Item]:
        try:
            async with ctx.bus.stream("counter", Count(upto=request.upto, fail="silence")) as items:
                async for item in items:
                    yield item
        finally:
            self.relay_stopped.set()


async def test_items_arrive_in_order_and_the_stream_ends(town: Any) -> None:
    async with town.serve(Counter().agent):
        alice = await town.user("alice", [])
        async with alice.stream("counter", Count(upto=300)) as items:
            assert [item.n async for item in items] == list(range(300))
        async with alice.stream("counter", Count(upto=0)) as items:
            assert [item async for item in items] == []
        async with alice.stream("counter", RawStream("Count", {"upto": 2})) as raw:
            assert [item async for item in raw] == [{"n": 0}, {"n": 1}]


async def test_a_slow_consumer_of_a_thousand_items_holds_the_handler_back(town: Any) -> None:
    counter = Counter()
    async with town.serve(counter.agent):
        alice = await town.user("alice", [])
        async with alice.stream("counter", Count(upto=1000)) as items:
            seen = []
            async for item in items:
                seen.append(item.n)
                assert counter.made <= len(seen) + WINDOW + 2  # one made and held back, one under way
                assert len(items._items) <= WINDOW
                for _ in range(3):
                    await asyncio.sleep(0)
        assert seen == list(range(1000))


async def test_a_consumer_that_stops_taking_stops_the_handler_at_the_window(net: Any) -> None:
    counter = Counter()
    async with net.serve(counter.agent):
        async with net.user("alice", scopes=[]).stream("counter", Count(upto=1000)) as items:
            await anext(items)
            await net.settle(500)
            assert counter.made == WINDOW + 1
        await net.settle()
        assert counter.stopped.is_set()


async def test_leaving_the_block_cancels_down_the_tree(town: Any) -> None:
    counter = Counter()
    async with town.serve(counter.agent, counter.relay):
        alice = await town.user("alice", [])
        async with alice.stream("relay", Relay(upto=3)) as items:
            assert [(await anext(items)).n for _ in range(3)] == [0, 1, 2]
            await counter.endless.wait()
        await asyncio.wait_for(counter.relay_stopped.wait(), 5)
        await asyncio.wait_for(counter.stopped.wait(), 5)
        await town.until(lambda: all(len(node._engine.exchanges) == 0 for node in town.nodes))


@pytest.mark.parametrize("fail", ["problem", "crash"])
async def test_an_error_in_mid_stream_comes_after_the_items(town: Any, fail: str) -> None:
    async with town.serve(Counter().agent):
        alice = await town.user("alice", [])
        got = []
        with pytest.raises(TooMuch if fail == "problem" else HandlerFailed) as caught:
            async with alice.stream("counter", Count(upto=3, fail=fail)) as items:
                async for item in items:
                    got.append(item.n)
        assert got == [0, 1, 2]
        assert caught.value.code == ("count.too_much" if fail == "problem" else "handler.failed")
        assert "secret" not in str(caught.value)


async def test_silence_ends_a_stream(town: Any) -> None:
    counter = Counter()
    async with town.serve(counter.agent):
        alice = await town.user("alice", [])
        async with alice.stream("counter", Count(upto=1, fail="silence"), idle=10) as items:
            assert (await anext(items)).n == 0
            waiting = asyncio.ensure_future(anext(items))
            await asyncio.sleep(0)
            later(11)
            with pytest.raises(DeadlineExceeded) as caught:
                await waiting
            assert caught.value.code == "deadline.idle"
        await asyncio.wait_for(counter.stopped.wait(), 5)


async def test_progress_feeds_the_idle_timeout(net: Any) -> None:
    counter = Counter()
    async with net.serve(counter.agent):
        stream = net.user("alice", scopes=[]).stream("counter", Count(upto=1, fail="progress"), idle=10)
        async with stream as items:
            assert (await anext(items)).n == 0
            waiting = asyncio.ensure_future(anext(items))
            for _ in range(3):
                await net.settle()
                later(6)
                counter.go_on.set()
                await counter.told.wait()
                counter.told.clear()
            assert (await waiting).n == 1


def later(seconds: float) -> None:
    """The loop's own clock, by which silence is measured, is so much further on."""
    loop = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds  # type: ignore[method-assign]


async def test_the_deadline_ends_a_stream(town: Any) -> None:
    counter = Counter()
    async with town.serve(counter.agent):
        alice = await town.user("alice", [])
        async with alice.stream("counter", Count(upto=1, fail="silence"), timeout=5) as items:
            await anext(items)
            await counter.endless.wait()
            town.clock.advance(6)
            with pytest.raises(DeadlineExceeded) as caught:
                await anext(items)
            assert caught.value.code == "deadline.exceeded"
        await asyncio.wait_for(counter.stopped.wait(), 5)


async def test_a_stream_is_not_asked_and_a_request_is_not_streamed(net: Any) -> None:
    class CountOnce(Request[Item]):
        message_type = "Count"
        upto: int

    async with net.serve(Counter().agent):
        alice = net.user("alice", scopes=[])
        with pytest.raises(HandlerMissing):
            await alice.request("counter", CountOnce(upto=1))
        with pytest.raises(HandlerMissing):
            async with alice.stream("counter", RawStream("Once", {})) as items:
                await anext(items)
        with pytest.raises(HandlerMissing):  # and not called delivered first
            await alice.send("counter", Count(upto=1))


async def test_a_stream_that_asks_for_nonsense(net: Any) -> None:
    async with net.serve(Counter().agent):
        with pytest.raises(RequestInvalid):
            async with net.user("alice", scopes=[]).stream("counter", RawStream("Count", {"upto": "x"})) as items:
                await anext(items)


async def test_a_stream_outside_its_block(net: Any) -> None:
    async with net.serve(Counter().agent):
        items = net.user("alice", scopes=[]).stream("counter", Count(upto=1))
        with pytest.raises(ProgrammingError) as caught:
            await anext(items)
        assert caught.value.code == "usage.stream"


async def test_many_streams_at_once(town: Any) -> None:
    async with town.serve(Counter().agent):
        alice = await town.user("alice", [])

        async def total() -> int:
            async with alice.stream("counter", Count(upto=100)) as items:
                return sum([item.n async for item in items])

        assert await asyncio.gather(*(total() for _ in range(20))) == [4950] * 20


class Page(BaseModel):
    text: str


class Pages(StreamRequest[Page]):
    pass


async def test_an_item_that_does_not_fit_into_a_frame_ends_its_stream(net: Any) -> None:
    book = Agent("book")

    @book.handler
    async def pages(request: Pages, ctx: Context) -> AsyncIterator[Page]:
        yield Page(text="short")
        yield Page(text="x" * 2_000_000)

    came = []
    async with net.serve(book), net.user("alice", scopes=[]).stream("book", Pages()) as items:
        with pytest.raises(ReplyInvalid) as caught:
            async for page in items:
                came.append(page.text)
        assert caught.value.code == "reply.too_large"
        assert came == ["short"]
