"""An identity's whole life by command line, with every process real: directory, agents and whoever administers them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentbus import AgentGone, Bus, DirectoryRefused, Identity
from agentbus.cli.main import cli, main
from agentbus.home import key_path
from agentbus.wire.ids import unb64
from tests.processes.rotating import Next, Relay, adder

ROOT = Path(__file__).parents[2]


class World:
    """A directory process, agents' processes, and the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []

    async def start(self, *arguments: str) -> Process:
        command = (sys.executable, "-m", "agentbus.cli.main", *arguments)
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, cwd=ROOT)
        self.processes.append(process)
        return process

    async def directory(self) -> None:
        process = await self.start("up", "--data", str(self.folder / "data"), "--port", "0")
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"bus ")

    async def serve(self, name: str) -> Process:
        ready = self.folder / f"ready-{name}"
        process = await self.start("run", f"tests.processes.rotating:{name}", "--ready-file", str(ready))
        async with asyncio.timeout(30):
            while not ready.exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)
        return process

    async def run(self, *arguments: str) -> tuple[int, Any]:
        """A command's exit status and its JSON; in a thread of this process, since starting Python costs most of it."""
        return await asyncio.to_thread(_run, [*arguments, "--json"])

    async def run_elsewhere(self, *arguments: str) -> Any:
        """The JSON of a command in a process of its own."""
        process = await self.start(*arguments, "--json")
        out, _ = await process.communicate()
        assert process.returncode == 0
        return json.loads(out)

    async def does(self, *arguments: str) -> Any:
        code, value = await self.run(*arguments)
        assert code == 0, value
        return value

    async def refuses(self, code: str, *arguments: str) -> None:
        status, value = await self.run(*arguments)
        assert status != 0 and value["error"]["code"] == code, value

    async def enrol(self, group: str, name: str, *options: str) -> None:
        token = (await self.does(group, "create", name, *options))["token"]
        await self.does(group, "enrol", name, "--token", token)


