"""What became of every message that waits for an answer stands in its sender's log, and nobody takes it out unseen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mutants import entries_of, rebuild, renumber, resign
from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Context, Request, StreamRequest
from agentbus.audit import Evidence
from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash
from agentbus.directory import life
from agentbus.log import entry as entries
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Receipt, Received, Sent
from agentbus.log.fates import Fates
from agentbus.log.redact import find_erasable
from agentbus.logstore.memory import MemoryLog
from agentbus.runtime.problems import code_of
from agentbus.testing import Network
from agentbus.testing.plugin import net
from agentbus.wire.header import Header, Kind, decode_header
from agentbus.wire.limits import LIMITS, SECOND

__all__ = ["net"]
LEVELS = ("delivered", "handled", "checkpointed")


class Got(BaseModel):
    text: str = ""


class Do(Request[Got]):
    what: str = ""


class Count(StreamRequest[Got]):
    most: int = 2


class Note(BaseModel):
    text: str = ""


def shop(asked: asyncio.Event) -> Agent[Any]:
    agent = Agent("shop")

    @agent.handler
    async def do(request: Do, ctx: Context) -> Got:
        if request.what == "fail":
            raise ValueError
        if request.what == "wait":
            asked.set()
            await asyncio.Event().wait()
        return Got()

    @agent.handler
    async def count(request: Count, ctx: Context) -> AsyncIterator[Got]:
        for at in range(request.most):
            yield Got(text=str(at))

    @agent.handler
    async def note(request: Note, ctx: Context) -> None:
        return None

    return agent


@dataclass
class Case:
    """Mallory's log of everything that can become of a message, and a life after it."""

    folder: Path
    key: SigningKey
    root: bytes
    acknowledged: dict[str, bytes]
    entries: list[bytes]
    work: Path
    count: int = 0

    def judge(self, kept: list[bytes]) -> dict[str, tuple[bool | None, list[str]]]:
        """What an auditor says of these entries, which their owner numbered and signed anew."""
        self.count += 1
        made = renumber(kept)
        note = resign(made, "agentbus.local.test/mallory/1", self.key)
        folder = rebuild(self.folder, self.work / str(self.count), made, note, len(made))
        report = Evidence.open(folder, directory=self.folder.parent / "directory", root=self.root).verify()
        return {name: (verdict.ok, verdict.problems) for name, verdict in report.items()}


async def live(net: Network) -> dict[str, bytes]:
    asked, mallory = asyncio.Event(), net.attacker
    async with net.serve(shop(asked)):
        acknowledged = {}
        for level in LEVELS:
            acknowledged[level] = bytes.fromhex((await mallory.send("shop", Note(), ack=level)).message)  # type: ignore[arg-type]
        await mallory.send("shop", Note(), ack="sent")
        await mallory.request("shop", Do())
        async with mallory.stream("shop", Count()) as items:
            assert [item.text async for item in items] == ["0", "1"]
        with pytest.raises(AgentBusError):
            await mallory.request("shop", Do(what="fail"))
        for way in ("called off", "expired"):
            asking = asyncio.create_task(mallory.request("shop", Do(what="wait"), timeout=5))
            await asked.wait()
            asked.clear()
            if way == "called off":
                asking.cancel()
            else:
                await net.advance(6)
            await asyncio.gather(asking, return_exceptions=True)
        await net.advance(1000)  # past the time of everything
        await mallory.request("shop", Do())
        await net.settle()
    mallory.node.recorder.flush()
    return acknowledged


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    work = tmp_path_factory.mktemp("fates")

    async def main() -> Case:
        async with Network.open() as net:
            acknowledged = await live(net)
            log = net.attacker.node.recorder.log
            assert isinstance(log, MemoryLog)
            folder = net.evidence("mallory")._paths[0]
            copy = work / "honest" / folder.name
            copy.parent.mkdir()
            rebuild(folder, copy, list(log), resign(list(log), log.origin, log._key), len(list(log)))
            (copy.parent / "directory").symlink_to(work / "directory")
            (folder.parent / "directory").rename(work / "directory")
            return Case(copy, log._key, net._core.trust.root, acknowledged, entries_of(copy), work)

    yield asyncio.run(main())


def headers(log: list[bytes]) -> Iterator[tuple[Any, Header | None]]:
    for data in log:
        one = decode_entry(data)
        yield one, decode_header(one.header, LIMITS) if isinstance(one, Sent | Received) else None


def test_every_acknowledged_send_has_a_received_receipt_that_names_it(case: Case) -> None:
    """The envelope of the receipt, as it came, is the record: who says it, of which message, and under what."""
    receipts = {
        (h.in_reply_to, h.action): (one, h)
        for one, h in headers(case.entries)
        if isinstance(one, Received) and h is not None and h.kind == Kind.RECEIPT
    }
    for level, digest in case.acknowledged.items():
        one, header = receipts[digest, level]
        assert one.code == "ok" and header.sender.endswith("/shop") and header.directory_size > 0
    assert not [one for one, _ in headers(case.entries) if isinstance(one, Receipt) and one.digest in receipts]


def test_a_message_that_nobody_answers_and_an_error_are_receipt_entries(case: Case) -> None:
    found = [one for one, _ in headers(case.entries) if isinstance(one, Receipt)]
    assert [one.code for one in found] == ["handler.failed", "deadline.exceeded"]
    error = next(one for one, h in headers(case.entries) if isinstance(one, Received) and h and h.kind == Kind.ERROR)
    assert found[0].receipt == leaf_hash(error.header) and found[1].receipt is None
    asked = {leaf_hash(one.header) for one, h in headers(case.entries) if isinstance(one, Sent)}
    assert {one.digest for one in found} <= asked


