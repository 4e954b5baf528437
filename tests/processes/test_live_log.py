"""Every command that reads logs, on logs that are being written under load: none calls them damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.processes.desk import Desk, desk  # noqa: F401  # a fixture
from tests.processes.test_auditing import opened, until_changed

LOAD = """
import asyncio
from agentbus import Bus
from keeping import Keep

async def ask(bus, size):
    while True:
        await bus.request("keeper", Keep(text="x" * size))
        print("asked", flush=True)
        await asyncio.sleep(0.2 + size / 100_000)  # a writer that never rests outgrows whoever reads everything

async def main():
    async with Bus.connect(identity="user/alice") as bus:
        await asyncio.gather(*(ask(bus, size) for size in (10, 10, 1000, 1000, 100_000, 300_000)))

asyncio.run(main())
"""
EVENTS = ("--directory", "data/directory")
BOTH = (("logs/keeper", "logs/user-alice"), ("logs/user-alice", "logs/keeper"))


@contextmanager
def load(desk: Desk) -> Iterator[None]:  # noqa: F811
    """Requests large and small, all the time."""
    (desk.folder / "load.py").write_text(LOAD)
    with (desk.folder / "asked").open("wb") as out:
        process = subprocess.Popen([sys.executable, "load.py"], env=desk.environment, cwd=desk.folder, stdout=out)
    try:
        until_changed(desk.folder / "asked", b"")
        yield
        assert process.poll() is None, "whoever asks has stopped"
    finally:
        process.kill()
        process.wait()


def test_a_log_is_followed_from_its_first_second_while_its_agent_serves(desk: Desk) -> None:  # noqa: F811
    """What is written after the command started is printed as it comes, filtered as what was there before."""
    opened(desk)
    follower = desk.start("log", "show", "logs/keeper", *EVENTS, "--action", "Keep", "--follow", "--json")
    assert follower.stdout is not None
    said = follower.stdout

    def row() -> Any:
        line = said.readline()
        assert line.startswith("{"), line
        return json.loads(line)

    for who, text in (("alice", "one"), ("bob", "two")):
        if who == "bob":
            desk.enrol("user", "user/bob")  # the directory is longer now than it was at the first look
        desk.run("request", "keeper", "Keep", f'{{"text": "{text}"}}', "--as", f"user/{who}")
        seen = [row() for _ in range(2)]
        assert [one["kind"] for one in seen] == ["request", "reply"] and text in seen[0]["body"]


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.campaign)])
def test_logs_that_are_written_under_load_are_never_called_damaged(desk: Desk, rounds: int) -> None:  # noqa: F811
    opened(desk)
    with load(desk):
        for at in range(rounds):
            for logs in BOTH:
                verdicts = desk.json("log", "verify", *logs, *EVENTS)["verdicts"]
                assert verdicts["INTACT"]["ok"] and verdicts["AUTHENTIC"]["checked"] > 0
                found = desk.json("log", "reconcile", *logs, *EVENTS)
                assert found["ok"] and found["joined"] > 0
            for log in BOTH[0]:
                assert "negative" not in desk.run("log", "show", log, *EVENTS, "--last", "1")
            assert desk.json("log", "report", *BOTH[0], *EVENTS)["ok"]
            assert desk.json("log", "replay", "logs/keeper", "keeping:keeper", *EVENTS)["ok"]
            first = desk.json("log", "show", "logs/keeper", *EVENTS, "--action", "Keep")["digest"]
            proof = f"{at}.proof.json"
            assert desk.json("log", "prove", "logs/keeper", first, *EVENTS, "--out", proof)["ok"]
            assert desk.json("log", "check-proof", proof)["ok"]
            out = f"out-{at}"
            assert desk.json("log", "export", *BOTH[1], *EVENTS, "--out", out)["ok"]
            copies = sorted(str(path) for path in (desk.folder / out / "logs").iterdir())
            assert desk.json("log", "verify", *copies, "--directory", f"{out}/directory")["ok"]
