"""Discovery: what agents claim is kept beside the directory, never in its log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from agentbus import Agent, Bus, Context, Raw, Request, RequestInvalid, StreamRequest
from agentbus.bus.opening import connect_bus
from agentbus.directory import life
from agentbus.errors import LogError
from agentbus.host import DirectoryHost
from agentbus.runtime.discovery import SCHEMA_SIZE, TYPES, Describe, Found, MessageClaim
from agentbus.services.discovery import ANSWER, ANSWER_SIZE, FILE, Claims, _page
from agentbus.testing import Network
from agentbus.testing.plugin import net
from agentbus.wire.ids import everyone

__all__ = ["net"]


class Page(Request[str]):
    name: str


library = Agent("library", description="Lends books")


@library.handler(scopes=["books:read"])
async def lend(request: Page, ctx: Context) -> str:
    return request.name


async def test_claims_survive_a_restart_of_the_directory_and_stand_in_no_log(tmp_path: Path) -> None:
    host = DirectoryHost(tmp_path / "directory", listen="tcp://127.0.0.1:*", domain="agents.example")
    await host.open()
    everybody = [everyone("agents.example")]
    agent = host.enrol("library", may_talk_to=everybody, ceiling=["books:read"])
    reader = host.enrol("reader", may_talk_to=everybody)
    bus = await connect_bus(host.url, agent, listen="tcp://127.0.0.1:*", folder=tmp_path / "library")
    async with bus, bus.serve(library):
        assert not any(b"Lends books" in entry for entry in host.core.store.entries())
    port = host.url.port
    await host.aclose()

    host = DirectoryHost(tmp_path / "directory", listen=f"tcp://127.0.0.1:{port}")
    await host.open()
    async with await connect_bus(host.url, reader, listen=None, folder=tmp_path / "reader") as bus:
        (found,) = await bus.discover(message="Page")
    assert (found.id, found.description, found.scopes, found.running) == (agent.id, "Lends books", ("books:read",), 0)
    await host.aclose()


class Note(BaseModel):
    """Something to remember."""

    text: str


class Count(StreamRequest[int]):
    to: int


class Huge(Request[str]):
    """Too large a schema to carry: its text alone is above the bound."""

    choice: Literal[tuple(f"choice number {n} of many" for n in range(1000))]  # type: ignore[valid-type]


clerk = Agent("clerk", description="Keeps the archive of the Town")


@clerk.handler(requires_user=True, scopes=["archive:read"])
async def page(request: Page, ctx: Context) -> str:
    """Finds a page."""
    return request.name


@clerk.handler
async def note(request: Note, ctx: Context) -> None:
    pass


@clerk.handler
async def count(request: Count, ctx: Context) -> AsyncIterator[int]:
    for n in range(request.to):
        yield n


@clerk.handler
async def huge(request: Huge, ctx: Context) -> str:
    return "ok"


async def test_an_agent_is_found_by_what_it_answers_requires_and_says() -> None:
    async with Bus.local() as bus, bus.serve(library, clerk):
        names = {"message": "Note", "scope": "archive:*", "text": "town ARCHIVE"}
        for key, value in names.items():
            (card,) = await bus.discover(**{key: value})  # type: ignore[arg-type]
            assert card.id.short == "clerk", key
        assert [c.id.short for c in await bus.discover(message="Page")] == ["clerk", "library"]
        assert [c.id.short for c in await bus.discover(message="Page", scope="books:read")] == ["library"]
        for nothing in ({"message": "page"}, {"scope": "archive"}, {"tag": "town"}, {"text": "town moon"}):
            assert await bus.discover(**nothing) == []  # type: ignore[arg-type]


async def test_a_card_says_who_runs_since_when_and_with_which_schemas() -> None:
    async with Bus.local() as bus, bus.serve(clerk):
        (bare,) = await bus.discover(message="Note")
        assert all(t.request is None and t.answer is None for t in bare.types)
        (card,) = await bus.discover(message="Note", schemas=True)
        assert card.running == 1 and card.state == "active" and card.described is not None
        of = {t.name: t for t in card.types}
        assert {name: t.kind for name, t in of.items()} == {
            "Page": "request", "Note": "send", "Count": "stream", "Huge": "request",
        }  # fmt: skip
        assert of["Page"].requires_user and of["Page"].scopes == ("archive:read",)
        assert of["Page"].description == "Finds a page." and of["Note"].description == "Something to remember."
        assert of["Count"].request is not None and of["Count"].request["required"] == ["to"]
        assert of["Count"].answer == {"type": "integer"} and of["Note"].answer is None
        assert of["Huge"].request is None, "a schema above the bound is left out, and the agent serves all the same"


async def test_an_agent_that_stopped_is_found_and_does_not_run() -> None:
    async with Bus.local() as bus:
        async with bus.serve(clerk):
            pass
        (card,) = await bus.discover(message="Note")
        assert card.running == 0


async def test_a_suspended_agent_is_not_found(net: Network) -> None:
    async with net.serve(clerk):
        (card,) = await net.discover(message="Note")
        life.set_state(net._core, card.id, "suspended", now=net.clock.now())
        assert await net.discover(message="Note") == []


async def test_nobody_describes_somebody_else(net: Network) -> None:
    """A claim is kept under the sender that the chain proves; there is no name in it."""
    async with net.serve(clerk):
        await net.attacker.request("service/directory", Describe(description="clerk"))
        (card,) = await net.discover(message="Note")
        assert card.description == clerk.description
        (mallory,) = await net.discover(text="mallory")
        assert mallory.description == "clerk" and mallory.types == ()


@pytest.mark.parametrize(
    "claim",
    [
        {"messages": [{"type": "A", "request": {"title": "x" * SCHEMA_SIZE}}]},
        {"messages": [{"type": "A"}] * (TYPES + 1)},
        {"messages": [{"type": str(n), "request": {"title": "x" * (SCHEMA_SIZE - 20)}} for n in range(9)]},
        {"description": "x" * 1025},
        {"messages": [{"type": "A", "owner": "spiffe://local.test/agent/bank"}]},
    ],
    ids=["schema", "types", "all", "description", "field"],
)
async def test_a_claim_is_bounded(net: Network, claim: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid):
        await net.attacker.request("service/directory", Raw("Describe", claim))


def test_an_answer_is_bounded_and_says_that_there_is_more() -> None:
    card = Found(
        id="spiffe://local.test/agent/a", state="active", owner="", purpose="", tags=[], ceiling=[], running=0,
        description="", claimed_at=None,
        messages=[MessageClaim(type="A", request={"title": "x" * 16_000}, answer={"title": "x" * 16_000})],
    )  # fmt: skip
    few = _page(iter([card] * 300))
    assert few.more and len(few.model_dump_json()) <= ANSWER_SIZE and len(few.agents) > 10
    short = card.model_copy(update={"messages": [m.without_schemas() for m in card.messages]})
    many = _page(iter([short] * 300))
    assert many.more and len(many.agents) == ANSWER
    assert not _page(iter([card] * 3)).more


def test_a_claim_is_read_from_memory_until_it_changes(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    who = "spiffe://agents.example/agent/a"
    assert claims.of(who, schemas=False) == (Describe(), None)
    schema = {"type": "object"}
    claims.put(who, Describe(messages=[MessageClaim(type="A", request=schema)]), 7)
    short, at = claims.of(who, schemas=False)
    assert (short.messages[0].type, short.messages[0].request, at) == ("A", None, 7)
    claims._db.execute("DELETE FROM described")
    assert claims.of(who, schemas=False) == (short, 7) and claims.of(who) == (Describe(), None)
    claims.close()


def test_a_claim_of_another_version_is_no_claim(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    claims.put("spiffe://agents.example/agent/a", Describe(description="one"), 7)
    claims._db.execute("INSERT INTO described VALUES ('spiffe://agents.example/agent/b', '{\"colour\": 1}', 7)")
    assert claims.of("spiffe://agents.example/agent/a") == (Describe(description="one"), 7)
    assert claims.of("spiffe://agents.example/agent/b") == (Describe(), None)
    claims.close()


def test_a_damaged_file_of_claims_says_so(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(LogError) as caught:
        Claims(tmp_path)
    assert caught.value.code == "log.claims_unreadable"
