"""The disk of a node that serves is full: typed errors, nothing acknowledged that is not on the record, and back."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from agentbus import AgentBusError, AgentGone, AgentNotFound, Backpressure, Bus, Raw, Unavailable
from tests.processes.desk import Desk, desk  # noqa: F401  # a fixture
from tests.processes.test_auditing import opened, serve_again

LIFE: Final = 600  # seconds; the file system is gone then whatever happens


class SmallDisk:
    """A file system of some megabytes in a mount namespace of its own, which lives as long as its holder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder.parent.parent
        mount = f"mount -t tmpfs -o size=3m tmpfs '{folder}' && echo made && exec sleep {LIFE}"
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", mount]
        self.holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.holder.stdout is not None
        if self.holder.stdout.readline() != b"made\n":
            self.close()
            pytest.skip("not run: a private mount namespace needs root and a kernel that allows it")
        self.seen = Path(f"/proc/{self.holder.pid}/root") / folder.relative_to("/")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command where the disk is seen."""
        return ("nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", f"--wd={self.folder}")

    def fill(self) -> None:
        """To the last byte."""
        with (self.seen / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return

    def free(self) -> None:
        (self.seen / "filler").unlink()

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()
        if self.holder.stdout is not None:
            self.holder.stdout.close()


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("not run: a private mount namespace needs root")
    disk = SmallDisk(folder)
    try:
        yield disk
    finally:
        disk.close()


async def keep(bus: Bus, text: str) -> bool:
    """Whether it was acknowledged; what says no is a typed error."""
    try:
        return await bus.request("keeper", Raw("Keep", {"text": text}), timeout=20) == {"length": len(text)}
    except AgentBusError as error:
        assert isinstance(error, AgentGone | AgentNotFound | Backpressure | Unavailable), error
        return False


def test_a_full_disk_acknowledges_nothing_more_and_serves_again_once_there_is_room(
    desk: Desk, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    for name in [name for name in os.environ if name.startswith("AGENTBUS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTBUS_HOME", desk.environment["AGENTBUS_HOME"])
    monkeypatch.setenv("AGENTBUS_DATA", desk.environment["AGENTBUS_DATA"])
    with small_disk(desk.folder / "logs" / "keeper") as disk:
        desk.prefix = disk.prefix
        keeper = opened(desk)
        assert (disk.seen / "lock").exists(), "the node's log is not on the small disk"

        async def main() -> tuple[list[str], list[str]]:
            said, refused = [], []
            async with Bus.connect(identity="user/alice", listen="") as bus:
                for at in range(20):
                    text = f"before {at}"
                    (said if await keep(bus, text) else refused).append(text)
                assert not refused
                disk.fill()
                texts = [f"full {at} {'x' * 20_000}" for at in range(10)]
                for text, done in zip(texts, await asyncio.gather(*(keep(bus, text) for text in texts)), strict=True):
                    (said if done else refused).append(text)
                assert keeper.wait(20) == 1  # whatever supervises it starts it again
                disk.free()
                await asyncio.to_thread(serve_again, desk)
                assert await keep(bus, "after")
                return [*said, "after"], refused

        said, refused = asyncio.run(main())
        assert keeper.stdout is not None and "log.write" in keeper.stdout.read()
        assert len(said) == 21 and len(refused) == 10
        logs = [str(desk.folder / "logs" / name) for name in ("keeper", "user-alice")]
        shown = desk.run("log", "show", logs[0], "--directory", "data/directory", "--json")
        rows = [json.loads(line) for line in shown.splitlines()]
        kept = [json.loads(row["body"])["text"] for row in rows if row["action"] == "Keep" and row["accepted"]]
        assert [kept.count(text) for text in said] == [1] * len(said)
        assert desk.json("log", "verify", *logs, "--directory", "data/directory")["ok"]
        desk.stop(desk.running[-1])