def _run(arguments: list[str]) -> tuple[int, Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stopped:
        main(arguments)
    return int(stopped.value.code or 0), json.loads(out.getvalue())


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for name in [name for name in os.environ if name.startswith("AGENTBUS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path / "home"))
    made = World(tmp_path)
    try:
        await made.directory()
        yield made
    finally:
        for process in made.processes:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()


async def test_a_serving_agent_is_rotated_from_another_process_and_no_message_is_refused(world: World) -> None:
    """Two hundred requests a second go through an agent that delegates further, while both keys are rotated twice."""
    await world.enrol("agent", "adder", "--may-talk-to", "*")
    await world.enrol("agent", "relay", "--may-talk-to", "*", "--ceiling", "sum")
    await world.enrol("user", "alice", "--right", "sum")
    await world.serve("adder")
    await world.serve("relay")
    asked: list[asyncio.Task[Any]] = []
    keys: dict[str, set[str]] = {"adder": set(), "relay": set()}
    async with Bus.connect(identity="user/alice", listen="") as bus:
        alice = bus.as_user(["sum"])
        await alice.request("relay", Relay(n=0), delegate=["sum"], timeout=30)
        stop = asyncio.Event()

        async def load() -> None:
            while not stop.is_set():
                asked.append(asyncio.create_task(alice.request("relay", Relay(n=1), delegate=["sum"], timeout=30)))
                await asyncio.sleep(0.005)

        loading = asyncio.create_task(load())
        for _ in range(2):
            for name in keys:
                turned = await world.run_elsewhere("agent", "rotate", name, "--overlap", "60s")
                keys[name] |= {turned["old"], turned["new"]}
                await until_it_speaks_under(bus, name, turned["new"])
        stop.set()
        await loading
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [a for a in answers if isinstance(a, BaseException)] == []
    assert len(answers) > 100 and all(a.n == 2 for a in answers if not isinstance(a, BaseException))
    for name, seen in keys.items():
        assert len(seen) == 3
        shown = (await world.does("agent", "show", name))["keys"]
        assert [key.split()[1] for key in shown] == ["retiring", "retiring", "active"]


async def until_it_speaks_under(bus: Bus, name: str, key: str) -> None:
    """The running process took the new key by itself: its newest instance statement is signed by it."""
    source = bus._node.source
    async with asyncio.timeout(30):
        while True:
            await source.find(principals=[bus._node.name_id(name)])
            known = source.trust.instances_of(bus._node.name_id(name), bus._node.clock.now())
            if any(instance.identity_key == unb64(key, 32) for instance in known):
                return
            await asyncio.sleep(0.05)


async def test_the_whole_life_of_a_service(world: World) -> None:
    """Create, enrol, rotate, suspend, resume, taint, lose the key, come back, be stolen from, come back, retire."""
    await world.enrol("service", "billing", "--purpose", "invoices", "--may-talk-to", "*", "--tag", "money")
    shown = await world.does("service", "show", "billing")
    assert shown["id"].endswith("/service/billing") and shown["owner"].endswith("/user/operator")
    assert (shown["purpose"], shown["tags"], shown["state"]) == ("invoices", ["money"], "active")

    first = await world.does("service", "rotate", "billing")
    second = await world.does("service", "rotate", "billing", "--overlap", "0s")
    assert first["new"] == second["old"]
    assert await states(world) == ["retiring", "retired", "active"]

    await world.does("service", "suspend", "billing")
    await world.refuses("unavailable.directory_refused", "service", "rotate", "billing")  # it gets no connection
    await world.refuses("directory.no_change", "service", "suspend", "billing")
    await world.does("service", "resume", "billing")

    await world.does("service", "taint", "billing")
    await world.refuses("directory.must_rotate", "agent", "list", "--as", "service/billing")
    await world.does("service", "rotate", "billing")
    assert (await states(world))[-2:] == ["tainted", "active"]

    await world.refuses("directory.enrolled", "service", "token", "billing")
    token = (await world.does("service", "rotate", "billing", "--lost-key"))["token"]
    await world.refuses("key.exists", "service", "enrol", "billing", "--token", token)
    await world.does("service", "enrol", "billing", "--token", token, "--replace")
    assert (await world.does("service", "show", "billing"))["epoch"] == 2

    await world.does("service", "compromised", "billing", "--since", "1h")
    assert (await world.does("service", "show", "billing"))["epoch"] == 3
    token = (await world.does("service", "rotate", "billing", "--lost-key"))["token"]
    await world.does("service", "enrol", "billing", "--token", token, "--replace")
    assert (await states(world))[-2:] == ["compromised", "active"]

    async with Bus.connect(identity="service/billing", listen="") as bus:
        receipt = world.folder / "receipt.json"
        ended = await world.does("service", "retire", "billing", "--reason", "moved", "--receipt", str(receipt))
        told = await world.does("directory", "check", str(receipt))
        assert told["ok"] and told["principal"].endswith("/service/billing") and told["reason"] == "moved"
        assert len(told["keys"]) >= 1 and len(told["instances"]) == 1 and len(told["grants"]) == 1
        assert bus._voice.standing.id == told["grants"][0]
        assert json.loads(receipt.read_text("utf-8")) == ended["receipt"]
    await world.refuses("directory.ended", "service", "retire", "billing")
    await world.refuses("directory.name_taken", "service", "create", "billing")
    await world.refuses("directory.ended", "service", "rotate", "billing", "--lost-key")

    for old, new in (('"moved"', '"stolen"'), (told["keys"][0], "A" * 43)):
        forged = receipt.read_text("utf-8").replace(old, new)
        if forged != receipt.read_text("utf-8"):
            receipt.with_name("forged.json").write_text(forged, "utf-8")
            status, _ = await world.run("directory", "check", str(receipt.with_name("forged.json")))
            assert status != 0


async def states(world: World) -> list[str]:
    return [key.split()[1] for key in (await world.does("service", "show", "billing"))["keys"]]


async def test_only_owner_and_operator_sponsor_and_only_the_owner_ends(world: World) -> None:
    await world.enrol("agent", "mallory", "--may-talk-to", "*")
    await world.enrol("user", "olga", "--right", "sum")
    await world.enrol("agent", "adder", "--may-talk-to", "*", "--owner", "user/olga")
    for command in (("suspend",), ("taint",), ("compromised", "--since", "1h"), ("retire",)):
        await world.refuses("directory.not_owner", "agent", command[0], "adder", *command[1:], "--as", "mallory")
    for who in ("mallory", "adder"):
        await world.refuses("directory.not_sponsor", "agent", "rotate", "adder", "--lost-key", "--as", who)
    back_dated = ("compromised", "adder", "--since", "1h")  # it would disown what it signed
    await world.refuses("directory.not_sponsor", "agent", *back_dated, "--as", "adder")
    await world.does("agent", "suspend", "adder", "--as", "user/olga")
    await world.does("agent", "resume", "adder", "--as", "user/olga")
    await world.does("agent", "rotate", "adder", "--lost-key", "--as", "user/olga")


async def test_a_rotation_over_the_bus_that_serves(world: World) -> None:
    """`await bus.rotate()`: the process that serves rotates its own key, and its key file is the new one."""
    await world.enrol("agent", "adder", "--may-talk-to", "*")
    await world.enrol("user", "alice", "--right", "sum")
    before = Identity.load("adder")
    async with (
        Bus.connect(identity="adder") as bus,
        bus.serve(adder),
        Bus.connect(identity="user/alice", listen="") as hers,
    ):
        alice = hers.as_user(["sum"])
        assert (await alice.request("adder", Next(n=1))).n == 2
        await bus.rotate(overlap=0)
        assert (await alice.request("adder", Next(n=2))).n == 3
    after = Identity.load("adder")
    assert after.key.id != before.key.id and after.curve.public == before.curve.public
    async with Bus.connect(identity="adder", listen=""):
        pass
    with pytest.raises(DirectoryRefused) as caught:
        async with Bus.connect(identity=Identity(before.id, before.key, before.curve), listen=""):
            pass
    assert caught.value.code == "directory.no_standing"


async def test_a_key_is_published_before_it_is_used(world: World) -> None:
    """Prepared twice is once; the agent serves under its old key until the new one is activated, and after that."""
    await world.enrol("agent", "adder", "--may-talk-to", "*")
    await world.enrol("user", "alice", "--right", "sum")
    await world.serve("adder")
    await world.refuses("config.not_prepared", "agent", "rotate", "adder", "--activate")
    await world.refuses("config.rotate", "agent", "rotate", "adder", "--activate", "--prepare")
    first = await world.does("agent", "rotate", "adder", "--prepare")
    assert await world.does("agent", "rotate", "adder", "--prepare") == first

    async def keys() -> list[str]:
        return [key.split()[1] for key in (await world.does("agent", "show", "adder"))["keys"]]

    assert await keys() == ["active", "prepared"]
    async with Bus.connect(identity="user/alice", listen="") as bus:
        alice = bus.as_user(["sum"])
        assert (await alice.request("adder", Next(n=1))).n == 2
        done = await world.does("agent", "rotate", "adder", "--activate")
        assert (done["old"], done["new"]) == (first["old"], first["prepared"])
        assert await keys() == ["retiring", "active"]
        assert (await alice.request("adder", Next(n=1))).n == 2
    again = await world.does("agent", "rotate", "adder")
    assert again["old"] == first["prepared"] and again["new"] != first["prepared"]


async def test_a_retired_agent_is_gone_and_a_suspended_one_comes_back(world: World) -> None:
    await world.enrol("agent", "adder", "--may-talk-to", "*")
    await world.enrol("user", "alice", "--right", "sum")
    await world.serve("adder")
    async with Bus.connect(identity="user/alice", listen="") as bus:
        alice = bus.as_user(["sum"])
        assert (await alice.request("adder", Next(n=1))).n == 2
        await world.does("agent", "suspend", "adder")
        with pytest.raises(AgentGone) as caught:
            await alice.request("adder", Next(n=1), timeout=5)
        assert caught.value.code == "agent.not_active"
        await world.does("agent", "resume", "adder")
        async with asyncio.timeout(30):
            while True:
                try:
                    assert (await alice.request("adder", Next(n=1), timeout=5)).n == 2
                    break
                except AgentGone as error:
                    assert error.code in ("agent.not_active", "agent.not_running")
                    await asyncio.sleep(0.1)
        await world.does("agent", "retire", "adder")
        with pytest.raises(AgentGone) as caught:
            await alice.request("adder", Next(n=1), timeout=5)
        assert caught.value.code == "agent.not_active"


async def test_a_locked_key_file_serves_and_is_rotated_as_any_other(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The passphrase is in a file that the service and the commands read; a person would be asked for it."""
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n", "utf-8")
    monkeypatch.setenv("AGENTBUS_KEY_PASSPHRASE_FILE", str(secret))
    await world.enrol("agent", "adder", "--may-talk-to", "*")
    await world.enrol("user", "alice", "--right", "sum")
    assert "box" in json.loads(key_path("adder").read_text("utf-8"))
    await world.serve("adder")
    turned = await world.does("agent", "rotate", "adder")
    assert "box" in json.loads(key_path("adder").read_text("utf-8"))
    async with Bus.connect(identity="user/alice", listen="") as bus:
        await until_it_speaks_under(bus, "adder", turned["new"])
        assert (await bus.as_user(["sum"]).request("adder", Next(n=1))).n == 2
    secret.write_text("wrong horse\n", "utf-8")
    await world.refuses("key.passphrase", "agent", "rotate", "adder")
    monkeypatch.delenv("AGENTBUS_KEY_PASSPHRASE_FILE")
    await world.refuses("key.locked", "agent", "rotate", "adder")
    prompted = CliRunner().invoke(
        cli, ["agent", "enrol", "writer", "--passphrase", "--token", "abe_x"], input="one\nother\n"
    )
    assert prompted.exit_code != 0 and "do not match" in prompted.output and "one" not in prompted.output


async def test_nobody_ends_the_directory_or_the_last_operator(world: World) -> None:
    for arguments in (
        ("service", "retire", "directory"), ("service", "suspend", "directory"), ("service", "taint", "directory"),
        ("service", "compromised", "directory", "--since", "1h"), ("service", "rotate", "directory", "--lost-key"),
        ("service", "revoke", "directory", "--reason", "x"),
    ):  # fmt: skip
        await world.refuses("directory.itself", *arguments)
    for arguments in (("user", "retire", "operator"), ("user", "disable", "operator"),
                      ("user", "revoke", "operator", "--reason", "x")):  # fmt: skip
        await world.refuses("directory.last_operator", *arguments)
    await world.does("user", "list")
