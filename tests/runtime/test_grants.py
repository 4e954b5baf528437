"""Authorities that people hold: kept, found again, asked about; and an explanation that agrees with what happens."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from agentbus import Agent, AgentBusError, AtMost, Authority, ConfigError, Context, Denied, Request, Scope
from agentbus.crypto.signing import Purpose
from agentbus.errors import AgentNotFound, ProgrammingError, Unavailable
from agentbus.holdings import Holdings, read_grant
from agentbus.runtime.links import signed
from agentbus.testing.draw import chain_bytes, draw_chain, draw_world
from tests.runtime.conftest import ZmqTown

bank = Agent("bank")
planner = Agent("planner")


class Pay(Request[int]):
    cents: int = 5


class Peek(Request[int]):
    pass


@bank.handler(scopes=["pay:send"])
async def pay(request: Pay, ctx: Context) -> int:
    return request.cents


@bank.handler
async def peek(request: Peek, ctx: Context) -> int:
    ctx.require("pay:send", amount=5)
    return 1


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path / "home"))


async def test_what_an_explanation_says_happens(town: Any) -> None:
    """Allowed by the explanation, allowed by the bank; refused by it, refused there, with the same code."""
    async with town.serve(bank, planner) as buses:
        bus = buses[1]
        grants = {
            "plain": {"scopes": ["pay:send"]},
            "caveat": {"scopes": [Scope("pay:send", amount=AtMost(9))]},
            "empty": {"scopes": []},
            "elsewhere": {"scopes": ["pay:send"], "targets": ["planner"]},
        }
        alice = await town.user("alice", ["pay:send"])
        for name, grant in grants.items():
            held = await alice.delegate("planner", **grant)
            for message, facts in ((Pay(), {}), (Peek(), {"pay:send": {"amount": 5}})):
                why = await bus.explain("bank", type(message).__name__, authority=held, facts=facts)
                try:
                    await bus.acting(held).request("bank", message)
                except AgentBusError as error:
                    assert why.deciding and why.deciding.refused, name
                    assert why.deciding.refused.code == error.code, name
                else:
                    assert why.allowed, name
        plain = await alice.delegate("planner", ["pay:send"])
        assert "pay:send" in str(await bus.explain("bank", "Pay", authority=held))
        missing = await bus.explain("bank", "Borrow", authority=plain)
        assert missing.deciding and missing.deciding.refused and missing.deciding.refused.code == "handler.missing"
        await alice.revoke(plain, reason="enough")
        await town.refresh()
        gone = await bus.explain("bank", "Pay", authority=plain)
        assert gone.deciding and gone.deciding.what == "chain"
        assert (await bus.state(plain)).state == "revoked" and not await bus.state(plain)
        with pytest.raises(AgentBusError) as caught:
            await bus.explain("nobody", "Pay", authority=plain)
        assert caught.value.code in ("directory.unknown", "agent.not_found")


async def test_grants_of_a_user_are_found_where_they_are_held(town: Any) -> None:
    async with town.serve(bank, planner) as buses:
        bus, other = buses[1], buses[0]
        alice = await town.user("alice", ["pay:send"])
        ahead, ended = [await alice.delegate("planner", ["pay:send"], expires_in=s) for s in (500, 1)]
        for authority in (ahead, ended, bus.authority):
            bus.keep(authority)
        await town.refresh()
        town.clock.advance(2)
        await town.refresh()
        assert await bus.grants(user="alice") == [ahead]
        assert await bus.grants(user=str(alice.authority.user)) == [ahead]
        assert await bus.grants(user="bob") == []
        assert await bus.acting((await bus.grants(user="alice"))[0]).request("bank", Pay()) == 5
        if other is not bus:
            other.keep(ahead)
            assert await other.grants(user="alice") == [], "held by somebody else, so of no use here"
        await alice.revoke(ahead, reason="enough")
        await town.refresh()
        assert await bus.grants(user="alice") == []


@pytest.fixture
async def zmq(tmp_path: Path) -> Any:
    async with AsyncExitStack() as stack:
        town = ZmqTown(tmp_path, stack)
        await town.open()
        yield town


async def test_a_users_grant_is_kept_in_a_file_and_used_by_its_holder(zmq: ZmqTown, tmp_path: Path) -> None:
    async with zmq.serve(bank):
        alice = await zmq.connect("user/alice", rights=["pay:send"])
        app = await zmq.connect("app", ceiling=["pay:send"])
        for node in zmq.nodes:
            await node.source.refresh()
        made = await alice.grant("app", ["pay:send"], purpose="checkout", pin=True, expires_in=86400)
        (path,) = (tmp_path / "home" / "grants").iterdir()
        assert read_grant(path) == made and made.links[0].purpose == "checkout"
        assert made.links[0].pinned_key == app._voice.identity.key.id
        assert await app.grants(user="alice") == [made], "one home, so the app finds the file"
        assert await app.acting(made).request("bank", Pay()) == 5
        with pytest.raises(AgentNotFound):
            await alice.grant("nobody", ["pay:send"])
        with pytest.raises(Denied) as caught:
            await app.grant("bank", ["pay:send"])
        assert caught.value.code == "denied.not_holder"
        for wrong in ({"expires_in": 0}, {"expires_in": float("nan")}, {"expires_in": 1e9}):
            with pytest.raises(ProgrammingError) as bad:
                await alice.grant("app", ["pay:send"], **wrong)
            assert bad.value.code == "usage.expires"
        for wrong in ({"purpose": "x" * 65}, {"conversation": "xyz"}, {"conversation": "00"}, {"depth": -1}):
            with pytest.raises(ProgrammingError) as bad:
                await alice.grant("app", ["pay:send"], **wrong)  # type: ignore[arg-type]
            assert bad.value.code == "usage.grant"


async def test_a_pinned_key_that_was_replaced_uses_nothing(zmq: ZmqTown) -> None:
    async with zmq.serve(bank):
        alice = await zmq.connect("user/alice", rights=["pay:send"])
        app = await zmq.connect("app", ceiling=["pay:send"])
        await alice._node.source.refresh()
        made = await alice.grant("app", ["pay:send"], pin=True)
        other = await alice.delegate("app", [])
        assert other.links[-1].pinned_key is None
        wrong = made.links[0].grant._replace(pinned_key=b"k" * 32)
        forged = Authority.from_bytes(chain_bytes([signed(wrong, alice._voice.identity.key, Purpose.GRANT)]))
        with pytest.raises(AgentBusError) as caught:
            await app.acting(forged).request("bank", Pay())
        assert caught.value.code == "reject.pinned_key"


async def test_what_is_not_known_is_said_not_guessed(net: Any) -> None:
    alice = net.user("alice", scopes=["pay:send"])
    held = await alice.delegate("local", ["pay:send"])
    assert await net.state(held)
    net.silence_directory()
    await net.advance(60)
    with pytest.raises(Unavailable) as caught:
        await net.state(held)
    assert caught.value.code == "unavailable.directory_stale"


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_grant_is_named_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    world = draw_world()
    kept = [
        Authority.from_bytes(chain_bytes(draw_chain(f"alice -[quote]-> {to}", world=world))) for to in ("bob", "carol")
    ]
    holdings = Holdings(tmp_path / "grants")
    assert holdings.all() == []
    for authority in (*kept, *kept):
        holdings.add(authority)
    assert {a.id for a in holdings.all()} == {a.id for a in kept}
    assert holdings.find(kept[0].id[:8].upper()) == kept[0]
    for text, code in (
        ("", "config.grant_unknown"),
        (kept[0].id[:3], "config.grant_unknown"),
        ("0" * 64, "config.grant_unknown"),
    ):
        with pytest.raises(ConfigError) as caught:
            holdings.find(text)
        assert caught.value.code == code
    holdings.drop(kept[0])
    assert holdings.all() == [kept[1]]


def test_two_grants_that_begin_alike_are_not_guessed_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = draw_world()
    for to in ("bob", "carol"):
        Holdings(tmp_path).add(Authority.from_bytes(chain_bytes(draw_chain(f"alice -[]-> {to}", world=world))))
    monkeypatch.setattr("agentbus.holdings.PREFIX", 0)
    with pytest.raises(ConfigError) as caught:
        Holdings(tmp_path).find("")
    assert caught.value.code == "config.grant_ambiguous"


def test_what_is_no_grant_is_left_out_of_the_list_and_named_when_asked_for(tmp_path: Path) -> None:
    good = Authority.from_bytes(chain_bytes(draw_chain("alice -[]-> bob", world=draw_world())))
    Holdings(tmp_path).add(good)
    (tmp_path / "bad.grant").write_bytes(b"\x00" * 70_000)
    (tmp_path / "note.txt").write_text("hello")
    assert Holdings(tmp_path).all() == [good]
    for path in (tmp_path / "bad.grant", tmp_path / "missing.grant"):
        with pytest.raises(ConfigError) as caught:
            read_grant(path)
        assert caught.value.code == "config.grant_file"