def is_answer(kind: Kind, action: str | None = None) -> Callable[[Any, Header | None], bool]:
    return lambda one, h: isinstance(one, Received) and h is not None and h.kind == kind and action in (None, h.action)


LEFT_OUT: dict[str, Callable[[Any, Header | None], bool]] = {
    **{f"a receipt '{level}'": is_answer(Kind.RECEIPT, level) for level in LEVELS},
    "a reply": is_answer(Kind.REPLY),
    "the end of a stream": is_answer(Kind.END),
    "an error": is_answer(Kind.ERROR),
    "what an error said": lambda one, h: isinstance(one, Receipt) and one.receipt is not None,
    "that nobody answered": lambda one, h: isinstance(one, Receipt) and one.receipt is None,
}


@pytest.mark.parametrize("what", ["nothing", *LEFT_OUT])
def test_whoever_leaves_out_what_became_of_a_message_is_found_by_its_log_alone(case: Case, what: str) -> None:
    """Mallory numbers and signs her log anew without it: the log key is hers."""
    assert case.judge(case.entries)["COMPLETE"][0] is True
    rows = list(headers(case.entries))
    at = next((at for at, (one, h) in enumerate(rows) if what != "nothing" and LEFT_OUT[what](one, h)), None)
    if at is None:
        return
    found = case.judge([data for other, data in enumerate(case.entries) if other != at])
    assert found["INTACT"][0] is True
    complete, problems = found["COMPLETE"]
    says = "by an answer that is not here" if what == "an error" else "what became of this message stands nowhere"
    assert complete is False and any(says in text for text in problems), problems


def judged(*parts: list[tuple[int, bytes]]) -> list[str]:
    whole = Fates()
    for part in parts:
        fates = Fates()
        for position, data in part:
            one = decode_entry(data)
            header, digest = None, b""
            if isinstance(one, Sent | Received):
                header, digest = decode_header(one.header, LIMITS), leaf_hash(one.header)
            fates.add(one, header, digest, position)
        whole.join(fates)
    return list(whole.problems())


def test_a_log_that_is_read_in_parts_says_the_same(case: Case) -> None:
    rows = list(enumerate(case.entries))
    assert judged(rows) == []
    for left in range(len(rows)):
        without = rows[:left] + rows[left + 1 :]
        whole = judged(without)
        for cut in range(0, len(without), 3):
            assert judged(without[:cut], without[cut:]) == whole
    assert judged(*[[row] for row in rows]) == []


def test_a_process_that_ended_first_owes_no_word(case: Case) -> None:
    """Killed while it waited: what it would have written when the time was over was never written."""
    rows = list(enumerate(case.entries))
    at = next(at for at, data in rows if decode_entry(data).kind == entries.EntryKind.RECEIPT and at > 0)
    asked = decode_entry(case.entries[at])
    assert isinstance(asked, Receipt)
    cut = next(
        n for n, data in rows if isinstance(o := decode_entry(data), Sent) and leaf_hash(o.header) == asked.digest
    )
    later = decode_entry(rows[-1][1]).instant + 3600 * SECOND
    again = [
        entries.opened(cut + 1, later, node="mallory", domain="local.test", software="agentbus"),
        entries.closed(cut + 2, later),
    ]
    before = rows[: cut + 1]
    assert judged([*before, *enumerate(again, cut + 1)]) == []
    assert len(judged([*before, (cut + 1, entries.closed(cut + 1, later))])) == 1


async def test_what_is_given_up_because_its_recipient_was_suspended_is_on_the_record(net: Network) -> None:
    asked = asyncio.Event()
    async with net.serve(shop(asked)):
        asking = asyncio.create_task(net.attacker.request("shop", Do(what="wait")))
        await asked.wait()
        life.set_state(net._core, net._node.name_id("shop"), "suspended", now=net.clock.now())
        await net.attacker.node.source.refresh()
        with pytest.raises(AgentBusError):
            await asking
        log = net.attacker.node.recorder.log
        assert [one.code for one in map(decode_entry, log) if isinstance(one, Receipt)] == ["reject.revoked"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"code": "quota.exceeded"}', "quota.exceeded"),
        (b'{"code": "Alice lives at 5 High Street"}', "handler.failed"),
        (b'{"code": "a%s"}' % (b".a" * 64), "handler.failed"),
        (b'{"code": 5}', "handler.failed"),
        (b'{"code": "a\\n"}', "handler.failed"),
        (b"[" * 100_000, "handler.failed"),
        (b"\xff", "handler.failed"),
        (b"[]", "handler.failed"),
    ],
)
def test_a_peers_error_puts_a_code_on_the_record_and_no_text(body: bytes, code: str) -> None:
    """What stands in an entry can never be erased."""
    assert code_of(body) == code


async def test_what_an_error_said_stays_when_its_body_is_erased(net: Network) -> None:
    async with net.serve(shop(asyncio.Event())):
        with pytest.raises(AgentBusError):
            await net.attacker.request("shop", Do(what="fail"))
    net.attacker.node.recorder.flush()
    log = net.attacker.node.recorder.log
    said = next(one for one in map(decode_entry, log) if isinstance(one, Receipt))
    assert said.receipt is not None
    for name in find_erasable(iter(log), said.receipt).boxes:
        assert log.erase(name) and log.box(name) is None
    assert said.code == "handler.failed"
