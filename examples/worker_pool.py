"""A pool of workers: one agent, as many processes as there are cores, each asked in turn.

In one process, to try it: ``python worker_pool.py``. With a directory, under the identities ``worker`` and ``boss``::

    agentbus run worker_pool:worker --instances 4
    python worker_pool.py --connect
"""

import asyncio
import math
import os
import sys

from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Bus, Caller, Context, Request

NUMBERS = [1_000_003 * 998_244_353, 2**61 - 1, 600_851_475_143, 97, 1_000_000_007 * 3, 2**32 + 1]


class Factors(BaseModel):
    factors: list[int]
    worker: int  # the process that did it


class Factor(Request[Factors]):
    number: int


worker = Agent("worker", description="Takes numbers apart")


@worker.handler(concurrency=1)  # one at a time in each process: what waits may go to another
async def factor(request: Factor, ctx: Context) -> Factors:
    return Factors(factors=await asyncio.to_thread(take_apart, request.number), worker=os.getpid())


def take_apart(number: int) -> list[int]:
    for divisor in range(2, min(math.isqrt(number), 2_000_000) + 1):
        if number % divisor == 0:
            return [divisor, *take_apart(number // divisor)]
    return [number]


async def ask(bus: Caller, number: int) -> Factors:
    """Ask once more where that can help: a worker may die in the middle, and doing it twice does no harm."""
    for wait in (0.1, 0.5, 2.0):
        try:
            return await bus.request("worker", Factor(number=number), timeout=120)
        except AgentBusError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(wait)
    return await bus.request("worker", Factor(number=number), timeout=120)


async def distribute(bus: Caller, numbers: list[int]) -> list[Factors]:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(bus, number)) for number in numbers]
    return [task.result() for task in asked]


async def main(connect: bool) -> None:
    if connect:
        async with Bus.connect(identity="boss", listen="") as bus:
            results = await distribute(bus, NUMBERS)
    else:
        async with Bus.local() as local, local.serve(worker):
            results = await distribute(local, NUMBERS)
    for number, result in zip(NUMBERS, results, strict=True):
        print(f"{number} = {' × '.join(map(str, result.factors))}")
    print(f"{len({result.worker for result in results})} processes")


if __name__ == "__main__":
    asyncio.run(main("--connect" in sys.argv))
