"""Discovery: what agents claim is kept beside the directory, never in its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbus import Agent, Context, Request
from agentbus.bus import connect_bus
from agentbus.errors import LogError
from agentbus.host import DirectoryHost
from agentbus.runtime.discovery import Describe
from agentbus.services.discovery import FILE, Claims
from agentbus.wire.ids import everyone


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


def test_a_claim_of_another_version_is_no_claim(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    claims.put("spiffe://agents.example/agent/a", Describe(description="one"))
    claims._db.execute("INSERT INTO claims VALUES ('spiffe://agents.example/agent/b', '{\"colour\": 1}')")
    assert claims.of("spiffe://agents.example/agent/a").description == "one"
    assert claims.of("spiffe://agents.example/agent/b") == Describe()
    claims.close()


def test_a_damaged_file_of_claims_says_so(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(LogError) as caught:
        Claims(tmp_path)
    assert caught.value.code == "log.claims_unreadable"
