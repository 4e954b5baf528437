"""libzmq ends the process when a listener that it dials answers the handshake with a key of low order (docs/adr/0016).

That cannot be prevented from Python, so it is contained: nothing that was acknowledged is lost, callers get a typed
error, nobody else notices, and a supervisor brings the agent back.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nacl.public import PrivateKey

from agentbus import AgentGone, Bus, Identity, Raw
from agentbus.audit import Evidence
from agentbus.bus.opening import connect_bus
from agentbus.connect import BusUrl
from agentbus.wire.header import Kind
from tests.processes.test_failures import World, world  # noqa: F401  # the fixture
from tests.processes.worker import Poke, Work
from tests.transport.curve import HostileListener


@pytest.fixture
async def mallory(world: World, tmp_path: Path) -> AsyncIterator[HostileListener]:  # noqa: F811
    """Enrolled, running, and listening with something that is no libzmq."""
    async with Bus.connect(world.url, identity="user/operator", listen="") as operator:
        token = await operator.request("service/directory", Raw("CreatePrincipal", {"name": "mallory"}))
    identity = await Identity.enrol("mallory", token=token["token"], url=world.url)
    listener = HostileListener(PrivateKey(identity.curve.secret))
    url = BusUrl.parse(world.url)
    where = {"listen": "tcp://127.0.0.1:*", "advertise": listener.endpoint}
    bus = await connect_bus(url, identity, folder=tmp_path / "mallory", **where)
    yield listener
    await bus.aclose()
    listener.close()


async def test_a_hostile_listener_ends_one_process_and_nothing_that_was_acknowledged(
    world: World,  # noqa: F811
    mallory: HostileListener,
) -> None:
    async with Bus.connect(world.url, identity="caller", listen="") as bus:
        for number in range(50):
            assert (await bus.request("worker", Work(n=number))).n == number
        victim = world.processes["worker"]
        with pytest.raises(AgentGone) as caught:
            await bus.request("worker", Poke(to="mallory"), timeout=30)
        assert caught.value.retryable
        async with asyncio.timeout(20):
            code = await victim.wait()
        assert mallory.welcomed >= 1
        assert code == -signal.SIGABRT, "libzmq survives this now: strike it from docs/threats.md and the decision"

        await bus.discover()  # the directory, which dials nobody, serves
        await world.worker()  # what a supervisor does
        assert (await bus.request("worker", Work(n=50))).n == 50
    world.processes["worker"].terminate()
    await world.processes["worker"].wait()
    world.processes["up"].terminate()
    await world.processes["up"].wait()

    logs = world.folder / "home" / "logs"
    pin = world.url.partition("#")[2]
    evidence = Evidence.open(logs / "worker", logs / "caller", directory=world.folder / "data" / "directory", root=pin)
    report = evidence.verify()
    assert {name: verdict.problems for name, verdict in report.items() if verdict.ok is False} == {}
    seen = Counter(
        (message.log, message.digest)
        for message in evidence.messages(action="Work")
        if message.header.kind == Kind.REQUEST and message.direction == ("sent", "received")[message.log == "worker"]
    )
    asked = {digest for log, digest in seen if log == "caller"}
    assert len(asked) == 51
    assert {seen["worker", digest] for digest in asked} == {1}
