"""What Python says to whoever uses agentbus a little wrongly: at once, with a code, and with what to do."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Bus, Context, Raw, RawStream, Request, StreamRequest, current_context
from agentbus.runtime import loop


class Done(BaseModel):
    n: int = 0


class Other(BaseModel):
    n: int = 0


class Work(Request[Done]):
    n: int = 0


class Count(StreamRequest[Done]):
    pass


class Nameless(Request):  # type: ignore[type-arg]
    pass


class Note(BaseModel):
    text: str = ""


# ── writing an agent: found while the module is imported ─────────────────────────────────────────────────────────────


def not_async(agent: Agent) -> None:
    @agent.handler
    def work(request: Work, ctx: Context) -> Done:
        return Done()


def no_context(agent: Agent) -> None:
    @agent.handler
    async def work(request: Work) -> Done:
        return Done()


def no_annotation(agent: Agent) -> None:
    @agent.handler
    async def work(request, ctx):  # type: ignore[no-untyped-def]
        return Done()


def no_model(agent: Agent) -> None:
    @agent.handler
    async def work(request: int, ctx: Context) -> Done:
        return Done()


def no_reply_said(agent: Agent) -> None:
    @agent.handler
    async def work(request: Work, ctx: Context):  # type: ignore[no-untyped-def]
        return Done()


def no_items_said(agent: Agent) -> None:
    @agent.handler
    async def count(request: Count, ctx: Context):  # type: ignore[no-untyped-def]
        yield Done()


def other_items(agent: Agent) -> None:
    @agent.handler
    async def count(request: Count, ctx: Context) -> AsyncIterator[Other]:
        yield Other()


def another_reply(agent: Agent) -> None:
    @agent.handler
    async def work(request: Work, ctx: Context) -> Other:
        return Other()


def a_reply_to_nothing(agent: Agent) -> None:
    @agent.handler
    async def note(request: Note, ctx: Context) -> Done:
        return Done()


def a_stream_returned(agent: Agent) -> None:
    @agent.handler
    async def count(request: Count, ctx: Context) -> Done:
        return Done()


def a_request_yielded(agent: Agent) -> None:
    @agent.handler
    async def work(request: Work, ctx: Context) -> AsyncIterator[Done]:
        yield Done()


def twice(agent: Agent) -> None:
    @agent.handler
    async def work(request: Work, ctx: Context) -> Done:
        return Done()

    @agent.handler
    async def again(request: Work, ctx: Context) -> Done:
        return Done()


def no_reply_type(agent: Agent) -> None:
    @agent.handler
    async def work(request: Nameless, ctx: Context) -> Done:
        return Done()


def scopes_as_text(agent: Agent) -> None:
    agent.handler(scopes="docs:read")


def a_bad_name(agent: Agent) -> None:
    Agent("My Agent")


def a_bad_scope(agent: Agent) -> None:
    agent.handler(scopes=["Docs Read"])


def none_at_once(agent: Agent) -> None:
    agent.handler(concurrency=0)


def a_type_that_is_too_long(agent: Agent) -> None:
    class Long(Request[Done]):
        message_type = "x" * 257

    @agent.handler
    async def long(request: Long, ctx: Context) -> Done:
        return Done()


WRITING: list[tuple[Callable[[Agent], None], str, str]] = [
    (
        not_async,
        "usage.handler",
        r"work is not async. A handler is `async def handler\(request: MyRequest, ctx: Context\) -> MyReply`",
    ),
    (no_context, "usage.handler", r"work takes 1 argument and not two. A handler is `async def handler\("),
    (no_annotation, "usage.handler", r"its 'request' has no annotation. A handler is `async def handler\("),
    (no_model, "usage.handler", r"its 'request' is int, which is no pydantic model"),
    (no_reply_said, "usage.handler", r"work does not say what it returns; Work is answered by Done: write `-> Done`"),
    (
        no_items_said,
        "usage.handler",
        r"does not say what it yields; .* items of Done: write `-> AsyncIterator\[Done\]`",
    ),
    (other_items, "usage.handler", r"says that it yields .*\[.*Other\]; Count is answered by items of Done"),
    (another_reply, "usage.handler", r"work returns Other; Work is answered by Done"),
    (a_reply_to_nothing, "usage.handler", r"note returns Done; Note is no Request: nothing answers it"),
    (a_stream_returned, "usage.handler", r"Count is answered by a stream: use `yield`"),
    (a_request_yielded, "usage.handler", r"work yields, so Work must be a StreamRequest"),
    (twice, "usage.handler_twice", r"helper has two handlers for Work"),
    (no_reply_type, "usage.no_reply_type", r"write Request\[Reply\] or StreamRequest\[Item\]"),
    (scopes_as_text, "usage.scope", r"scopes=\['docs:read'\]"),
    (a_bad_name, "malformed.id", r"'My Agent' is no name; use lower-case letters"),
    (none_at_once, "usage.concurrency", r"concurrency=0: a whole number, and at least 1"),
    (a_type_that_is_too_long, "usage.type", r"'xxx.* is no message type: 1 to 256 characters"),
    (a_bad_scope, "malformed.scope", r"no scope such as docs:read"),
]


@pytest.mark.parametrize(("write", "code", "says"), WRITING, ids=lambda of: getattr(of, "__name__", None))
def test_a_handler_that_cannot_be_one_is_found_at_import(write: Callable[[Agent], None], code: str, says: str) -> None:
    with pytest.raises(AgentBusError) as found:
        write(Agent("helper"))
    assert found.value.code == code and re.search(says, found.value.message), str(found.value)


# ── using a bus ──────────────────────────────────────────────────────────────────────────────────────────────────────

helper = Agent("helper")


@helper.handler(scopes=["docs:read"])
async def work(request: Work, ctx: Context) -> Done:
    return Done(n=request.n)


async def delegating_a_text(bus: Any, alice: Any) -> None:
    await alice.request("helper", Work(), delegate="docs:read")


async def asking_with_no_request(bus: Any, alice: Any) -> None:
    await alice.request("helper", Note())


async def asking_nobody(bus: Any, alice: Any) -> None:
    await alice.request("helpr", Work())


async def asking_for_ever(bus: Any, alice: Any) -> None:
    await alice.request("helper", Work(), timeout=3600)


async def asking_without_the_scope(bus: Any, alice: Any) -> None:
    await bus.user("bob", scopes=[]).request("helper", Work())


async def asking_with_an_unknown_field(bus: Any, alice: Any) -> None:
    await alice.request("helper", Raw("Work", {"m": 1}))


async def asking_for_no_type(bus: Any, alice: Any) -> None:
    await alice.request("helper", Raw("", {}))


async def sending_a_type_that_is_too_long(bus: Any, alice: Any) -> None:
    await alice.send("helper", Raw("x" * 257, {}))


async def a_stream_of_no_type(bus: Any, alice: Any) -> None:
    async with alice.stream("helper", RawStream("", {})):
        raise AssertionError("opened")


async def a_stream_that_was_not_opened(bus: Any, alice: Any) -> None:
    await anext(alice.stream("helper", Count()))


async def serving_twice(bus: Any, alice: Any) -> None:
    async with bus.serve(helper):
        raise AssertionError("two agents of one name")


async def acting_with_what_is_somebody_elses(bus: Any, alice: Any) -> None:
    other = bus.user("bob", scopes=["docs:read"])
    async with Bus.local() as elsewhere:
        elsewhere.acting(other.authority)


async def handing_on_more_than_one_has(bus: Any, alice: Any) -> None:
    await alice.delegate("helper", ["docs:write"])


async def connecting_as_nobody(bus: Any, alice: Any) -> None:
    await Bus.connect(f"agentbus://127.0.0.1:1#{'A' * 43}.{'A' * 43}")


async def a_context_where_there_is_none(bus: Any, alice: Any) -> None:
    current_context()


USING: list[tuple[Callable[[Any, Any], Awaitable[None]], str, str]] = [
    (delegating_a_text, "usage.scope", r"delegate=\['docs:read'\]"),
    (asking_with_no_request, "usage.no_reply_type", r"Note is no Request\[Reply\]; send it instead"),
    (asking_nobody, "agent.not_found", r"nobody is called helpr"),
    (asking_for_ever, "usage.timeout", r"timeout=3600: more than 0 and at most 600 seconds"),
    (asking_without_the_scope, "denied.scope", r"link 0 to user/bob does not grant docs:read"),
    (asking_with_an_unknown_field, "request.invalid", r"m: Extra inputs are not permitted"),
    (asking_for_no_type, "usage.type", r"'' is no message type: 1 to 256 characters"),
    (sending_a_type_that_is_too_long, "usage.type", r"'xxx.* is no message type: 1 to 256 characters"),
    (a_stream_of_no_type, "usage.type", r"'' is no message type"),
    (a_stream_that_was_not_opened, "usage.stream", r"`async with bus.stream\(...\) as items:`"),
    (serving_twice, "usage.served_twice", r"helper is being served on this bus"),
    (acting_with_what_is_somebody_elses, "denied.not_holder", r"held by user/bob; this bus speaks for local"),
    (handing_on_more_than_one_has, "denied.not_held", r"docs:write"),
    (connecting_as_nobody, "config.no_identity", r"pass identity=, or set AGENTBUS_IDENTITY"),
    (a_context_where_there_is_none, "usage.no_context", r"current_context\(\) is for code that a handler calls"),
]


@pytest.mark.parametrize(("use", "code", "says"), USING, ids=lambda of: getattr(of, "__name__", None))
async def test_a_bus_that_is_used_wrongly_says_how(
    use: Callable[[Any, Any], Awaitable[None]], code: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGENTBUS_IDENTITY", raising=False)
    async with Bus.local() as bus, bus.serve(helper):
        with pytest.raises(AgentBusError) as found:
            await use(bus, bus.user("alice", scopes=["docs:read"]))
    assert found.value.code == code and re.search(says, found.value.message), str(found.value)


def test_a_handlers_traceback_does_not_begin_with_an_optional_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised while another exception is handled is shown below that one: here, that uvloop is absent."""
    monkeypatch.setitem(sys.modules, "uvloop", None)

    async def failing() -> None:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom") as caught:
        loop.run(failing())
    assert caught.value.__context__ is None
