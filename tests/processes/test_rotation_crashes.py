"""Whoever is killed in the middle of a rotation or an enrolment has a usable identity afterwards."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentbus import Bus, Identity
from agentbus.enrolment import hearing
from agentbus.errors import AgentBusError, Unavailable
from agentbus.home import key_path
from agentbus.host import DirectoryHost
from agentbus.keyfile import KeyFile
from agentbus.runtime.admin import CreatePrincipal
from agentbus.runtime.trust_cache import TrustCache

ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio, sys
from agentbus import Identity
async def main():
    while True:
        await Identity.load("planner").rotate(url=sys.argv[1], overlap=0)
        print("rotated", flush=True)
asyncio.run(main())
"""


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DirectoryHost]:
    for name in [name for name in os.environ if name.startswith("AGENTBUS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path / "home"))
    running = DirectoryHost(tmp_path / "directory", listen="tcp://127.0.0.1:*", domain="agents.example")
    await running.open()
    yield running
    await running.aclose()


async def usable(host: DirectoryHost) -> None:
    """It connects, takes an instance, and its key file is the active key."""
    async with Bus.connect(str(host.url), identity="planner", listen=""):
        active = host.core.trust.active_key(host.core.trust.curve_keys[Identity.load("planner").curve.public])
        assert active is not None and Identity.load("planner").key.id == active.key.id


@pytest.mark.parametrize("where", ["before it is asked", "after it is taken", "before the file is replaced"])
async def test_a_rotation_that_stops_in_the_middle(
    host: DirectoryHost, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.enrol("planner", may_talk_to=[]).save(key_path("planner"))
    before = Identity.load("planner")

    class Killed(BaseException):
        pass

    ask, accept = TrustCache.rotate, KeyFile.accept

    async def rotate(self: TrustCache, *payload: Any) -> None:
        if where == "after it is taken":
            await ask(self, *payload)
        if where != "before the file is replaced":
            raise Killed
        await ask(self, *payload)

    def no_accept(self: KeyFile) -> None:
        raise Killed

    monkeypatch.setattr(TrustCache, "rotate", rotate)
    monkeypatch.setattr(KeyFile, "accept", no_accept)
    with pytest.raises(Killed):
        await before.rotate(url=str(host.url))
    monkeypatch.setattr(TrustCache, "rotate", ask)
    monkeypatch.setattr(KeyFile, "accept", accept)
    proposed = KeyFile(key_path("planner")).proposal.read()[0].key.id
    await usable(host)
    again = await Identity.load("planner").rotate(url=str(host.url))
    if where == "before it is asked":
        assert again.key.id == proposed  # the proposal was taken up
    await usable(host)
    assert not KeyFile(key_path("planner")).proposal.path.exists()


async def kill_while_rotating(host: DirectoryHost, times: int, seed: int) -> int:
    chance, rotated = random.Random(seed), 0
    for _ in range(times):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCRIPT, str(host.url), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, cwd=ROOT
        )
        assert process.stdout is not None and process.stderr is not None
        for _ in range(chance.randrange(1, 4)):
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert line == b"rotated\n", (seed, await process.stderr.read())
            rotated += 1
        await asyncio.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        await usable(host)
    return rotated


async def test_kill_9_while_rotating_leaves_a_usable_identity(host: DirectoryHost) -> None:
    host.enrol("planner", may_talk_to=[]).save(key_path("planner"))
    assert await kill_while_rotating(host, times=4, seed=1) >= 4


@pytest.mark.campaign
async def test_kill_9_while_rotating_a_hundred_times(host: DirectoryHost) -> None:
    host.enrol("planner", may_talk_to=[]).save(key_path("planner"))
    assert await kill_while_rotating(host, times=100, seed=2) >= 100


async def test_an_enrolment_whose_answer_was_lost_is_finished_by_trying_again(
    host: DirectoryHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentbus.bus import opening

    operator = host.enrol("user/operator", rights=None, may_talk_to=["spiffe://agents.example/group/all"])
    async with Bus.connect(str(host.url), identity=operator, listen="") as bus:
        token = (await bus.request("service/directory", CreatePrincipal(name="planner"))).token
    enrol = opening.enrol

    async def enrol_and_lose_the_answer(*arguments: Any) -> None:
        await enrol(*arguments)
        raise Unavailable("unavailable.enrolment", "the answer was lost")

    monkeypatch.setattr(opening, "enrol", enrol_and_lose_the_answer)
    with pytest.raises(AgentBusError):
        await Identity.enrol("planner", token=token, url=str(host.url))
    monkeypatch.setattr(opening, "enrol", enrol)
    assert not key_path("planner").exists()
    again = await Identity.enrol("planner", token=token, url=str(host.url))  # its token is used up, and that is fine
    assert host.core.trust.active_key(again.id) is not None
    await usable(host)


async def test_a_rotation_is_refused_over_somebody_elses_connection(host: DirectoryHost) -> None:
    """Mallory holds a rotation that planner signed, and sends it herself."""
    from agentbus.crypto.keys import SigningKey
    from agentbus.delegation.statements import Rotation

    planner, mallory = host.enrol("planner"), host.enrol("mallory")
    new = SigningKey(os.urandom(32))
    body = Rotation(
        "agents.example", planner.id, 1, planner.key.id, new.public.raw, "activate", 0, host.clock.now() + 30_000_000
    )
    async with hearing(host.url, mallory) as source:
        with pytest.raises(AgentBusError) as caught:
            await source.rotate(planner.id, *body.proven_by(planner.key, new))
    assert caught.value.code == "directory.not_owner"
