"""Real processes for the demo: started, waited for, stopped by id, and never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from agentbus import AgentBusError, Unavailable

CODES: Final = {
    "unavailable.process": "A process of the demo stopped before its time.",
}


class Processes:
    """The demo's processes.

    Args:
        data: Every node logs under it.
        home: Keys and profile.
        extra: More environment.
    """

    def __init__(self, data: Path, home: Path, extra: dict[str, str]) -> None:
        self._data = data
        self._env = {**os.environ, "AGENTBUS_DATA": str(data), "AGENTBUS_HOME": str(home), **extra}
        self._env.pop("AGENTBUS_URL", None)
        self._running: list[Process] = []

    async def start(self, *arguments: str, stdout: int = DEVNULL) -> Process:
        """``agentbus`` with these arguments; what it complains of goes to ``<data>/errors.txt``."""
        with (self._data / "errors.txt").open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "agentbus.cli.main", *arguments, stdin=DEVNULL, stdout=stdout,
                stderr=errors, env=self._env,
            )  # fmt: skip
        self._running.append(process)
        return process

    async def up(self) -> str:
        """A directory on a free port; its pinned URL."""
        process = await self.start("up", "--data", str(self._data), "--port", "0", "--json", stdout=PIPE)
        assert process.stdout is not None
        async with asyncio.timeout(15):
            line = await process.stdout.readline()
        if not line:
            raise self._died("the directory")
        url: str = json.loads(line)["bus"]
        return url

    async def serve(self, target: str, name: str) -> None:
        """An agent's process, once it can be asked."""
        ready = self._data / f"{name}.ready"
        process = await self.start("run", target, "--as", name, "--ready-file", str(ready))
        async with asyncio.timeout(30):
            while not ready.exists():
                if process.returncode is not None:
                    raise self._died(name)
                await asyncio.sleep(0.02)
        ready.unlink()

    async def lines(self, *arguments: str) -> AsyncIterator[Any]:
        """The JSON lines a command prints, as they come."""
        process = await self.start(*arguments, stdout=PIPE)
        assert process.stdout is not None
        async for line in process.stdout:
            yield json.loads(line)
        if await process.wait() != 0:
            raise self._died(" ".join(arguments[:2]))

    async def stop(self) -> None:
        """SIGTERM to all but the directory, then to it; SIGKILL for whoever does not listen."""
        for process in reversed(self._running):
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(5):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()

    def _died(self, who: str) -> AgentBusError:
        errors = (self._data / "errors.txt").read_text("utf-8", "replace").strip().splitlines()
        return Unavailable("unavailable.process", f"{who} stopped: {errors[-1] if errors else 'it said nothing'}")
