"""Who may connect is answered from what a node knows; only a key it has never heard of costs one look-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nacl.public import PrivateKey

from agentbus import Bus
from agentbus.bus.opening import connect_bus
from agentbus.host import DirectoryHost
from agentbus.wire.ids import everyone


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[DirectoryHost]:
    running = DirectoryHost(tmp_path / "directory", listen="tcp://127.0.0.1:*", domain="agents.example")
    await running.open()
    yield running
    await running.aclose()


@pytest.fixture
async def bus(host: DirectoryHost, tmp_path: Path) -> AsyncIterator[Bus]:
    identity = host.enrol("planner", may_talk_to=[everyone(host.core.domain)])
    made = await connect_bus(host.url, identity, listen="tcp://127.0.0.1:*", folder=tmp_path / "log")
    yield made
    await made.aclose()


@pytest.fixture
def look_ups(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    made: list[None] = []
    source = bus._node.source
    refresh = source.refresh

    async def counted() -> None:
        made.append(None)
        await refresh()

    monkeypatch.setattr(source, "refresh", counted)
    return made


async def test_a_key_that_is_known_is_admitted_without_a_look_up(
    host: DirectoryHost, bus: Bus, look_ups: list[None]
) -> None:
    friend = host.enrol("librarian")
    await bus._node.source.refresh()
    look_ups.clear()
    assert [await bus._node.admit(friend.curve.public) for _ in range(5)] == [True] * 5
    assert look_ups == []


async def test_a_key_that_enrolled_a_moment_ago_costs_one_look_up(
    host: DirectoryHost, bus: Bus, look_ups: list[None]
) -> None:
    host.core.changed = lambda entries: None  # nothing is pushed: the node has not heard of her
    newcomer = host.enrol("librarian")
    assert await bus._node.admit(newcomer.curve.public)
    assert await bus._node.admit(newcomer.curve.public)
    assert len(look_ups) == 1


async def test_a_push_that_overtakes_a_poll_does_not_spoil_it(host: DirectoryHost, bus: Bus) -> None:
    """The poll asks for the entries after 9; meanwhile 9 and 10 are pushed; then the answer brings them again."""
    source = bus._node.source
    for number in range(5):
        polling = asyncio.ensure_future(source.refresh())
        await asyncio.sleep(0)  # it has been sent
        host.enrol(f"newcomer-{number}")
        await polling
    await source.refresh()
    assert source.trust.size == host.core.trust.size


async def test_a_stranger_is_refused_after_one_look_up(bus: Bus, look_ups: list[None]) -> None:
    assert not await bus._node.admit(bytes(PrivateKey.generate().public_key))
    assert len(look_ups) == 1


async def test_nobody_new_is_admitted_while_the_directory_is_away(host: DirectoryHost, bus: Bus) -> None:
    friend = host.enrol("librarian")
    await bus._node.source.refresh()
    await host.node.aclose()
    assert await bus._node.admit(friend.curve.public)
    with pytest.raises(Exception, match="directory"):  # to the transport, an error is a refusal
        await bus._node.admit(bytes(PrivateKey.generate().public_key))
