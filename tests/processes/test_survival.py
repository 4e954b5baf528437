"""``agentbus up`` and what a directory survives, with its nodes real and their mirrors in files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentbus import AgentBusError, Bus
from agentbus.connect import BusUrl, log_folder
from agentbus.directory import evidence, survival
from agentbus.directory.data import DirectoryData
from agentbus.home import key_path
from agentbus.host import DirectoryHost, make_operator
from agentbus.runtime.admin import CreatePrincipal, List
from tests.processes.rotating import Next, adder

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("AGENTBUS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


async def command(*arguments: str) -> Process:
    words = (sys.executable, "-m", "agentbus.cli.main", *arguments)
    return await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, cwd=ROOT)


async def does(*arguments: str) -> Any:
    process = await command(*arguments, "--json")
    out, error = await process.communicate()
    assert process.returncode == 0, (out, error)
    return json.loads(out)


async def fails(code: str, *arguments: str) -> None:
    process = await command(*arguments, "--json")
    out, _ = await process.communicate()
    assert process.returncode != 0 and json.loads(out)["error"]["code"] == code, out


# ── up ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_up_on_an_empty_folder_makes_everything_and_stops_cleanly(tmp_path: Path, home: Path) -> None:
    data = str(tmp_path / "data")
    process = await command("up", "--data", data, "--port", "0", "--domain", "agents.example", "--json")
    assert process.stdout is not None
    told = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    url = BusUrl.parse(told["bus"])
    assert told["domain"] == "agents.example"
    assert json.loads((home / "profile.json").read_text("utf-8"))["url"] == told["bus"]
    secrets = [key_path("user/operator"), tmp_path / "data/keys/root.json", tmp_path / "data/keys/online.json"]
    assert [p.stat().st_mode & 0o777 for p in secrets] == [0o600] * 3

    await fails("config.in_use", "up", "--data", data, "--port", "0")
    created = await does("agent", "create", "planner")  # a signed request of user/operator, and of nobody else
    assert created["token"].startswith("abe_")
    key_path("user/operator").rename(home / "away.json")
    await fails("key.missing", "agent", "create", "writer")
    (home / "away.json").rename(key_path("user/operator"))

    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    again = await command("up", "--data", data, "--port", str(url.port), "--json")
    assert again.stdout is not None
    assert json.loads(await asyncio.wait_for(again.stdout.readline(), 30)) == told
    again.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(again.wait(), 30) == 0


async def test_the_root_key_can_be_away_and_online_keys_change_under_the_same_url(tmp_path: Path) -> None:
    data, stick = tmp_path / "data", tmp_path / "root.json"
    first = DirectoryHost(data, listen="tcp://127.0.0.1:*", domain="agents.example")
    await first.open()
    operator = make_operator(first.core, key_path("user/operator"), now=first.clock.now())
    assert operator is not None
    (data / "keys" / "root.json").rename(stick)
    port = first.url.port
    async with Bus.connect(str(first.url), identity=operator, listen="") as bus:
        await bus.request("service/directory", CreatePrincipal(name="planner"))
        await fails("config.in_use", "directory", "rotate-online", "--data", str(data), "--root-key", str(stick))
        await first.aclose()
        await fails("config.root_away", "directory", "rotate-online", "--data", str(data))
        keys = (await does("directory", "rotate-online", "--data", str(data), "--root-key", str(stick)))["keys"]
        second = DirectoryHost(data, listen=f"tcp://127.0.0.1:{port}")
        await second.open()
        assert str(second.url) == str(first.url) and len(set(keys.values())) == 4
        async with asyncio.timeout(30):
            while True:  # the node that ran all the time goes on: it folds what the root said
                try:
                    found = (await bus.request("service/directory", List(), timeout=5)).agents
                    break
                except AgentBusError:
                    await asyncio.sleep(0.1)
        assert [card.id.rpartition("/")[2] for card in found] == ["planner"]
        await second.aclose()


async def test_a_start_that_failed_leaves_nothing_behind(tmp_path: Path) -> None:
    first = DirectoryHost(tmp_path / "first", listen="tcp://127.0.0.1:*")
    await first.open()
    port = first.url.port
    second = DirectoryHost(tmp_path / "second", listen=f"tcp://127.0.0.1:{port}")
    tasks = asyncio.all_tasks()
    with pytest.raises(AgentBusError) as caught:
        await second.open()
    assert caught.value.code == "config.transport", caught.value
    assert asyncio.all_tasks() == tasks
    await first.aclose()
    await second.open()  # the same object, the same folder
    await second.aclose()


async def test_a_directory_that_could_not_write_for_a_moment_goes_on(
    town: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One error of the disk, and nobody would ever hear a head of it again."""
    core, works, failed = town.host.core, town.host.core.head, asyncio.Event()

    def fails_once(now: int) -> bytes:
        failed.set()
        monkeypatch.setattr(core, "head", works)
        raise OSError("no space left on device")

    async with town.bus() as bus:
        heard = bus._node.source.trust.head.instant
        monkeypatch.setattr(core, "head", fails_once)
        async with asyncio.timeout(30):
            await failed.wait()
            while bus._node.source.trust.head.instant <= heard or bus._node.source.problem is not None:
                await asyncio.sleep(0.05)
        await bus.request("service/directory", CreatePrincipal(name="planner"))


