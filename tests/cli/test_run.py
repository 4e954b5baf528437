"""``agentbus run`` and ``Agent.run()``: one process or several, ready when they say so, stopped cleanly."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agentbus import AgentGone, Bus, Identity, Opening, Raw
from tests.cli.program import Program
from tests.cli.town import Town

COUNTER = """
import os
from pydantic import BaseModel
from agentbus import Agent, Context, Request

class Who(BaseModel):
    process: int
    name: str
class Ask(Request[Who]):
    pass

counter = Agent("counter")

@counter.handler
async def who(request: Ask, ctx: Context) -> Who:
    return Who(process=os.getpid(), name=ctx.bus.authority.holder.short)

if __name__ == "__main__":
    counter.run()
"""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    made = Town(tmp_path_factory.mktemp("town"))
    try:
        (made.folder / "counting.py").write_text(COUNTER)
        made.enrol("counter", "other")
        yield made
    finally:
        made.close()


def operator(town: Town) -> Opening[Bus]:
    identity = Identity.from_file(town.home / "keys" / "user__operator.json")
    return Bus.connect(town.url, identity=identity, listen="")


async def askings(town: Town, to: str, times: int) -> list[dict[str, object]]:
    async with operator(town) as bus:
        return [await bus.request(to, Raw("Ask", {}), timeout=20) for _ in range(times)]


@pytest.fixture(autouse=True)
def logs(town: Town, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTBUS_DATA", str(tmp_path))


async def test_instances_are_processes_that_are_asked_in_turn_and_stop_together(town: Town, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    program = town.start("run", "counting:counter", "--instances", "3", "--ready-file", str(ready), "--json")
    told = json.loads(program.until('"ready"'))
    assert told == {"id": "spiffe://agents.local/agent/counter", "instances": 3, "ready": True}
    assert ready.read_text() == "spiffe://agents.local/agent/counter\n"
    processes = {int(str(one["process"])) for one in await askings(town, "counter", 9)}
    assert len(processes) == 3 and program.process.pid not in processes
    shown = town.run("agent", "show", "counter", "--json")
    assert shown["running"] == 3
    assert program.stop() == 0
    assert not ready.exists()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert town.run("agent", "show", "counter", "--json")["running"] == 0


async def test_an_instance_that_dies_is_started_again(town: Town) -> None:
    program = town.start("run", "counting:counter", "--instances", "2")
    program.until("is served by 2 processes")
    first, second = sorted({int(str(one["process"])) for one in await askings(town, "counter", 4)})
    os.kill(first, signal.SIGKILL)
    program.until("ended with status -9; it starts again in 1 s")
    async with operator(town) as bus, asyncio.timeout(60):
        seen: set[object] = set()
        while len(seen) < 2:
            with suppress(AgentGone):  # the directory has not missed it yet
                seen.add((await bus.request("counter", Raw("Ask", {}), timeout=20))["process"])
            await asyncio.sleep(0.05)
    assert second in seen and first not in seen
    assert program.stop(signal.SIGINT) == 0


async def test_an_instance_that_cannot_be_started_for_now_is_started_later(town: Town) -> None:
    """The parent has no file descriptor left for a while; nothing of the tries in vain is left open."""
    program = town.start("run", "counting:counter", "--instances", "2")
    program.until("is served by 2 processes")
    parent, open_files = program.process.pid, Path(f"/proc/{program.process.pid}/fd")
    old = {int(str(one["process"])) for one in await askings(town, "counter", 4)}
    before = len(list(open_files.iterdir()))
    soft, most = resource.prlimit(parent, resource.RLIMIT_NOFILE)
    resource.prlimit(parent, resource.RLIMIT_NOFILE, (3, most))
    os.kill(min(old), signal.SIGKILL)
    program.until("cannot be started: Too many open files; it starts again in 2 s")
    resource.prlimit(parent, resource.RLIMIT_NOFILE, (soft, most))
    async with operator(town) as bus, asyncio.timeout(60):
        seen: set[object] = set()
        while len(seen - old) < 1:
            with suppress(AgentGone):
                seen.add((await bus.request("counter", Raw("Ask", {}), timeout=20))["process"])
            await asyncio.sleep(0.05)
        while len(list(open_files.iterdir())) > before:
            await asyncio.sleep(0.05)
    assert program.stop() == 0


async def test_instances_end_when_what_started_them_is_killed(town: Town) -> None:
    program = town.start("run", "counting:counter", "--instances", "2")
    program.until("is served by 2 processes")
    program.process.kill()
    program.process.wait()
    async with asyncio.timeout(60):
        while town.run("agent", "show", "counter", "--json")["running"]:
            await asyncio.sleep(0.05)


def test_what_keeps_one_instance_from_starting_ends_all(town: Town) -> None:
    program = town.start("run", "counting:counter", "--as", "nobody", "--instances", "2")
    program.until("[key.missing]")
    assert program.process.wait(60) == 2


@pytest.mark.parametrize(
    "more", [{"AGENTBUS_LISTEN": "tcp://127.0.0.1:7411"}, {"AGENTBUS_ADVERTISE": "tcp://10.0.0.1:7411"}]
)
def test_instances_cannot_share_an_address(town: Town, more: dict[str, str]) -> None:
    program = town.start("run", "counting:counter", "--instances", "2", **more)
    program.until("[config.instances]")
    assert program.process.wait(60) == 2


@pytest.mark.parametrize("way", ["command", "method"])
@pytest.mark.parametrize("by", ["its own name", "another name"])
async def test_the_command_and_the_method_behave_alike(town: Town, way: str, by: str) -> None:
    """Under its own name or under AGENTBUS_IDENTITY; SIGTERM ends both in good order."""
    more = {"AGENTBUS_IDENTITY": "other"} if by == "another name" else {}
    name = more.get("AGENTBUS_IDENTITY", "counter")
    if way == "command":
        program = town.start("run", "counting:counter", **more)
    else:
        program = Program(sys.executable, "counting.py", cwd=town.folder, env={**town.env, **more})
        town.programs.append(program)
    async with asyncio.timeout(60):
        while town.run("agent", "show", name, "--json")["running"] == 0:
            assert program.process.poll() is None, program.lines
    (answer,) = await askings(town, name, 1)
    assert answer == {"process": program.process.pid, "name": name}
    assert program.stop() == 0
    assert not [line for line in program.lines if "Traceback" in line]
    assert town.run("agent", "show", name, "--json")["running"] == 0


async def test_as_wins_over_the_environment(town: Town, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    program = town.start(
        "run", "counting:counter", "--as", "other", "--json", "--ready-file", str(ready), AGENTBUS_IDENTITY="counter"
    )
    told = json.loads(program.until('"ready"'))
    assert told["id"] == "spiffe://agents.local/agent/other" and told["endpoints"][0].startswith("tcp://127.0.0.1:")
    async with asyncio.timeout(20):
        while not ready.exists():
            await asyncio.sleep(0.01)
    assert (await askings(town, "other", 1))[0]["name"] == "other"
    assert program.stop() == 0 and not ready.exists()
