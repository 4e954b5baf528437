"""Somebody has copied the memory of a running agent: its instance key and its CURVE key, everything."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from agentbus import Agent, Bus, Context, Request
from agentbus.bus.opening import connect_bus
from agentbus.connect import zmq_transport
from agentbus.host import DirectoryHost
from agentbus.runtime.sightings import Sightings
from agentbus.testing.raw import RawPeer
from agentbus.testing.transports import RecordingSink
from agentbus.wire.ids import everyone


class Done(BaseModel):
    pass


class Pay(Request[Done]):
    amount: int


# ── what counts as two places ────────────────────────────────────────────────────────────────────────────────────────

KEY = b"k" * 32


def heard(*visits: tuple[str, int]) -> list[str | None]:
    seen: Sightings[str] = Sightings()
    return [seen.heard(KEY, where, number) for where, number in visits]


def test_a_key_that_comes_back_to_a_connection_it_left_is_in_two_hands() -> None:
    assert heard(("A", 1), ("B", 2), ("A", 3)) == [None, None, "B"]


@pytest.mark.parametrize(
    "visits",
    [
        [("A", 1), ("A", 2), ("A", 3)],
        [("A", 1), ("B", 2), ("B", 3)],  # dialled again
        [("A", 1), ("A", 2), ("B", 2), ("B", 3)],  # repeated over the new connection
        [("A", 1), ("B", 3), ("A", 2), ("B", 4)],  # overtaken on the way
        [("A", 1), ("B", 2), ("C", 3)],
    ],
)
def test_an_honest_key_is_in_one_place(visits: list[tuple[str, int]]) -> None:
    assert set(heard(*visits)) == {None}


def test_a_connection_that_is_gone_is_no_second_place() -> None:
    seen: Sightings[str] = Sightings()
    assert seen.heard(KEY, "A", 1) is None and seen.heard(KEY, "B", 2) is None
    seen.lost("A")
    assert seen.heard(KEY, "A", 3) is None  # another connection of the same name
    seen.lost("A")
    assert seen.heard(KEY, "B", 4) is None


def test_what_is_remembered_is_bounded() -> None:
    seen: Sightings[str] = Sightings(keys=8)
    for number in range(100):
        seen.heard(b"%032d" % number, "A", 1)
    assert len(seen._places) == 8


# ── a thief ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[DirectoryHost]:
    running = DirectoryHost(tmp_path / "directory", listen="tcp://127.0.0.1:*", domain="agents.example")
    await running.open()
    yield running
    await running.aclose()


async def test_a_thief_and_its_victim_are_both_cut_off_and_the_alarm_names_the_key(
    host: DirectoryHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The thief signs with the very key, over a connection of its own, in the victim's running numbers."""
    paid: list[int] = []
    bank = Agent("bank")

    @bank.handler
    async def pay(request: Pay, ctx: Context) -> Done:
        paid.append(request.amount)
        return Done()

    talks = {"may_talk_to": [everyone(host.core.domain)]}
    at_bank, identity = host.enrol("bank", **talks), host.enrol("planner", **talks)
    async with (
        await connect_bus(host.url, at_bank, listen="tcp://127.0.0.1:*", folder=tmp_path / "bank") as vault,
        await connect_bus(host.url, identity, listen=None, folder=tmp_path / "planner") as planner,
        vault.serve(bank),
    ):
        victim = RawPeer(planner)
        assert await victim.deliver(await victim.seal("bank", Pay(amount=1))) == "ok"

        stolen, sink = zmq_transport(identity.curve, listen=None), RecordingSink()
        await stolen.open(sink)
        sealed = await victim.seal("bank", Pay(amount=2))
        elsewhere = stolen.dial(vault.endpoints[0], at_bank.curve.public)
        assert elsewhere.offer(sealed.frame)
        await sink.until_frames(1)  # the thief is answered: until here all looks well
        assert paid == [1, 2]

        with caplog.at_level(logging.WARNING, "agentbus.alarm"):
            assert await victim.deliver(await victim.seal("bank", Pay(amount=3))) != "ok"
            await sink.until_lost(elsewhere)
        assert paid == [1, 2]
        assert "reject.key_twice" in caplog.text and victim._voice.local.instance_id.hex() in caplog.text
        await stolen.aclose()
        assert await _others_are_served(host, tmp_path) == [Done()]


async def _others_are_served(host: DirectoryHost, folder: Path) -> list[Done]:
    friend = host.enrol("librarian", may_talk_to=[everyone(host.core.domain)])
    bus: Bus
    async with await connect_bus(host.url, friend, listen=None, folder=folder / "librarian") as bus:
        return [await bus.request("bank", Pay(amount=0))]
