"""Whole trust domains in virtual time, under every fault at once: what must hold, holds for every seed.

A seed that fails is a test case by itself: the error names it, and ``simulate(seed)`` is the same run again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from agentbus.replay.pace import PacedLoop
from agentbus.transport import memory

from .faults import FaultyHalf
from .invariants import Run, audit
from .town import CEILINGS, Town

SECONDS = 12
"""Of virtual time in which things are asked; what is under way then has as long to end."""


async def life(town: Town) -> None:
    """Half a minute of work, with faults; then the network is whole again, and everything comes to its end."""
    chance = town.chance
    await town.open()
    tasks = [asyncio.create_task(town.work()) for _ in range(2)]
    revocation = chance.uniform(2, 10) if chance.random() < 0.4 else None
    end = asyncio.get_running_loop().time() + SECONDS
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(chance.uniform(0.1, 2))
        dice = chance.random()
        if dice < 0.6:
            tasks.append(asyncio.create_task(town.work()))
        elif dice < 0.75:
            town.part(*chance.sample(["directory", *CEILINGS, "user/alice"], 2))
        elif dice < 0.85:
            town.join()
        elif dice < 0.93:
            running = sorted(town.running & set(CEILINGS))
            if running:
                tasks.append(asyncio.create_task(town.crash(chance.choice(running))))
        if revocation is not None and asyncio.get_running_loop().time() > revocation:
            town.revoke(chance.choice(["payer", "reader", "user/alice"]))
            revocation = None
        for name, log in town.logs.items():
            if log.size and chance.random() < 0.3:
                town.notes.setdefault(name, []).append(log.checkpoint())
    town.join()
    town.faults.drop = 0
    _, late = await asyncio.wait(tasks, timeout=60)
    assert not late, late  # nothing hangs
    for task in tasks:
        task.result()
    await asyncio.sleep(15)


def simulate(seed: int, folder: Path | None = None) -> Counter[str]:
    """One run; what was asked, by what came of it."""
    town = Town(seed)
    with asyncio.Runner(loop_factory=lambda: PacedLoop(None)) as runner:
        try:
            runner.run(life(town))
            found = Run(town).check()
            if folder is not None:
                audit(town, folder)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        runner.run(town.aclose())
    told = Counter({f"{finding.what} {finding.blame}": 1 for finding in found.findings})
    return town.outcomes + told


@pytest.fixture(autouse=True)
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_Half", FaultyHalf)


def test_a_seed_is_the_same_run_each_time() -> None:
    assert simulate(7) == simulate(7) != simulate(8)


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_the_invariants_hold(first: int, tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(first, first + 50):
        outcomes += simulate(seed, tmp_path / str(seed) if seed % 25 == 0 else None)
    assert outcomes["ok"] > 100 and len(outcomes) > 8, outcomes  # faults happened, and so did work


@pytest.mark.campaign
def test_the_invariants_hold_for_5_000_seeds(tmp_path: Path) -> None:
    for seed in range(10_000, 15_000):
        simulate(seed, tmp_path / str(seed) if seed % 100 == 0 else None)
