"""Handlers that do not wait share a task, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

from agentbus.runtime.eager import Row

seen: ContextVar[str] = ContextVar("seen", default="nothing")


def row(run: Any) -> tuple[Row[Any], list[asyncio.Task[Any]]]:
    tasks: list[asyncio.Task[Any]] = []

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        tasks.append(asyncio.get_running_loop().create_task(work))

    return Row(run, spawn), tasks


async def settle(tasks: list[asyncio.Task[Any]]) -> None:
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_those_that_do_not_wait_share_a_task() -> None:
    done = []

    async def run(n: int, task: asyncio.Task[Any]) -> None:
        assert asyncio.current_task() is task
        done.append(n)

    many, tasks = row(run)
    for n in range(100):
        many.add(n)
    await settle(tasks)
    assert done == list(range(100)) and len(tasks) == 1 and not len(many)


async def test_one_that_waits_holds_up_nobody_and_has_its_task_for_itself() -> None:
    """Each waits for the one behind it; timeouts, which ask for the task, work from the first line on."""
    events = [asyncio.Event() for _ in range(10)]
    order = []

    async def run(n: int, task: asyncio.Task[Any]) -> None:
        async with asyncio.timeout(60):
            if n < 9:
                await events[n + 1].wait()
        events[n].set()
        order.append(n)

    many, tasks = row(run)
    for n in range(10):
        many.add(n)
    await settle(tasks)
    assert order == list(range(9, -1, -1)) and len(tasks) == 10


async def test_those_that_wait_all_begin_in_the_second_step() -> None:
    """One a step would be a queue: whoever comes last waits for as many steps as others came before it."""
    begun: list[int] = []

    async def run(n: int, task: asyncio.Task[Any]) -> None:
        begun.append(n)
        await asyncio.sleep(0)

    many, tasks = row(run)
    for n in range(100):
        many.add(n)
    await asyncio.sleep(0)  # the first step: the first of them waits
    await asyncio.sleep(0)
    assert begun == list(range(100))
    await settle(tasks)
    assert len(tasks) == 100


async def test_to_cancel_one_is_to_cancel_it_alone() -> None:
    begun: dict[int, asyncio.Task[Any]] = {}
    ended = []

    async def run(n: int, task: asyncio.Task[Any]) -> None:
        begun[n] = task
        try:
            if n % 2:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(-n)  # swallowed: still nobody else feels it
        else:
            ended.append(n)

    many, tasks = row(run)
    for n in range(6):
        many.add(n)
    for _ in range(20):
        await asyncio.sleep(0)
    for n in (1, 3, 5):
        begun[n].cancel()
    await settle(tasks)
    assert sorted(ended) == [-5, -3, -1, 0, 2, 4]


async def test_who_cancels_its_own_task_and_does_not_wait_harms_nobody() -> None:
    done = []

    async def run(n: int, task: asyncio.Task[Any]) -> None:
        if n == 0:
            task.cancel()
        await asyncio.sleep(0) if n == 1 else None
        done.append(n)

    many, tasks = row(run)
    for n in range(3):
        many.add(n)
    await settle(tasks)
    assert sorted(done) == [0, 1, 2]


async def test_what_one_sets_in_its_context_no_other_sees() -> None:
    """An attack on the next message: the variable that says who is acting would still name the one before."""
    found = []

    async def run(n: int, task: asyncio.Task[Any]) -> None:
        found.append(seen.get())
        seen.set(f"set by {n}")
        if n % 2:
            await asyncio.sleep(0)
        assert seen.get() == f"set by {n}", "its own stays, over every wait"
        await asyncio.get_running_loop().create_task(inherits(n))

    async def inherits(n: int) -> None:
        assert seen.get() == f"set by {n}"

    many, tasks = row(run)
    for n in range(8):
        many.add(n)
    await settle(tasks)
    assert found == ["nothing"] * 8 and not any(task.exception() for task in tasks)


async def test_one_that_was_removed_does_not_begin() -> None:
    done = []

    async def run(n: int, task: asyncio.Task[Any]) -> None:
        done.append(n)

    many, tasks = row(run)
    for n in range(3):
        many.add(n)
    many.remove(1)
    many.remove(7)
    await settle(tasks)
    assert done == [0, 2]


async def test_an_error_ends_its_own_task_and_the_rest_begin_all_the_same() -> None:
    done = []

    async def run(n: int, task: asyncio.Task[Any]) -> None:
        if n == 1:
            raise RuntimeError
        done.append(n)

    many, tasks = row(run)
    for n in range(4):
        many.add(n)
    await settle(tasks)
    assert done == [0, 2, 3]
