"""A bus on one host that asks what it is told on standard input, one JSON line for each, and prints each answer."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from agentbus import AgentBusError, Bus
from tests.deploy.agents import Work


def say(number: int, answer: str) -> None:
    print(json.dumps({"number": number, "answer": answer}), flush=True)


async def ask(bus: Bus, order: dict[str, object]) -> None:
    number, to, seconds, timeout = (order[key] for key in ("number", "to", "seconds", "timeout"))
    try:
        await bus.request(str(to), Work(seconds=float(str(seconds))), timeout=float(str(timeout)))
        say(int(str(number)), "ok")
    except AgentBusError as error:
        say(int(str(number)), error.code)


async def main(name: str) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with (
        Bus.connect(identity=name, listen=os.environ.get("AGENTBUS_LISTEN", "")) as bus,
        asyncio.TaskGroup() as tasks,
    ):
        say(0, "ready")
        while line := await reader.readline():
            tasks.create_task(ask(bus, json.loads(line)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
