"""An enrolment token is good once, for one name; and what it opens is a door to nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentbus import AgentBusError, ConfigError, DirectoryRefused, Identity
from agentbus.crypto.keys import CurveKey
from agentbus.directory.core import Directory
from agentbus.enrolment import enrol
from agentbus.host import DirectoryHost
from agentbus.services.directory import token_curve_key
from agentbus.wire.ids import b64, name_id


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[DirectoryHost]:
    running = DirectoryHost(tmp_path / "directory", listen="tcp://127.0.0.1:*", domain="agents.example")
    await running.open()
    yield running
    await running.aclose()


def token_for(core: Directory, name: str, now: int) -> str:
    secret = os.urandom(32)
    who = name_id(name, core.domain)
    if core.trust.principal(who) is None:
        core.add_principal(who, now=now, owner="")
    core.issue_token(who, token_curve_key(secret).public, now=now)
    return f"abe_{b64(secret)}.{core.domain}"


async def test_a_token_enrols_once(host: DirectoryHost) -> None:
    token = token_for(host.core, "planner", host.clock.now())
    identity = await enrol(host.url, "planner", token)
    assert isinstance(identity, Identity)
    assert host.core.trust.principals[identity.id].state == "active"
    with pytest.raises(AgentBusError):  # its key is unknown now, so it gets no connection
        await enrol(host.url, "planner", token)
    keys = [key for key in host.core.trust.keys.values() if key.principal == identity.id]
    assert len(keys) == 1


async def test_a_token_for_one_name_enrols_no_other(host: DirectoryHost) -> None:
    token = token_for(host.core, "planner", host.clock.now())
    token_for(host.core, "operator", host.clock.now())
    with pytest.raises(DirectoryRefused) as caught:
        await enrol(host.url, "operator", token)
    assert caught.value.code == "directory.token"
    assert host.core.trust.principals[name_id("operator", host.core.domain)].state == "pending"


async def test_what_is_no_token_is_said_before_anything_is_sent(host: DirectoryHost) -> None:
    for text in ("", "planner", "abe_short.agents.example", "abk_" + "A" * 43):
        with pytest.raises(ConfigError) as caught:
            await enrol(host.url, "planner", text)
        assert caught.value.code == "config.token"


async def test_a_token_ends_after_ten_minutes(host: DirectoryHost) -> None:
    now = host.clock.now()
    token_for(host.core, "planner", now)
    door = CurveKey(os.urandom(32)).public
    host.core.issue_token(name_id("planner", host.core.domain), door, now=now)
    assert host.core.admits_token(door, now + 599_000_000)
    assert not host.core.admits_token(door, now + 600_000_000)


async def test_a_directory_on_the_same_data_is_refused_and_a_restart_finds_everything(tmp_path: Path) -> None:
    first = DirectoryHost(tmp_path / "d", listen="tcp://127.0.0.1:*", domain="agents.example")
    await first.open()
    first.enrol("planner")
    size, root = first.core.trust.size, first.core.trust.frontier.root()
    second = DirectoryHost(tmp_path / "d", listen="tcp://127.0.0.1:*")
    with pytest.raises(ConfigError) as caught:
        await second.open()
    assert caught.value.code == "config.in_use"
    await first.aclose()
    again = DirectoryHost(tmp_path / "d", listen="tcp://127.0.0.1:*")
    await again.open()
    assert (again.core.trust.size, again.core.trust.frontier.root()) == (size, root)
    assert str(again.url).partition("#")[2] == str(first.url).partition("#")[2]
    await again.aclose()
