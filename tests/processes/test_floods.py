"""Floods, broken lines and slow readers, seen from outside: real processes, and somebody in the middle."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentbus import Agent, AgentBusError, AgentGone, Backpressure, Bus, Context, Identity, Raw, Request
from agentbus.audit import Evidence
from agentbus.bus.opening import connect_bus
from agentbus.host import DirectoryHost
from agentbus.testing.raw import RawPeer
from agentbus.wire.ids import everyone
from tests.processes.test_failures import World, world  # noqa: F401  # the fixture
from tests.processes.worker import Done, Hog, Work
from tests.transport.proxy import between

Figure = Callable[[str, float, str], None]


def memory(pid: int | str) -> float:
    """MiB that a process has now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s*(\d+) kB", status)[0]) / 1024


async def enrol(world: World, name: str) -> Identity:  # noqa: F811
    async with Bus.connect(world.url, identity="user/operator", listen="") as operator:
        fields = {"name": name, "may_talk_to": ["*"]}
        token = await operator.request("service/directory", Raw("CreatePrincipal", fields))
    return await Identity.enrol(name, token=token["token"], url=world.url)


async def ask_many(bus: Bus, number: int) -> float:
    """So many requests, eight at a time, each of them answered; requests a second."""
    began = time.monotonic()
    todo = iter(range(number))

    async def one() -> None:
        for n in todo:
            assert (await bus.request("worker", Work(n=n), timeout=60)).n == n

    await asyncio.gather(*(one() for _ in range(8)))
    return number / (time.monotonic() - began)


@pytest.mark.parametrize("mode", ["valid", "forged"])
async def test_who_floods_waits_behind_itself_and_nobody_else_is_blamed(
    world: World,  # noqa: F811
    mode: str,
    figure: Figure,
) -> None:
    """A valid peer floods, with good messages and with messages in the caller's name; every honest one is answered."""
    identity = await enrol(world, "mallory")
    worker = world.processes["worker"].pid
    async with Bus.connect(world.url, identity="caller", listen="") as bus:
        await ask_many(bus, 200)
        alone = await ask_many(bus, 600)
        before = memory(worker)
        claimed = str(bus.id)
        command = [sys.executable, "-m", "tests.processes.flooder", mode, "mallory", "worker", claimed]
        root = Path(__file__).parents[2]
        flooder = await asyncio.create_subprocess_exec(*command, cwd=root, stdout=asyncio.subprocess.PIPE)
        try:
            assert flooder.stdout is not None
            assert await asyncio.wait_for(flooder.stdout.readline(), 30)
            flooded = await ask_many(bus, 200)
            grown = memory(worker) - before
        finally:
            with suppress(ProcessLookupError):
                flooder.kill()
            await flooder.wait()
        caller_key = bus._voice.identity.curve.public
    figure(f"under a flood of {mode} messages others keep", 100 * flooded / alone, "%")
    figure(f"under a flood of {mode} messages the agent grew by", grown, "MiB")
    world.processes["worker"].send_signal(signal.SIGTERM)
    await world.processes["worker"].wait()

    pin = world.url.partition("#")[2]
    log = world.folder / "home" / "logs" / "worker"
    evidence = Evidence.open(log, directory=world.folder / "data" / "directory", root=pin)
    report = evidence.verify()
    assert {name: verdict.problems for name, verdict in report.items() if verdict.ok is False} == {}
    blamed = {str(row["connection"]) for row in evidence.refusals()}
    assert not any(key in blamed for key in (caller_key.hex(), str(caller_key)))
    assert all(message.accepted for message in evidence.messages(agent="caller") if message.direction == "received")
    if mode == "forged":
        assert not any(message.sender == identity.id for message in evidence.messages())


# ── a line that breaks between the request and its reply ─────────────────────────────────────────────────────────────


class Pay(Request[Done]):
    n: int


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[DirectoryHost]:
    running = DirectoryHost(tmp_path / "directory", listen="tcp://127.0.0.1:*", domain="agents.example")
    await running.open()
    yield running
    await running.aclose()


@pytest.fixture
def bank() -> tuple[Agent[None], list[int]]:
    paid: list[int] = []
    agent: Agent[None] = Agent("bank")

    @agent.handler
    async def pay(request: Pay, ctx: Context[None]) -> Done:
        paid.append(request.n)
        return Done(n=request.n)

    return agent, paid


