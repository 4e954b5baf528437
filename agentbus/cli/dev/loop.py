"""The loop of ``agentbus dev``: load, serve, wait for the file to be saved; what is wrong is shown, and it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from agentbus.cli.dev.load import Broken, Target, files_of, load
from agentbus.cli.dev.sample import askable, request_line
from agentbus.cli.dev.stage import DOMAIN, USER, Stage
from agentbus.cli.dev.watch import Watch
from agentbus.cli.output import announce
from agentbus.cli.target import explain
from agentbus.errors import AgentBusError
from agentbus.runtime.agent import Agent

SLOW: Final = 5.0  # seconds after which a file that is still being imported is said to be
NOTHING: Final = "nothing is served until the file is saved"


class Dev:
    """One run of ``agentbus dev``."""

    def __init__(
        self, targets: Sequence[Target], folder: Path, *, port: int, scopes: Sequence[str], as_json: bool
    ) -> None:
        self._targets, self._folder, self._as_json = targets, folder, as_json
        self._prefix = command_prefix(folder)  # before the stage makes this process's environment its own
        self._stage = Stage(folder, port=port, scopes=scopes)
        self._watch = Watch()
        self._serving = False
        self._shown: list[str] = []

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        sys.dont_write_bytecode = True  # two saves within a second would leave a .pyc that looks fresh
        work = asyncio.create_task(self._work())
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait((work, ended), return_when=asyncio.FIRST_COMPLETED)
        for task in (work, ended):
            task.cancel()
        await asyncio.gather(work, ended, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _work(self) -> None:
        try:
            url = await self._stage.open()
            facts = {"bus": url, "domain": DOMAIN, "home": str(self._folder)}
            self._tell(facts, f"bus {url}\ntrust domain {DOMAIN}; data {self._folder}; stop with Ctrl-C")
            self._watch.add(target.path for target in self._targets)
            while True:
                await self._turn()
                changed = await self._watch.changed()
                names = ", ".join(sorted(path.name for path in changed))
                self._tell({"event": "changed", "files": sorted(map(str, changed))}, f"\n{names} was saved")
        finally:
            await self._stage.aclose()

    async def _turn(self) -> None:
        """Load and serve the files as they are now."""
        try:
            agents = await self._load()
        except Broken as error:
            self._watch.add(path for path in error.files if path.is_file())
            self._complain(
                str(error), "the version before is still served until the file is saved" if self._serving else NOTHING
            )
            return
        self._watch.add(files_of(self._targets))
        self._serving = False
        try:
            scopes = await self._stage.serve(agents)
        except AgentBusError as error:
            self._complain(f"agentbus: {error.message or error.code} [{error.code}]", NOTHING)
        except Exception as error:  # a lifespan's
            self._complain(explain(error)[0], NOTHING)
        else:
            self._serving = True
            self._present(agents, scopes)

    async def _load(self) -> list[Agent[Any]]:
        loading = asyncio.ensure_future(load(self._targets))
        done, _ = await asyncio.wait((loading,), timeout=SLOW)
        if not done:
            what = 'is still being imported; what it runs belongs under: if __name__ == "__main__"'
            self._complain(
                f"{', '.join(target.path.name for target in self._targets)} {what}", "waiting for it, or for Ctrl-C"
            )
        return await loading

    def _complain(self, text: str, state: str) -> None:
        self._tell({"event": "error", "message": text, "state": state}, f"{text}\n{state}")

    def _present(self, agents: Sequence[Agent[Any]], scopes: frozenset[str]) -> None:
        """What is served, and a line to paste for everything that can be asked."""
        options = ["--as", USER]
        for scope in sorted(scopes):
            options += ["--delegate" if len(agents) > 1 else "--scope", scope]
        lines = [request_line(self._prefix, agent, handler, options) for agent in agents for handler in askable(agent)]
        served = [{"name": agent.name, "messages": sorted(agent.handlers)} for agent in agents]
        text = "serving " + ", ".join(f"{agent.name} ({', '.join(sorted(agent.handlers))})" for agent in agents)
        if lines != self._shown:
            self._shown = lines
            text += "\ntry, in another shell:\n" + "\n".join(f"  {line}" for line in lines)
        self._tell({"event": "serving", "agents": served, "try": lines}, text)

    def _tell(self, facts: dict[str, Any], text: str) -> None:
        """To whoever watches: people, or a program that reads one JSON value a line."""
        announce(json.dumps(facts) if self._as_json else text)


def command_prefix(folder: Path) -> str:
    """How another shell runs agentbus against the domain in ``folder``."""
    typed = sys.argv[0]
    found = shutil.which("agentbus")
    if Path(typed).suffix == ".py":
        command = f"{shlex.quote(sys.executable)} -m agentbus.cli.main"
    elif found and Path(found).resolve() == Path(typed).resolve():
        command = "agentbus"
    else:
        command = shlex.quote(str(Path(typed).resolve()))
    home = "" if os.environ.get("AGENTBUS_HOME") == str(folder) else f"AGENTBUS_HOME={shlex.quote(str(folder))} "
    url = "AGENTBUS_URL= " if os.environ.get("AGENTBUS_URL") else ""  # it would win over the profile
    return home + url + command
