"""A real directory in a process of its own, with people and agents in it, for tests that share one."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agentbus import Identity
from agentbus.bus.opening import connect_bus
from agentbus.cli.main import cli
from agentbus.connect import BusUrl
from agentbus.enrolment import enrol
from agentbus.runtime.admin import CreatePrincipal
from tests.cli.program import AGENTBUS, Program, environment, run


class Town:
    """``agentbus up`` in a folder, and the command line against it."""

    def __init__(self, folder: Path, *options: str, program: Sequence[str] = AGENTBUS, **env: str) -> None:
        self.folder, self.home = folder, folder / "home"
        self.env = environment(self.home, AGENTBUS_DATA=str(folder / "logs"))
        self.programs: list[Program] = []
        up = [*program, "up", "--port", "0", "--json", *options]
        self.directory = Program(*up, cwd=folder, env={**self.env, **env})
        self.programs.append(self.directory)
        self.url = str(json.loads(self.directory.until('"bus"'))["bus"])

    def start(self, *arguments: str, cwd: Path | None = None, **more: str) -> Program:
        """A command that runs until the town ends."""
        program = Program(*AGENTBUS, *arguments, cwd=cwd or self.folder, env={**self.env, **more})
        self.programs.append(program)
        return program

    def run(self, *arguments: str, **more: str) -> Any:
        """A command to its end, which must be a good one.

        Returns:
            Its JSON, or its text where that is none.
        """
        done = run(*arguments, cwd=self.folder, env={**self.env, **more})
        assert done.returncode == 0, done.stderr + done.stdout
        try:
            return json.loads(done.stdout)
        except ValueError:
            return done.stdout.strip()

    def inside(self, *arguments: str) -> Any:
        """A command to its end, as :meth:`run`, in this process: starting one takes long."""
        out = io.StringIO()
        mine = {name: value for name, value in self.env.items() if name.startswith("AGENTBUS_")}
        with patch.dict(os.environ, mine), redirect_stdout(out):
            cli.main(list(arguments), standalone_mode=False)
        return json.loads(out.getvalue()) if "--json" in arguments else out.getvalue().strip()

    def enrol(self, *names: str, scopes: Sequence[str] = ()) -> None:
        """Create and enrol agents and users, with these scopes as their ceiling or rights; each may ask everybody."""
        asyncio.run(self._enrol(names, list(scopes)))

    async def _enrol(self, names: Sequence[str], scopes: list[str]) -> None:
        """As the commands do, in one process: starting a hundred of those takes long."""
        operator = Identity.from_file(self.home / "keys" / "user__operator.json")
        url, folder = BusUrl.parse(self.url), self.folder / "logs" / "enrolling"
        async with await connect_bus(url, operator, listen=None, folder=folder) as bus:
            for name in names:
                held = {"rights" if name.startswith("user/") else "ceiling": scopes}
                request = CreatePrincipal.model_validate({"name": name, "may_talk_to": ["*"], **held})
                token = await bus.request("service/directory", request)
                (await enrol(url, name, token.token)).save(self.home / "keys" / f"{name.replace('/', '__')}.json")

    def close(self) -> None:
        """Stop everything, the directory last."""
        for program in reversed(self.programs):
            program.stop()
