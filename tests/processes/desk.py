"""One person's shell, and the processes it started: commands as people type them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Desk:
    """One person's shell, and the directory it speaks to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("AGENTBUS_")}
        self.environment |= {"AGENTBUS_HOME": str(folder / "home"), "AGENTBUS_DATA": str(folder / "logs")}
        self.running: list[subprocess.Popen[str]] = []
        self.prefix: tuple[str, ...] = ()  # what runs a command elsewhere, such as in a namespace

    def _command(self, *arguments: str) -> list[str]:
        return [*self.prefix, sys.executable, "-m", "agentbus.cli.main", *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self._command(*arguments), env=self.environment, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.running.append(process)
        return process

    def directory(self, *arguments: str) -> subprocess.Popen[str]:
        """A running directory on an empty folder; this shell is its operator's."""
        up = self.start("up", "--data", str(self.folder / "data"), "--port", "0", *arguments)
        assert up.stdout is not None and up.stdout.readline().startswith("bus ")
        return up

    def enrol(self, noun: str, name: str, *arguments: str) -> None:
        token = self.run(noun, "create", name, *arguments).strip()
        self.run(noun, "enrol", name, "--token", token)

    def serve(self, target: str) -> subprocess.Popen[str]:
        """A served agent that can be asked."""
        ready = self.folder / f"{target.replace(':', '-')}.ready"
        process = self.start("run", target, "--ready-file", str(ready))
        for _ in range(1200):
            if ready.exists():
                return process
            assert process.poll() is None
            time.sleep(0.05)
        raise AssertionError(f"{target} was never ready")

    def run(self, *arguments: str, exit: int = 0, given: str | None = None) -> str:
        done = subprocess.run(
            self._command(*arguments), env=self.environment, cwd=self.folder,
            capture_output=True, text=True, timeout=240, input=given,
        )  # fmt: skip
        assert done.returncode == exit, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def json(self, *arguments: str, exit: int = 0, given: str | None = None) -> Any:
        return json.loads(self.run(*arguments, "--json", exit=exit, given=given).splitlines()[0])

    def stop(self, process: subprocess.Popen[str]) -> None:
        self.running.remove(process)
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    for process in reversed(list(made.running)):
        made.stop(process)
