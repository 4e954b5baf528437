"""What a caller is told when processes die, stop and come back: typed errors in time, and recovery by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agentbus import AgentGone, Bus, Identity, Raw, Unavailable
from tests.processes.worker import Count, Work

HERE = Path(__file__).parents[2]


class World:
    """A directory, a worker and a caller: three processes, of which this one is the caller."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, Process] = {}
        self.port = "0"
        self.url = ""

    async def start(self, name: str, *arguments: str) -> Process:
        command = (sys.executable, "-m", "agentbus.cli.main", *arguments)
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, cwd=HERE)
        self.processes[name] = process
        return process

    async def directory(self) -> None:
        data = str(self.folder / "data")
        process = await self.start("up", "up", "--data", data, "--port", self.port, "--max-directory-age", "5")
        assert process.stdout is not None
        self.url = (await process.stdout.readline()).decode().split()[1]
        self.port = self.url.partition("#")[0].rpartition(":")[2]

    async def worker(self) -> None:
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        process = await self.start("worker", "run", "tests.processes.worker:worker", "--ready-file", str(ready))
        async with asyncio.timeout(20):
            while not ready.exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)

    async def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        await self.processes[name].wait()


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for name in [name for name in os.environ if name.startswith("AGENTBUS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path / "home"))
    made = World(tmp_path)
    try:
        await made.directory()
        async with Bus.connect(made.url, identity="user/operator", listen="") as operator:
            for name in ("worker", "caller"):
                fields = {"name": name, "may_talk_to": ["*"]}
                token = await operator.request("service/directory", Raw("CreatePrincipal", fields))
                await Identity.enrol(name, token=token["token"], url=made.url)
        await made.worker()
        yield made
    finally:
        for process in made.processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                await process.wait()


async def begun(bus: Bus, seconds: float) -> asyncio.Task[object]:
    """A request that the worker is certainly handling: one behind it was answered."""
    task: asyncio.Task[object] = asyncio.create_task(bus.request("worker", Work(seconds=seconds), timeout=600))
    await bus.request("worker", Work(n=1))
    return task


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_callee_that_dies_or_stops_in_mid_request_is_gone_long_before_the_deadline(
    world: World, how: signal.Signals, figure: Callable[[str, float, str], None]
) -> None:
    async with Bus.connect(world.url, identity="caller", listen="") as bus:
        task = await begun(bus, 600)
        started = time.monotonic()
        world.processes["worker"].send_signal(how)
        async with asyncio.timeout(60):
            with pytest.raises(AgentGone) as caught:
                await task
        figure(f"after {how.name} the caller heard of it in", time.monotonic() - started, "s")
        assert caught.value.code == "agent.gone" and caught.value.retryable


async def test_a_stream_of_a_killed_agent_ends_with_an_error_and_its_successor_is_asked(world: World) -> None:
    async with Bus.connect(world.url, identity="caller", listen="") as bus:
        async with bus.stream("worker", Count()) as items:
            assert (await anext(items)).n == 1
            await world.kill("worker")
            async with asyncio.timeout(50):  # less than what ends a silent stream
                with pytest.raises(AgentGone):
                    await anext(items)
        await world.worker()
        async with asyncio.timeout(15):
            while True:
                try:
                    assert (await bus.request("worker", Work(n=7))).n == 7
                    break
                except AgentGone:
                    await asyncio.sleep(0.05)


async def test_without_the_directory_agents_go_on_then_fail_closed_then_recover(world: World) -> None:
    async with Bus.connect(world.url, identity="caller", listen="") as bus:
        await bus.request("worker", Work())
        await world.kill("up")
        assert (await bus.request("worker", Work(n=2))).n == 2  # still fresh enough
        async with asyncio.timeout(30):
            while True:
                try:
                    await bus.request("worker", Work(), timeout=5)
                    await asyncio.sleep(0.1)
                except Unavailable as error:
                    assert error.code == "unavailable.directory_stale" and error.retryable
                    break
        await world.directory()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert (await bus.request("worker", Work(n=3), timeout=5)).n == 3
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
        await world.kill("worker")
        await world.worker()  # whoever starts now is found as well
        async with asyncio.timeout(15):
            while True:
                try:
                    assert (await bus.request("worker", Work(n=4), timeout=5)).n == 4
                    break
                except AgentGone:
                    await asyncio.sleep(0.1)