async def test_a_line_that_is_cut_before_each_answer_runs_nothing_twice_and_loses_nothing(
    host: DirectoryHost, bank: tuple[Agent[None], list[int]], tmp_path: Path
) -> None:
    """The proxy lets the request through, sees the answer's first bytes, and resets both sides instead."""
    agent, paid = bank
    talks: dict[str, Any] = {"may_talk_to": [everyone(host.core.domain)]}
    at_bank, identity = host.enrol("bank", **talks), host.enrol("planner", **talks)
    probe = await connect_bus(host.url, at_bank, listen="tcp://127.0.0.1:*", folder=tmp_path / "probe")
    endpoint = probe.endpoints[0]
    await probe.aclose()
    async with between(endpoint) as line:
        where = {"listen": endpoint, "advertise": line.endpoint}
        async with (
            await connect_bus(host.url, at_bank, folder=tmp_path / "bank", **where) as vault,
            await connect_bus(host.url, identity, listen=None, folder=tmp_path / "planner") as planner,
            vault.serve(agent),
        ):
            cuts = 0
            for number in range(20):
                swallowed = False

                def swallow(data: bytes, number: int = number) -> bool:
                    nonlocal swallowed, cuts
                    if number in paid and not swallowed:  # the handler ran, and this is what comes back
                        swallowed = True
                        cuts += 1
                        return False
                    return True

                line.on_reply = swallow
                assert (await planner.request("bank", Pay(n=number), timeout=30)).n == number
    assert cuts == 20 and line.connections > 20
    assert paid == list(range(20))


async def test_duplicates_run_no_handler_twice(
    host: DirectoryHost, bank: tuple[Agent[None], list[int]], tmp_path: Path
) -> None:
    """The same frame, again and again, over the connection that it came by and over another."""
    agent, paid = bank
    talks: dict[str, Any] = {"may_talk_to": [everyone(host.core.domain)]}
    at_bank, identity = host.enrol("bank", **talks), host.enrol("planner", **talks)
    async with (
        await connect_bus(host.url, at_bank, listen="tcp://127.0.0.1:*", folder=tmp_path / "bank") as vault,
        await connect_bus(host.url, identity, listen=None, folder=tmp_path / "planner") as planner,
        vault.serve(agent),
    ):
        peer = RawPeer(planner)
        sealed = await peer.seal("bank", Pay(n=7))
        assert await peer.deliver(sealed) == "ok"
        for _ in range(20):
            sealed.connection.offer(sealed.frame)
        assert (await planner.request("bank", Pay(n=8))).n == 8  # behind all of them
        sealed.connection.drop()
        again = planner._node.transport.dial(vault.endpoints[0], at_bank.curve.public)
        again.offer(sealed.frame)
        assert (await planner.request("bank", Pay(n=9), timeout=30)).n == 9
    assert paid == [7, 8, 9]


# ── a reader that does not read ──────────────────────────────────────────────────────────────────────────────────────


async def flood_a_hog(world: World, seconds: float, figure: Figure) -> None:  # noqa: F811
    async with Bus.connect(world.url, identity="caller", listen="") as bus:
        await ask_many(bus, 50)
        before = memory("self")
        hogging = asyncio.ensure_future(bus.request("worker", Hog(seconds=seconds), timeout=seconds + 10))
        await asyncio.sleep(0.2)  # it has begun; if not, what follows is only easier for it
        sent = 0
        with pytest.raises(Backpressure) as caught:
            for _ in range(100_000):
                await bus.send("worker", Work(n=sent), ack="sent")
                sent += 1
        assert caught.value.code == "backpressure.peer" and caught.value.retryable
        grown = memory("self") - before
        with suppress(AgentGone):  # with a queue that is full it answers no heartbeat, and soon counts as gone
            assert (await hogging).n == 1
        async with asyncio.timeout(seconds + 60):
            while True:
                try:
                    assert (await bus.request("worker", Work(n=3), timeout=30)).n == 3
                    break
                except AgentBusError as error:
                    assert error.retryable, error
                    await asyncio.sleep(0.05)
    figure(f"until backpressure, after {sent} messages, the sender grew by", grown, "MiB")


async def test_a_reader_that_does_not_read_means_backpressure(world: World, figure: Figure) -> None:  # noqa: F811
    await flood_a_hog(world, 20, figure)


@pytest.mark.campaign
async def test_a_reader_that_does_not_read_for_ten_minutes(world: World, figure: Figure) -> None:  # noqa: F811
    await flood_a_hog(world, 590, figure)  # its request may live for 600
