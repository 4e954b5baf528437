"""A real directory in a process of its own, with people and agents in it, for tests that share one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cli.program import AGENTBUS, Program, environment, run


class Town:
    """``agentbus up`` in a folder, and the command line against it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.home = folder, folder / "home"
        self.env = environment(self.home, AGENTBUS_DATA=str(folder / "logs"))
        self.programs: list[Program] = []
        self.directory = self.start("up", "--port", "0", "--json", *options)
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

    def agent(self, name: str, *, ceiling: Sequence[str] = (), may_talk_to: Sequence[str] = ("*",)) -> None:
        """Create and enrol an agent."""
        options = [part for scope in ceiling for part in ("--ceiling", scope)]
        options += [part for other in may_talk_to for part in ("--may-talk-to", other)]
        token = self.run("agent", "create", name, *options, "--json")["token"]
        self.run("agent", "enrol", name, "--token", token)

    def user(self, name: str, *, rights: Sequence[str] = ()) -> None:
        """Create and enrol a user."""
        options = [part for right in rights for part in ("--right", right)]
        token = self.run("user", "create", name, *options, "--json")["token"]
        self.run("user", "enrol", name, "--token", token)

    def close(self) -> None:
        """Stop everything, the directory last."""
        for program in reversed(self.programs):
            program.stop()
