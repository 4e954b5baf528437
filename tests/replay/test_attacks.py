"""Attacks on and by way of a replay: frames that cross over, logs that lie, secrets that were to be erased."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentbus import Agent, Caller, Context, Request
from agentbus.audit import Evidence
from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash
from agentbus.crypto.signing import Purpose
from agentbus.errors import LogError
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Outcome, Step, StepKind, step
from agentbus.log.read import Numbered, read_log
from agentbus.log.redact import redact
from agentbus.log.replay import boxes, read_record
from agentbus.logstore.files import FileLog
from agentbus.replay.node import ReplayNode
from agentbus.runtime.faults import decode_fault
from agentbus.testing import Network
from agentbus.wire.header import Flag

from .stage import Taped, taped


class Got(BaseModel):
    text: str = ""


class Go(Request[Got]):
    n: int = 0


def agent() -> Agent[Any]:
    made = Agent("shop", replayable=True)

    @made.handler
    async def go(request: Go, ctx: Context) -> Got:
        return Got(text=await ctx.step("secret", secret, type=str))

    return made


async def secret() -> str:
    return "hunter2"


async def business(net: Network) -> None:
    async with net.serve(agent()):
        for n in (1, 2):
            await net.request("shop", Go(n=n))


async def test_a_frame_of_a_replay_run_is_not_accepted_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its flag and purpose, and by keys that nobody outside the run knows."""
    import asyncio

    frames: list[bytes] = []
    received = ReplayNode.received

    def spy(self: Any, connection: Any, frame: bytes) -> None:
        frames.append(frame)
        received(self, connection, frame)

    monkeypatch.setattr(ReplayNode, "received", spy)
    tape = await asyncio.to_thread(taped, business, tmp_path)
    assert (await asyncio.to_thread(tape.replay, agent())).ok and len(frames) == 4
    async with Network.open() as net, net.serve(agent()):
        for frame in frames:
            assert await net.attacker.deliver(frame) == "reject.recipient"
        for purpose, flags in ((Purpose.REPLAY_BATCH, Flag.REPLAY), (Purpose.BATCH, Flag.REPLAY)):
            frame = net.attacker.forge("shop", Go(), purpose=purpose, flags=flags)
            assert await net.attacker.deliver(frame) == "reject.replay_flag"
        frame = net.attacker.forge("shop", Go(), purpose=Purpose.REPLAY_BATCH)
        assert await net.attacker.deliver(frame) == "reject.signature"


def test_a_live_frame_is_not_accepted_in_a_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose driver signs as live nodes do gets no answer from its agent."""
    tape = taped(business, tmp_path)
    deliver = ReplayNode.deliver

    def live(self: Any, *given: Any, **parts: Any) -> Any:
        self._engine._flags = 0
        return deliver(self, *given, **parts)

    monkeypatch.setattr(ReplayNode, "deliver", live)
    assert {r.status for r in tape.replay(agent()).results} == {"missing"}


def test_what_was_erased_is_not_replayed_and_nowhere_in_the_log_or_report(tmp_path: Path) -> None:
    """Redacting a message takes the results of its handler's steps with it."""
    tape = taped(business, tmp_path)
    record = read_record(read_log(tape.log), "spiffe://local.test/agent/shop")
    origin = read_log(tape.log).origin
    assert origin is not None
    log = FileLog.open(tape.log, key=tape.key, origin=origin, now=record[0].frame.instant)
    for message in record:
        redact(log, message.digest, authority="local", reason="gdpr-17", now=message.frame.instant)
        for answer in message.answers:
            digest = next(leaf_hash(e.header) for e in map(decode_entry, log) if e.position == answer.position)
            redact(log, digest, authority="local", reason="gdpr-17", now=message.frame.instant)
    log.close()
    assert b"hunter2" not in b"".join(p.read_bytes() for p in tape.log.rglob("*") if p.is_file())
    report = tape.replay(agent())
    assert [r.status for r in report.results] == ["not replayable"] * 2 and not report.ok
    assert all("its body was erased" in r.reason for r in report.results)
    assert "hunter2" not in str(report.as_dict()) + report.junit()
    verdict = Evidence.open(tape.log, directory=tape.directory, root=tape.root).verify()["REPLAYABLE"]
    assert verdict.ok is None and "erased" in verdict.reason


def test_a_log_that_was_written_by_somebody_else_is_not_replayed(tmp_path: Path) -> None:
    """Whoever writes a log can put anything into it; without the log key its checkpoint is nobody's."""
    tape = taped(business, tmp_path)
    origin = read_log(tape.log).origin
    assert origin is not None
    forged = _rewritten(tape, tmp_path / "forged", SigningKey(b"m" * 32), origin)
    with pytest.raises(LogError, match=r"log\.negative"):
        forged.replay(agent())


def _rewritten(tape: Taped, folder: Path, key: SigningKey, origin: str) -> Taped:
    """The same entries and boxes under another log key."""
    source = read_log(tape.log)
    log = FileLog.open(folder, key=key, origin=origin, now=1)
    for digest in source.digests():
        log.put_blob(source.blob(digest) or b"")
    rows = []
    for item in source.entries():
        assert isinstance(item, Numbered)
        entry = decode_entry(item.data)
        name = entry.result if isinstance(entry, Step) else getattr(entry, "body", None)
        if name is None:
            rows.append(item.data)
            continue
        again = log.put_box(source.box(name).data or b"")
        rows.append(item.data.replace(name, again))
    log.append(rows)
    log.close()
    return Taped(folder, tape.directory, tape.root)


def test_steps_that_lack_what_they_must_have_make_a_message_not_replayable(tmp_path: Path) -> None:
    tape = taped(business, tmp_path)
    message = read_record(read_log(tape.log), "spiffe://local.test/agent/shop")[0]
    message.steps = [
        entry
        for outcome in (Outcome.RESULT, Outcome.ERROR)
        if isinstance(
            entry := decode_entry(
                step(9, 1, digest=message.digest, step=StepKind.CALL, name="secret", given=None, number=1, began=1,
                     outcome=outcome, result=None)
            ),
            Step,
        )
    ]  # fmt: skip
    assert [name for what, _, name in boxes(message) if "secret" in what] == [None, None]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"code": 1}', b'{"class": [], "text": {}}', b"\xff"])
def test_an_error_that_cannot_be_read_is_some_error(data: bytes) -> None:
    assert isinstance(decode_fault(data), Exception)


def test_an_agent_whose_lifespan_asks_others_sends_nothing(tmp_path: Path) -> None:
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    asked: list[str] = []

    @asynccontextmanager
    async def lifespan(bus: Caller) -> AsyncIterator[None]:
        try:
            await bus.request("local", Go())
        except Exception as error:
            asked.append(getattr(error, "code", type(error).__name__))
        yield

    shop = Agent("shop", lifespan=lifespan, replayable=True)

    @shop.handler
    async def go(request: Go, ctx: Context) -> Got:
        return Got(text=await ctx.step("secret", secret, type=str))

    report = taped(business, tmp_path).replay(shop)
    assert report.ok and asked in (["agent.not_found"], ["unavailable.replay"])
