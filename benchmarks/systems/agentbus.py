"""agentbus: signed both ways, a chain of one link, CURVE, the log written on both sides (``durability=process``)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from agentbus import Bus, Identity, Raw
from agentbus.cli.bench.measure import Ping
from agentbus.cli.demo.processes import Processes
from benchmarks.peer import Echo

LABEL: Final = "agentbus"


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[str]:
    """A directory's process and the agent's."""
    os.environ.update(AGENTBUS_HOME=str(folder / "home"), AGENTBUS_DATA=str(folder))
    processes = Processes(folder, folder / "home", {})
    try:
        url = await processes.up()
        async with Bus.connect(url, identity="user/operator", listen="") as operator:
            for name in ("echo", "asker"):
                fields = {"name": name, "may_talk_to": ["*"]}
                token = await operator.request("service/directory", Raw("CreatePrincipal", fields))
                await Identity.enrol(name, token=token["token"], url=url)
        await processes.serve("agentbus.cli.bench.measure:echo", "echo")
        yield url
    finally:
        await processes.stop()


@asynccontextmanager
async def client(folder: Path, address: str) -> AsyncIterator[Echo]:
    """One bus."""
    os.environ.update(AGENTBUS_HOME=str(folder / "home"), AGENTBUS_DATA=str(folder))
    async with Bus.connect(address, identity="asker", listen="") as bus:

        async def echo(text: str) -> str:
            return (await bus.request("echo", Ping(text=text))).text

        yield echo
