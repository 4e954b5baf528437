"""Senders' logs against receivers' logs: each way in which they can disagree, and whose fault it is said to be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Context, Request
from agentbus.audit import Evidence
from agentbus.log.read import read_log
from agentbus.log.reconcile import Reconciliation, reconcile
from agentbus.log.sides import Run, Side, homes_of, read_side
from agentbus.testing import Network
from agentbus.wire.ids import b64


class Got(BaseModel):
    text: str = ""


class Do(Request[Got]):
    n: int = 0


class Note(BaseModel):
    text: str = ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mallory asks shop, in logs of two nodes: three requests, one refused, one called off, and a note."""
    import asyncio

    async def main(target: Path) -> None:
        async with Network.open() as net:
            agent, gate = Agent("shop"), asyncio.Event()

            @agent.handler
            async def do(request: Do, ctx: Context) -> Got:
                if request.n == 3:
                    await gate.wait()
                return Got(text=str(request.n))

            @agent.handler(scopes=["shop:buy"])
            async def note(request: Note, ctx: Context) -> None:
                return None

            async with net.serve(agent):
                mallory = net.attacker
                for n in (1, 2):
                    await mallory.request("shop", Do(n=n))
                await net.settle()
                asking = asyncio.create_task(mallory.request("shop", Do(n=3)))
                await net.settle()
                asking.cancel()
                await net.settle()
                await mallory.send("shop", Note())
                net.directory_amend("mallory", ceiling=[])
                await mallory.node.source.refresh()
                with pytest.raises(AgentBusError):
                    await mallory.send("shop", Note())
                net.clock.advance(100)  # past the deadline of what was called off
                await mallory.request("shop", Do(n=4))
                await net.settle()
            shop, theirs = net.evidence("shop"), net.evidence("mallory")
            shutil.copytree(shop._paths[0], target / "shop")
            shutil.copytree(theirs._paths[0], target / "mallory")
            shutil.copytree(theirs._paths[0].parent / "directory", target / "directory")
            (target / "root").write_text(b64(net._core.trust.root))

    target = tmp_path_factory.mktemp("logs")
    asyncio.run(main(target))
    return target


def evidence(folder: Path) -> Evidence:
    return Evidence.open(
        folder / "shop", folder / "mallory", directory=folder / "directory", root=(folder / "root").read_text()
    )


@pytest.fixture
def sides(folder: Path) -> list[Side]:
    """Read afresh, with processes that ran for an hour around: what is left out was not lost in a stop."""
    found = [read_side(read_log(folder / name), name) for name in ("shop", "mallory")]
    for side in found:
        side.runs = [Run(0, side.last + 3_600_000_000)]
    return found


def told(sides: list[Side]) -> list[tuple[str, str, str]]:
    found = reconcile(sides, homes_of(sides, []))
    return [(f.what, f.blame, f.party) for f in found.findings]


HONEST = [("denied", "explained", "mallory"), ("unreceipted", "explained", "mallory")]


def pick(side: Side, where: Callable[[Any], bool]) -> bytes:
    return next(digest for digest, line in side.sent.items() if where(line))


def test_honest_logs_agree_and_what_was_refused_or_called_off_is_explained(folder: Path) -> None:
    of = evidence(folder)
    assert of.verify().ok
    found = of.reconcile()
    assert found.ok and found.unjoined == 0 and found.joined > 10
    assert sorted((f.what, f.blame, f.party) for f in found.findings) == HONEST
    assert found.verdict().ok is True and found.verdict().checked == found.joined


def test_a_message_that_nobody_can_account_for_is_undecidable(sides: list[Side]) -> None:
    """The receiver's log lacks a request that was never answered: lost, held back, or left out."""
    shop, mallory = sides
    last = max(mallory.sent, key=lambda digest: mallory.sent[digest].peer_seq)
    lost = next(d for d, line in mallory.sent.items() if line.level and d in mallory.answered)
    mallory.answered.discard(lost), shop.replied.discard(lost), shop.received.pop(lost)
    assert ("lost", "undecidable", "") in told(sides) and last != lost
    assert reconcile(sides, homes_of(sides, [])).verdict().ok is None


