"""kill -9 of sender, receiver or directory, at random moments, under load.

Whatever is killed: each message that was acknowledged is in both parties' logs, once; no handler ran twice for one; and
the logs of everybody verify. Ten kills in every run of the suite, two hundred in the campaign.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbus.audit import Evidence
from agentbus.wire.header import Kind

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds; only a failing test waits that long
CODES = {  # what a sender may be told while others are killed
    "agent.gone", "agent.not_running", "deadline.exceeded", "unavailable.directory", "unavailable.directory_stale",
    "reject.sender_key", "backpressure.peer",
}  # fmt: skip


class Theatre:
    """Three processes that are killed and come back, and the ledgers that outlive them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledgers = folder / "ledgers"
        self.ledgers.mkdir()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AGENTBUS_")}
        self.env |= {"AGENTBUS_HOME": str(folder / "home"), "LEDGERS": str(self.ledgers)}
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.errors = (folder / "errors").open("a")
        self.port, self.url = "0", ""

    def start(self, who: str) -> None:
        """Start one, and wait until it is ready to be killed."""
        if who == "directory":
            up = ["up", "--data", str(self.folder / "data"), "--port", self.port, "--max-directory-age", "60"]
            process = self._python("-m", "agentbus.cli.main", *up, out=subprocess.PIPE)
            assert process.stdout is not None
            self.url = process.stdout.readline().split()[1]
            self.port = self.url.partition("#")[0].rpartition(":")[2]
        elif who == "receiver":
            ready = self.folder / "ready"
            ready.unlink(missing_ok=True)
            agent = "tests.campaigns.parties:receiver"
            process = self._python("-m", "agentbus.cli.main", "run", agent, "--ready-file", str(ready))
            self.wait(ready.exists, process)
        else:
            process = self._python("-m", "tests.campaigns.parties", "sender")
        self.running[who] = process

    def cli(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "agentbus.cli.main", *arguments]
        done = subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def kill(self, who: str, number: signal.Signals = signal.SIGKILL) -> None:
        process = self.running.pop(who)
        process.send_signal(number)
        process.wait(PATIENCE)
        if process.stdout is not None:
            process.stdout.close()

    def lines(self, ledger: str) -> list[list[str]]:
        path = self.ledgers / ledger
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def wait(self, condition: object, process: subprocess.Popen[str] | None = None) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():  # type: ignore[operator]
            assert process is None or process.poll() is None, (self.folder / "errors").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "errors").read_text()[-2000:]
            time.sleep(0.02)

    def flows(self) -> None:
        """Wait until some more messages were acknowledged; who could not start without a directory starts again."""
        enough = self.acknowledged() + 20

        def flowing() -> bool:
            if self.running["sender"].poll() is not None:  # as a supervisor would
                self.start("sender")
            return self.acknowledged() >= enough

        self.wait(flowing)

    def acknowledged(self) -> int:
        return sum(line[0] == "ack" for line in self.lines("sent"))

    def close(self) -> None:
        for who in list(self.running):
            self.kill(who)
        self.errors.close()

    def _python(self, *arguments: str, out: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments], env=self.env, cwd=ROOT, stdout=out, stderr=self.errors, text=True
        )


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    made = Theatre(tmp_path)
    try:
        made.start("directory")
        for name in ("receiver", "sender"):
            made.cli("agent", "enrol", name, "--token", made.cli("agent", "create", name, "--may-talk-to", "*"))
        made.start("receiver")
        made.start("sender")
        made.flows()
        yield made
    finally:
        made.close()


def kill_and_judge(theatre: Theatre, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    order = [who for _ in range(kills) for who in ("receiver", "sender", "directory")][:kills]
    chance.shuffle(order)
    for who in order:
        time.sleep(chance.uniform(0.005, 0.5))  # the moment of death, not a wait for anything
        theatre.kill(who)
        theatre.start(who)
    theatre.flows()  # it goes on by itself
    for who in ("sender", "receiver", "directory"):
        theatre.kill(who, signal.SIGTERM)

    logs = sorted((theatre.folder / "home" / "logs").iterdir())
    evidence = Evidence.open(*logs, directory=theatre.folder / "data" / "directory", root=theatre.url.partition("#")[2])
    report = evidence.verify()
    negative = {name: verdict.problems for name, verdict in report.items() if verdict.ok is False}
    assert negative == {}

    acknowledged = {
        digest: number for kind, *rest in theatre.lines("sent") if kind == "ack" for number, digest in [rest]
    }
    sent, received = Counter[str](), Counter[str]()
    for message in evidence.messages(action="Item"):
        if message.header.kind == Kind.SEND:  # and not its receipts
            if message.direction == "sent":
                sent[message.digest.hex()] += 1
            elif message.accepted:
                received[message.digest.hex()] += 1
    handled = Counter(line[0] for line in theatre.lines("handled"))
    assert len(acknowledged) >= 40
    assert {digest: sent[digest] for digest in acknowledged if sent[digest] != 1} == {}
    assert {digest: received[digest] for digest in acknowledged if received[digest] != 1} == {}
    assert {number: handled[number] for number in acknowledged.values() if handled[number] != 1} == {}
    assert [number for number, times in handled.items() if times > 1] == []
    assert [digest for digest, times in received.items() if times > 1] == []
    assert {line[1] for line in theatre.lines("sent") if line[0] == "error"} <= CODES


def test_ten_kills_lose_nothing_that_was_acknowledged(theatre: Theatre) -> None:
    kill_and_judge(theatre, 10, seed=1)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", [2])
def test_two_hundred_kills_lose_nothing_that_was_acknowledged(theatre: Theatre, seed: int) -> None:
    kill_and_judge(theatre, 200, seed=seed)
