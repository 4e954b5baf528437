"""The two parties of the kill campaign: ``parties.py sender`` sends and notes each acknowledgement; the agent
``receiver`` notes each message that it handled. Both ledgers are one ``write`` a line, which kill -9 cannot tear.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from itertools import count
from pathlib import Path

from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Bus, Context

AT_ONCE = 16  # messages under way


class Item(BaseModel):
    number: str


class Ledger:
    """A file of lines, appended to in one system call each."""

    def __init__(self, name: str) -> None:
        self._file = os.open(Path(os.environ["LEDGERS"]) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


receiver = Agent("receiver")


@receiver.handler
async def take(item: Item, ctx: Context) -> None:
    Ledger("handled").note(item.number)


async def send(bus: Bus, ledger: Ledger, numbers: count[int]) -> None:
    while True:
        number = f"{os.getpid()}.{next(numbers)}"
        try:
            receipt = await bus.send("receiver", Item(number=number), ack="handled", timeout=10)
        except AgentBusError as error:
            ledger.note(f"error {error.code}")
            await asyncio.sleep(0.02)  # as whoever retries should
        else:
            ledger.note(f"ack {number} {receipt.message}")


async def main() -> None:
    """Until SIGTERM, and then in good order: a process that dies of a signal may leave half a record behind."""
    ledger, numbers = Ledger("sent"), count()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Bus.connect(identity="sender", listen="") as bus:
        tasks = [asyncio.create_task(send(bus, ledger, numbers)) for _ in range(AT_ONCE)]
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done - {stopping}:
            await task  # it never ends by itself: whatever it raised is told


if __name__ == "__main__" and sys.argv[1:] == ["sender"]:
    asyncio.run(main())
