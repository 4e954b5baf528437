"""Asking and sending: typed answers, receipts, and every way in which there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import (
    Agent,
    AgentGone,
    AgentNotFound,
    Context,
    DeadlineExceeded,
    HandlerFailed,
    HandlerMissing,
    Problem,
    ProgrammingError,
    Raw,
    ReplyInvalid,
    Request,
    RequestInvalid,
)


class Echoed(BaseModel):
    text: str
    by: str = ""


class Echo(Request[Echoed]):
    text: str


class Note(BaseModel):
    text: str


class Block(Request[Echoed]):
    pass


class Fail(Request[Echoed]):
    how: str


class Unknown(Request[Echoed]):
    pass


class OutOfStock(Problem):
    code = "shop.out_of_stock"


class Shop:
    """An agent whose handlers do what the tests need."""

    def __init__(self) -> None:
        self.agent = Agent("shop")
        self.notes: list[str] = []
        self.entered, self.cancelled = asyncio.Event(), asyncio.Event()
        for handler in (self.echo, self.note, self.block, self.fail):
            self.agent.handler(handler)

    async def echo(self, request: Echo, ctx: Context) -> Echoed:
        return Echoed(text=request.text, by=ctx.sender.short)

    async def note(self, message: Note, ctx: Context) -> None:
        self.notes.append(message.text)

    async def block(self, request: Block, ctx: Context) -> Echoed:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Echoed(text="never")

    async def fail(self, request: Fail, ctx: Context) -> Echoed:
        if request.how == "problem":
            raise OutOfStock("none left", item="tea")
        if request.how == "cancel":
            raise asyncio.CancelledError
        if request.how == "reply":
            return "not an Echoed"  # type: ignore[return-value]
        if request.how == "large":
            return Echoed(text="x" * 2_000_000)
        raise RuntimeError("secret text")


async def test_a_request_is_answered_by_the_type_it_names(town: Any) -> None:
    async with town.serve(Shop().agent):
        alice = await town.user("alice", [])
        reply = await alice.request("shop", Echo(text="hello"))
        assert reply == Echoed(text="hello", by="user/alice")
        many = await asyncio.gather(*(alice.request("shop", Echo(text=str(n))) for n in range(100)))
        assert [one.text for one in many] == [str(n) for n in range(100)]


@pytest.mark.parametrize("ack", ["sent", "delivered", "handled", "checkpointed"])
async def test_a_send_is_answered_by_the_receipt_it_asks_for(town: Any, ack: Any) -> None:
    shop = Shop()
    async with town.serve(shop.agent):
        alice = await town.user("alice", [])
        receipt = await alice.send("shop", Note(text=ack), ack=ack)
        assert receipt.level == ack
        assert len(receipt.message) == 64
        await town.until(lambda: shop.notes == [ack])
        await town.until(lambda: all(len(node._engine.exchanges) == 0 for node in town.nodes))


async def test_a_message_that_is_only_sent_is_answered_by_nothing(net: Any) -> None:
    shop = Shop()
    async with net.serve(shop.agent):
        await net.user("alice", scopes=[]).send("shop", Note(text="x"), ack="sent")
        await net.settle()
        assert shop.notes == ["x"]
        assert [c.header.action for c in net.captured if c.header.sender.endswith("/shop")] == ["Describe"]


async def test_a_send_that_no_handler_takes_is_not_called_delivered(net: Any) -> None:
    async with net.serve(Shop().agent):
        alice = net.user("alice", scopes=[])
        with pytest.raises(HandlerMissing) as caught:
            await alice.send("shop", Unknown())
        assert caught.value.code == "handler.missing"


async def test_a_message_without_a_reply_is_not_asked(net: Any) -> None:
    async with net.serve(Shop().agent):
        alice = net.user("alice", scopes=[])
        with pytest.raises(ProgrammingError) as caught:
            await alice.request("shop", Note(text="x"))
        assert caught.value.code == "usage.no_reply_type"
        with pytest.raises(HandlerMissing):
            await alice.request("shop", Raw("Note", {"text": "x"}))


async def test_a_message_whose_types_are_not_at_hand(town: Any) -> None:
    async with town.serve(Shop().agent):
        alice = await town.user("alice", [])
        assert await alice.request("shop", Raw("Echo", {"text": "a"})) == {"text": "a", "by": "user/alice"}


async def test_nobody_of_this_name(town: Any) -> None:
    alice = await town.user("alice", [])
    with pytest.raises(AgentNotFound) as caught:
        await alice.request("nobody", Echo(text="x"))
    assert caught.value.code == "agent.not_found"


async def test_enrolled_and_not_running(town: Any) -> None:
    shop = Shop()
    async with town.serve(shop.agent) as buses:
        alice = await town.user("alice", [])
        await alice.request("shop", Echo(text="x"))
    for bus in buses:
        if bus is not getattr(town, "net", None):
            await bus.aclose()
    await town.until(lambda: all(not n.finder.running(n.name_id("shop")) for n in town.nodes if not n._closed))
    with pytest.raises(AgentGone) as caught:
        await alice.request("shop", Echo(text="x"))
    assert caught.value.code == "agent.not_running"
    assert caught.value.retryable


async def test_an_agent_that_dies_while_it_is_asked(town: Any) -> None:
    shop = Shop()
    async with town.serve(shop.agent) as buses:
        alice = await town.user("alice", [])
        asking = asyncio.ensure_future(alice.request("shop", Block()))
        await shop.entered.wait()
        if buses[0] is getattr(town, "net", None):
            asking.cancel()
            return  # there the shop's process is the caller's own
        await buses[0]._node.transport.aclose()
        with pytest.raises(AgentGone) as caught:
            await asking
        assert caught.value.code == "agent.gone"


async def test_no_handler(town: Any) -> None:
    async with town.serve(Shop().agent):
        alice = await town.user("alice", [])
        with pytest.raises(HandlerMissing) as caught:
            await alice.request("shop", Unknown())
        assert caught.value.code == "handler.missing"


async def test_a_body_that_does_not_fit_is_refused_with_a_list_and_without_its_inputs(town: Any) -> None:
    async with town.serve(Shop().agent):
        alice = await town.user("alice", [])
        with pytest.raises(RequestInvalid) as caught:
            await alice.request("shop", Raw("Echo", {"text": 5, "password": "hunter2"}))
        errors = caught.value.details["errors"]
        assert caught.value.code == "request.invalid"
        assert {(tuple(e["loc"]), e["type"]) for e in errors} == {
            (("text",), "string_type"),
            (("password",), "extra_forbidden"),
        }
        assert all(set(e) == {"loc", "type", "msg"} for e in errors)
        assert "hunter2" not in str(caught.value) + str(caught.value.details)


async def test_a_reply_of_another_type_than_declared(town: Any) -> None:
    async with town.serve(Shop().agent):
        alice = await town.user("alice", [])
        with pytest.raises(ReplyInvalid) as caught:
            await alice.request("shop", Fail(how="reply"))
        assert caught.value.code == "reply.invalid"


async def test_a_reply_that_does_not_fit_into_a_frame_is_an_error_at_once(town: Any) -> None:
    """The clock stands still, so nothing but the answer itself can end the request."""
    async with town.serve(Shop().agent):
        alice = await town.user("alice", [])
        with pytest.raises(ReplyInvalid) as caught:
            await alice.request("shop", Fail(how="large"))
        assert caught.value.code == "reply.too_large"
        assert caught.value.details["by"] == "shop"
        assert (await alice.request("shop", Echo(text="still here"))).text == "still here"
        assert all(len(node._engine.exchanges) == 0 for node in town.nodes)


async def test_a_question_that_does_not_fit_into_a_frame_is_not_asked(net: Any) -> None:
    async with net.serve(Shop().agent):
        with pytest.raises(RequestInvalid) as caught:
            await net.user("alice", scopes=[]).request("shop", Echo(text="x" * 2_000_000))
        assert caught.value.code == "request.too_large"
        assert len(net._node._engine.exchanges) == 0


async def test_a_reply_that_does_not_fit_what_the_caller_expects(net: Any) -> None:
    class Other(BaseModel):
        number: int

    class EchoElsewhere(Request[Other]):
        message_type = "Echo"
        text: str

    async with net.serve(Shop().agent):
        with pytest.raises(ReplyInvalid):
            await net.user("alice", scopes=[]).request("shop", EchoElsewhere(text="x"))


async def test_a_handler_that_raises_says_nothing_of_why(town: Any) -> None:
    async with town.serve(Shop().agent):
        alice = await town.user("alice", [])
        with pytest.raises(HandlerFailed) as caught:
            await alice.request("shop", Fail(how="crash"))
        assert caught.value.code == "handler.failed"
        assert "secret" not in str(caught.value) + str(caught.value.details)


async def test_an_applications_problem_arrives_as_its_own_class(town: Any) -> None:
    async with town.serve(Shop().agent):
        alice = await town.user("alice", [])
        with pytest.raises(OutOfStock) as caught:
            await alice.request("shop", Fail(how="problem"))
        assert caught.value.code == "shop.out_of_stock"
        assert caught.value.message == "none left"
        assert caught.value.details["item"] == "tea"


async def test_a_handler_that_cancels_itself_leaves_nobody_waiting(net: Any) -> None:
    async with net.serve(Shop().agent):
        with pytest.raises(HandlerFailed) as caught:
            await net.user("alice", scopes=[]).request("shop", Fail(how="cancel"))
        assert caught.value.code == "handler.failed"


async def test_the_deadline_ends_it_on_both_sides(town: Any) -> None:
    shop = Shop()
    async with town.serve(shop.agent):
        alice = await town.user("alice", [])
        asking = asyncio.ensure_future(alice.request("shop", Block(), timeout=5))
        await shop.entered.wait()
        town.clock.advance(6)
        with pytest.raises(DeadlineExceeded) as caught:
            await asking
        assert caught.value.code == "deadline.exceeded"
        await asyncio.wait_for(shop.cancelled.wait(), 5)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_is_set_moves_no_deadline(town: Any, hours: int) -> None:
    """What ends an exchange is the time that went by, on both sides."""
    shop = Shop()
    async with town.serve(shop.agent):
        alice = await town.user("alice", [])
        asking = asyncio.ensure_future(alice.request("shop", Block(), timeout=5))
        await shop.entered.wait()
        town.clock.shift_wall(hours * 3600)
        town.clock.advance(4)
        await asyncio.sleep(0.01)
        assert not asking.done() and not shop.cancelled.is_set()
        town.clock.advance(2)
        with pytest.raises(DeadlineExceeded) as caught:
            await asking
        assert caught.value.code == "deadline.exceeded"
        await asyncio.wait_for(shop.cancelled.wait(), 5)


async def test_the_callee_keeps_the_deadline_by_its_own_timer(net: Any) -> None:
    """Nothing is sent after the request, so only the timer armed when it came can end the handler."""
    shop = Shop()
    async with net.serve(shop.agent):
        net.attacker.connection().offer(net.attacker.forge("shop", Block(), timeout=5))
        await asyncio.wait_for(shop.entered.wait(), 5)
        assert net._node._timer is not None
        assert net._node._due == net.clock.mono() + 5_000_000


@pytest.mark.parametrize("timeout", [0, -1, 601, float("nan")])
async def test_a_timeout_out_of_bounds(net: Any, timeout: float) -> None:
    with pytest.raises(ProgrammingError) as caught:
        await net.user("alice", scopes=[]).request("shop", Echo(text="x"), timeout=timeout)
    assert caught.value.code == "usage.timeout"


async def test_cancelling_a_request_cancels_its_handler(town: Any) -> None:
    shop = Shop()
    async with town.serve(shop.agent):
        alice = await town.user("alice", [])
        asking = asyncio.ensure_future(alice.request("shop", Block()))
        await shop.entered.wait()
        asking.cancel()
        await asyncio.wait_for(shop.cancelled.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (await alice.request("shop", Echo(text="still here"))).text == "still here"


async def test_a_cancel_that_comes_with_its_request_leaves_nothing_running(net: Any) -> None:
    shop = Shop()
    async with net.serve(shop.agent):
        alice = net.user("alice", scopes=[])
        for _ in range(3):
            asking = asyncio.ensure_future(alice.request("shop", Block()))
            await asyncio.sleep(0)
            asking.cancel()
            await net.settle()
        service = next(s for s in net._services if s.agent is shop.agent)
        assert service._running == {}