def test_a_receiver_that_answered_and_left_the_question_out_is_to_blame(sides: list[Side]) -> None:
    shop, mallory = sides
    left_out = next(d for d, line in mallory.sent.items() if line.level and d in mallory.answered)
    shop.received.pop(left_out)
    assert ("lost", "party", "shop") in told(sides)
    verdict = reconcile(sides, homes_of(sides, [])).verdict()
    assert verdict.ok is False and "shop" in verdict.problems[0]


def test_a_sender_that_leaves_out_what_it_signed_is_to_blame(sides: list[Side]) -> None:
    _, mallory = sides
    left_out = next(d for d, line in mallory.sent.items() if line.seq == 2)
    mallory.sent.pop(left_out)
    found = told(sides)
    assert ("extra", "party", "mallory") in found and ("gap", "party", "mallory") in found


def test_a_loss_of_power_is_blamed_on_the_power(sides: list[Side]) -> None:
    shop, mallory = sides
    for side, what in ((mallory, "extra"), (shop, "lost")):
        digest = next(d for d, line in mallory.sent.items() if line.level)
        line = mallory.sent[digest]
        changed = [_copy(shop), _copy(mallory)]
        mine = changed[0] if side is shop else changed[1]
        (mine.received if side is shop else mine.sent).pop(digest)
        mine.forgot.append((line.instant, line.instant + 1, "power"))
        changed[1].answered.discard(digest), changed[0].replied.discard(digest)
        assert (what, "explained", "power") in told(changed)
        mine.forgot[-1] = (line.instant, line.instant + 1, "torn")
        assert (what, "explained", "power") not in told(changed)


def _copy(side: Side) -> Side:
    parts = (
        "sent", "received", "unsent", "refused", "answered", "settled", "replied", "concluded", "cancelled", "ended",
        "forgot", "newest",
    )  # fmt: skip
    return replace(side, **{name: type(getattr(side, name))(getattr(side, name)) for name in parts})


def test_what_is_sent_to_a_process_that_stopped_is_explained_unless_later_ones_came(sides: list[Side]) -> None:
    shop, mallory = sides
    asked = [d for d, line in mallory.sent.items() if line.level]
    first, last = asked[0], asked[-1]
    for digest, expected in ((last, ("lost", "explained", "shop")), (first, ("lost", "undecidable", ""))):
        changed = [_copy(shop), _copy(mallory)]
        line = changed[0].received.pop(digest)
        pair = (line.source, line.target)
        if digest == last:
            changed[0].newest[pair] = line.peer_seq - 1
        changed[0].runs = [Run(0, line.instant - 1, closed=True)]
        changed[1].answered.discard(digest), changed[0].replied.discard(digest)
        assert expected in told(changed)


@pytest.mark.parametrize(("level", "blame"), [("reply", "party"), ("delivered", "explained")])
def test_what_was_taken_and_never_answered_is_the_receivers(sides: list[Side], level: str, blame: str) -> None:
    """That it was taken is no answer: only what its sender waited for settles it."""
    shop, mallory = sides
    digest = next(d for d, line in mallory.sent.items() if line.level == level and d in mallory.settled)
    assert digest in mallory.answered and digest in shop.replied and digest in shop.concluded
    mallory.settled.discard(digest), shop.concluded.discard(digest)
    assert ("unreceipted", blame, "shop") in told(sides)  # a handler that returned says so in a step
    shop.ended[digest] = "expired"
    assert ("unreceipted", "explained", "shop") in told(sides)


def test_a_frame_that_the_receiver_refused_unverified_is_found_by_its_bytes(sides: list[Side]) -> None:
    shop, mallory = sides
    digest = next(d for d, line in mallory.sent.items() if line.level and d in mallory.answered)
    mallory.answered.discard(digest), shop.replied.discard(digest), shop.received.pop(digest)
    shop.refused[b"frame" * 4] = "reject.expired"
    found = reconcile(sides, homes_of(sides, []), frames=lambda side, wanted: dict.fromkeys(wanted, b"frame" * 4))
    assert [f.why for f in found.findings if f.what == "lost"] == ["shop refused the frame: reject.expired"]


