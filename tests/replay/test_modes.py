"""Shadow and live replay, timing, and what a report looks like."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from pydantic import BaseModel

from agentbus import Agent, Context, Request
from agentbus.errors import ConfigError, LogError, ProgrammingError
from agentbus.testing import Network

from .stage import Taped, taped


class Got(BaseModel):
    text: str = ""


class Quote(Request[Got]):
    of: str


class Rate(Request[Got]):
    of: str


PRICE = [1]


async def price() -> int:
    PRICE[0] += 1
    return PRICE[0]


def shop(scopes: tuple[str, ...] = (), more: bool = False, asks: str = "", **options: Any) -> Agent[Any]:
    agent = Agent("shop", replayable=True)

    @agent.handler(scopes=scopes)
    async def quote(request: Quote, ctx: Context) -> Got:
        cost = await ctx.step("price", price, type=int)
        rate = await ctx.bus.request("rates", Rate(of=asks + request.of))
        extra = f" {ctx.now() is not None} {ctx.random().random() >= 0}" if more else ""
        return Got(text=f"{cost if options.get('shows', True) else ''} {rate.text}{extra}")

    return agent


def rates() -> Agent[Any]:
    agent = Agent("rates")

    @agent.handler
    async def rate(request: Rate, ctx: Context) -> Got:
        return Got(text=f"rate of {request.of}")

    return agent


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Taped:
    async def business(net: Network) -> None:
        async with net.serve(shop(), rates()):
            alice = net.user("alice", scopes=["shop:buy"])
            for of in ("tea", "cocoa"):
                await alice.request("shop", Quote(of=of))
                net.clock.advance(4)

    return taped(business, tmp_path_factory.mktemp("tape"))


def test_a_shadow_may_take_more_time_and_randomness_and_its_answers_are_compared(tape: Taped) -> None:
    assert tape.replay(shop(more=True)).results[0].status == "extra"  # as a stub it is another agent
    report = tape.replay(shop(more=True), mode="shadow")
    assert [r.status for r in report.results] == ["different"] * 2

    def longer(then: bytes, now: bytes, action: str) -> bool:
        return action == "Quote" and now.startswith(then[:-2])

    report = tape.replay(shop(more=True), mode="shadow", compare=longer)
    assert [r.status for r in report.results] == ["equivalent"] * 2 and report.ok


def test_a_shadow_that_requires_more_is_told_whom_it_would_refuse(tape: Taped) -> None:
    report = tape.replay(shop(scopes=("shop:buy",)), mode="shadow")
    assert [r.status for r in report.results] == ["same"] * 2
    report = tape.replay(shop(scopes=("shop:sell",)), mode="shadow")
    found = report.results[0].divergence
    assert found is not None and found.what == "reply" and "denied.scope" in (found.got or "")


def test_a_shadow_that_asks_others_something_new_has_no_answer_and_says_so(tape: Taped) -> None:
    report = tape.replay(shop(asks="green "), mode="shadow")
    found = report.results[0].divergence
    assert found is not None and (found.expected, found.got) == ('{"of":"tea"}', '{"of":"green tea"}')


def test_live_calls_again_and_asks_nobody(tape: Taped) -> None:
    before = PRICE[0]
    report = tape.replay(shop(), mode="live")
    assert PRICE[0] == before + 2 and report.egress == "open"
    assert [r.status for r in report.results] == ["different"] * 2
    same = tape.replay(shop(asks="green "), mode="live", compare=lambda then, now, _: then[-12:] == now[-12:])
    assert [r.status for r in same.results] == ["equivalent"] * 2  # the next recorded answer of that type
    assert tape.replay(shop(shows=False), mode="live", compare=lambda *_: False).first is not None


def test_timing_is_as_it_was_times_n(tape: Taped) -> None:
    began = time.monotonic()
    assert tape.replay(shop(), timing="x100").ok
    assert time.monotonic() - began >= 0.04  # four seconds, a hundred times as fast
    for wrong in ("x", "x0", "xnan", "fast", "-1"):
        with pytest.raises(ConfigError, match=r"config\.timing"):
            tape.replay(shop(), timing=wrong)
    with pytest.raises(ConfigError, match=r"config\.mode"):
        tape.replay(shop(), mode="dry")


def test_a_report_is_lines_json_and_junit(tape: Taped) -> None:
    report = tape.replay(shop(asks="\x00"))
    told = report.as_dict()
    assert told["counts"]["different"] == told["messages"] == 2 and told["first"]["status"] == "different"
    assert not told["ok"] and "2 different" in report.lines()[0]
    suite = fromstring(report.junit())
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "2", "0")
    assert len(suite.findall("testcase/failure")) == 2


def test_a_log_with_a_negative_verdict_is_not_replayed(tape: Taped, tmp_path: Path) -> None:
    import shutil

    copy = Taped(shutil.copytree(tape.log, tmp_path / "log"), tape.directory, tape.root)
    segment = copy.log / "00000000.seg"
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    before = PRICE[0]
    with pytest.raises(LogError, match=r"log\.negative"):
        copy.replay(shop(), mode="live")
    with pytest.raises(LogError, match=r"log\.negative"):
        Taped(tape.log, tape.directory, bytes(32)).replay(shop(), mode="live")
    assert PRICE[0] == before


def test_nothing_to_replay_is_not_a_success(tape: Taped) -> None:
    report = tape.replay(Agent("nobody"))
    assert report.results == [] and not report.ok


async def test_a_replay_inside_a_running_loop_says_so(tape: Taped) -> None:
    with pytest.raises(ProgrammingError, match=r"replay\.loop"):
        tape.replay(shop())
    assert (await asyncio.to_thread(tape.replay, shop())).ok


def test_what_a_replay_signs_is_for_replays_only(tape: Taped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame of a run carries the flag; a live node refuses it (tests/attacks/test_messages.py)."""
    from agentbus.replay.node import ReplayNode
    from agentbus.wire.frame import decode_frame
    from agentbus.wire.header import Flag, decode_header
    from agentbus.wire.limits import LIMITS

    flags = []
    received = ReplayNode.received

    def spy(self: Any, connection: Any, frame: bytes) -> None:
        flags.append(decode_header(decode_frame(frame, LIMITS).header, LIMITS).flags)
        received(self, connection, frame)

    monkeypatch.setattr(ReplayNode, "received", spy)
    assert tape.replay(shop()).ok
    assert len(flags) == 4 and set(flags) == {Flag.REPLAY}  # two requests, two replies, and nothing to rates