async def test_a_node_that_could_not_take_an_answer_in_hears_the_next(
    town: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of the node's own, of any kind: it does not go deaf, and blind to revocations, until it is restarted."""
    async with town.bus() as bus:
        source = bus._node.source
        works, failed = source._accept_head, 0

        def fails(*arguments: Any, **named: Any) -> None:
            nonlocal failed
            failed += 1
            if failed == 3:
                monkeypatch.setattr(source, "_accept_head", works)
            raise RuntimeError("a fault")

        monkeypatch.setattr(source, "_accept_head", fails)
        source._hint.set()
        async with asyncio.timeout(30):
            while failed < 3 or source.problem is not None:
                await asyncio.sleep(0.05)
        assert not source._loop.done()
        await bus.request("service/directory", CreatePrincipal(name="planner"))


# ── backups ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Town:
    """A directory in this process that can be stopped and restored, and an operator's node with its mirror."""

    def __init__(self, folder: Path) -> None:
        self.data, self.backup = folder / "data", folder / "backup"
        self.host: DirectoryHost

    async def start(self, port: int | str = "*") -> None:
        self.host = DirectoryHost(self.data, listen=f"tcp://127.0.0.1:{port}", domain=None, max_age=5)
        await self.host.open()
        make_operator(self.host.core, key_path("user/operator"), now=self.host.clock.now())

    async def restore(self) -> None:
        port = self.host.url.port
        await self.host.aclose()
        shutil.rmtree(self.data)
        shutil.copytree(self.backup, self.data)
        await self.start(port)

    def bus(self) -> Any:
        return Bus.connect(str(self.host.url), identity="user/operator", listen="")


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    made = Town(tmp_path)
    await made.start()
    survival.back_up(made.data, made.backup)
    yield made
    await made.host.aclose()


async def test_a_restored_backup_refuses_to_sign_until_it_was_continued_from_a_mirror(town: Town) -> None:
    async with town.bus() as bus:
        await bus.request("service/directory", CreatePrincipal(name="planner"))
        size = bus._node.source.trust.size
    await town.restore()
    assert town.host.core.trust.size < size
    with pytest.raises(AgentBusError) as caught:  # the node shows the head it saw, and is told
        async with town.bus():
            pass
    assert caught.value.code == "directory.restored" and town.host.core.behind == size
    for sign in (town.host.core.head, lambda now: town.host.core.time_leaf(b"x", now=now)):
        with pytest.raises(AgentBusError) as caught:
            sign(town.host.clock.now())
        assert caught.value.code == "directory.restored"
    port = town.host.url.port
    await town.host.aclose()
    added = await does("directory", "recover", str(log_folder("user-operator")), "--data", str(town.data))
    assert added["size"] == size
    await town.start(port)
    async with town.bus() as bus:
        found = (await bus.request("service/directory", List())).agents
        assert [card.id.rpartition("/")[2] for card in found] == ["planner"]
    own = await does("directory", "rebuild", str(town.data), "--root", str(town.host.url).partition("#")[2])
    mirror = await does("directory", "rebuild", str(log_folder("user-operator")), "--root", str(town.host.url))
    assert {**own, "seconds": 0} == {**mirror, "seconds": 0} and own["size"] >= size


async def test_a_backup_older_than_its_online_keys_refuses_to_sign_as_a_whole_and_goes_on_by_the_root_keys_word(
    town: Town,
) -> None:
    """It cannot verify the newer heads by itself: the entry by which the root introduced their key convinces it."""
    port, data, stick = town.host.url.port, str(town.data), str(town.data.with_name("root.json"))
    (town.data / "keys" / "root.json").rename(stick)
    rotate = ("directory", "rotate-online", "--data", data, "--root-key", stick)
    for name in ("planner", "writer"):  # the keys change twice: the backup knows neither the first nor the second
        await town.host.aclose()
        await does(*rotate)
        await town.start(port)
        async with town.bus() as bus:
            await bus.request("service/directory", CreatePrincipal(name=name))
            size = bus._node.source.trust.size
    await town.restore()
    core = town.host.core
    assert core.behind == 0 and core.head(town.host.clock.now())
    with pytest.raises(AgentBusError) as caught:
        async with town.bus():
            pass
    assert caught.value.code == "directory.restored" and core.behind == size
    for sign in (core.head, lambda now: core.time_leaf(b"x", now=now)):
        with pytest.raises(AgentBusError) as caught:
            sign(town.host.clock.now())
        assert caught.value.code == "directory.restored"
    await town.host.aclose()
    for _ in range(2):  # again, with what another mirror has
        await does("directory", "recover", str(log_folder("user-operator")), "--data", data)
    await fails("config.keys", "up", "--data", data, "--port", str(port))
    await does(*rotate)
    await town.start(port)
    async with town.bus() as bus:
        found = (await bus.request("service/directory", List())).agents
        assert sorted(card.id.rpartition("/")[2] for card in found) == ["planner", "writer"]
        await bus.request("service/directory", CreatePrincipal(name="third"))
    own = await does("directory", "rebuild", data, "--root", str(town.host.url).partition("#")[2])
    mirror = await does("directory", "rebuild", str(log_folder("user-operator")), "--root", str(town.host.url))
    assert {**own, "seconds": 0} == {**mirror, "seconds": 0} and own["size"] > size
    await town.host.aclose()
    await does(*rotate)  # and from then on as ever
    await town.start(port)


async def test_a_directory_that_went_its_own_way_leaves_evidence_at_every_node(town: Town) -> None:
    """It was restored, and signed other entries before any node could show it what it had signed."""
    async with town.bus() as bus:
        await bus.request("service/directory", CreatePrincipal(name="planner"))
        size = bus._node.source.trust.size
    await town.restore()
    core = town.host.core
    while core.trust.size <= size:
        core.time_leaf(os.urandom(16), now=town.host.clock.now())
    with pytest.raises(AgentBusError) as caught:
        async with town.bus():
            pass
    assert caught.value.code == "reject.head_forked"
    kept = Path(caught.value.details["evidence"])
    told = await does("directory", "check", str(kept), "--root", str(town.host.url).partition("#")[2])
    assert told["kind"] == "fork" and told["size"] == core.trust.size
    await fails("reject.evidence", "directory", "check", str(kept), "--root", "A" * 43)


async def test_a_backup_is_made_while_the_directory_runs(town: Town, tmp_path: Path) -> None:
    async with town.bus() as bus:
        for n in range(20):
            await bus.request("service/directory", CreatePrincipal(name=f"agent-{n}"))
            if n == 10:
                made = await does("directory", "backup", str(tmp_path / "more"), "--data", str(town.data))
    with DirectoryData(tmp_path / "more") as copy:
        core = copy.load(now=town.host.clock.now())
        assert core.trust.size == made["entries"] and len(core.trust.principals) >= 12
        core.close()


async def test_an_operator_whose_key_was_lost_gets_another_on_the_directorys_machine(town: Town) -> None:
    key_path("user/operator").unlink()
    await fails("config.in_use", "directory", "operator", "--data", str(town.data))
    port = town.host.url.port
    await town.host.aclose()
    await does("directory", "operator", "--data", str(town.data))
    await town.start(port)
    async with town.bus() as bus:
        await bus.request("service/directory", CreatePrincipal(name="planner"))


async def test_a_node_goes_on_from_its_mirror_and_a_damaged_one_begins_anew(town: Town) -> None:
    async with town.bus() as bus:
        await bus.request("service/directory", CreatePrincipal(name="planner"))
    mirror = log_folder("user-operator") / "directory.sqlite"
    size = mirror.stat().st_size
    async with town.bus() as bus:
        assert bus._node.source.trust.principal(bus._node.name_id("planner")) is not None
    mirror.write_bytes(os.urandom(size))
    async with town.bus() as bus:
        assert bus._node.source.trust.principal(bus._node.name_id("planner")) is not None
    assert evidence.root_entries(survival.mirrored(log_folder("user-operator")))
    proof, folder = str(log_folder("x").with_name("proof.json")), str(log_folder("user-operator"))
    told = await does("directory", "prove", "3", proof, "--log", folder)
    shown = await does("directory", "check", proof, "--root", str(town.host.url))
    assert (shown["kind"], shown["entry"], shown["size"]) == ("entry", 3, told["size"])
    await fails("log.directory_mirror", "directory", "prove", "9999", proof, "--log", folder)


async def test_two_peers_that_are_shown_two_histories_find_out_from_each_other(town: Town, tmp_path: Path) -> None:
    """The directory shows one of them another log. Each message names a size; one asks for the head, and has proof."""
    everybody = ["spiffe://agents.local/group/all"]
    for name, record in (("adder", {"ceiling": ["sum"]}), ("user/alice", {"rights": ["sum"]})):
        town.host.enrol(name, may_talk_to=everybody, **record).save(key_path(name))
    url = str(town.host.url)
    async with (
        Bus.connect(url, identity="adder") as served,
        served.serve(adder),
        Bus.connect(url, identity="user/alice", listen="") as bus,
    ):
        alice = bus.as_user(["sum"])
        assert (await alice.request("adder", Next(n=1))).n == 2
        survival.back_up(town.data, tmp_path / "other")
        other = DirectoryHost(tmp_path / "other", listen="tcp://127.0.0.1:*")
        await other.open()
        for host in (town.host, other):
            host.core.time_leaf(os.urandom(16), now=host.clock.now())
        hers = bus._node.source
        hers._endpoint = other.url.endpoint  # from here on she is shown the other history
        hers._connection.drop()
        async with asyncio.timeout(30):
            while hers.trust.size < other.core.trust.size or hers.problem is not None:
                await asyncio.sleep(0.05)
        his = served._node.source
        served._node.gossip._asked.clear()  # a minute has passed
        bus._node.gossip._answered.clear()
        assert his.forked is None
        async with asyncio.timeout(30):
            while his.forked is None and hers.forked is None:
                with contextlib.suppress(AgentBusError):
                    await alice.request("adder", Next(n=1), timeout=5)
                await asyncio.sleep(0.05)
        convicted = his if his.forked is not None else hers
        assert convicted.age() is None  # nothing new is believed: it fails closed
        kept = Path(convicted.forked.details["evidence"])
        told = evidence.check(kept.read_text("utf-8"), town.host.core.trust.root)
        assert told["kind"] == "fork"
        await other.aclose()