def test_unsent_reordered_and_two_under_one_number(sides: list[Side]) -> None:
    shop, mallory = sides
    digests = [d for d, line in shop.received.items() if line.sender.endswith("mallory")]
    shop.received = {d: shop.received[d] for d in (digests[1], digests[0], *digests[2:])} | shop.received
    digest = [d for d, line in mallory.sent.items() if line.level][-1]
    mallory.unsent[digest] = "the connection takes no more"
    shop.received.pop(digest)
    other = mallory.sent[digests[2]]
    mallory.sent[b"other" * 6 + b"xx"] = other
    found = told(sides)
    for expected in (("lost", "explained", "mallory"), ("reordered", "explained", ""), ("two", "party", "mallory")):
        assert expected in found


def test_nobody_makes_an_order_undone_by_saying_that_it_never_left(sides: list[Side]) -> None:
    """The receiver holds it under its sender's signature: it is joined like any other, and its answer asked after."""
    shop, mallory = sides
    before = reconcile(sides, homes_of(sides, [])).joined
    digest = next(d for d, line in mallory.sent.items() if line.level == "reply" and d in mallory.settled)
    mallory.unsent[digest] = "the connection takes no more"
    assert reconcile(sides, homes_of(sides, [])).joined == before and sorted(told(sides)) == HONEST
    mallory.settled.discard(digest), shop.concluded.discard(digest)
    assert ("unreceipted", "party", "shop") in told(sides)


def test_what_is_not_here_is_not_judged(folder: Path) -> None:
    of = Evidence.open(folder / "mallory", directory=folder / "directory", root=(folder / "root").read_text())
    of.verify()
    found = of.reconcile()
    assert found.ok and found.joined == 0 and found.unjoined > 10 and found.verdict().ok is None
    assert "not here" in found.verdict().reason
    assert Reconciliation().verdict().ok is None


def test_the_command_prints_a_table_and_exits_by_the_answer(folder: Path, tmp_path: Path) -> None:
    def run(*logs: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agentbus.cli.main", "log", "reconcile", *map(str, logs)]
        command += ["--directory", str(folder / "directory"), "--root", (folder / "root").read_text()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    good = run(folder / "shop", folder / "mallory")
    assert good.returncode == 0, good.stderr
    assert "denied                1          0" in good.stdout
    bad = shutil.copytree(folder / "mallory", tmp_path / "mallory")
    segment = bad / "00000000.seg"
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    damaged = run(folder / "shop", bad)
    assert damaged.returncode == 1 and "extra" in damaged.stdout and "negative: INTACT" in damaged.stdout
    told = subprocess.run(
        [sys.executable, "-m", "agentbus.cli.main", "log", "reconcile", str(folder / "shop"), "--directory",
         str(folder / "directory"), "--root", (folder / "root").read_text(), "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert json.loads(told.stdout)["ok"] is True


async def test_verifying_several_logs_joins_them(tmp_path: Path) -> None:
    """Whoever signs and does not log is found, although each log by itself is whole."""
    async with Network.open() as net:
        agent = Agent("shop")

        @agent.handler
        async def do(request: Do, ctx: Context) -> Got:
            return Got()

        async with net.serve(agent):
            await net.attacker.request("shop", Do(n=1))
            await net.settle()
            paths = {}
            for step in ("honest", "hidden"):
                if step == "hidden":
                    frame = net.attacker.forge("shop", Do(n=2))
                    assert await net.attacker.deliver(frame) == "ok"
                paths[step] = [net.evidence(name)._paths[0] for name in ("shop", "mallory")]
                net.clock.advance(1)
            root, directory = net._core.trust.root, paths["hidden"][0].parent / "directory"
            good = Evidence.open(*paths["honest"], directory=directory, root=root).verify()
            assert good["COMPLETE"].ok and good.ok
            apart = Evidence.open(paths["hidden"][1], directory=directory, root=root).verify()
            assert apart["COMPLETE"].ok
            found = Evidence.open(*paths["hidden"], directory=directory, root=root).verify()
            assert found["COMPLETE"].ok is False and "mallory signed it" in found["COMPLETE"].problems[0]
