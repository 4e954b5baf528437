"""The real command line in processes of their own: started, read line by line, asked, stopped by id."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

AGENTBUS = (sys.executable, "-P", "-m", "agentbus.cli.main")
PATIENCE = 60.0  # seconds: the machine may be busy, and nothing here is a figure


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's, with no bus but the one in ``home``, and this Python's programs first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTBUS_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "AGENTBUS_HOME": str(home), "PYTHONUNBUFFERED": "1", **more}


class Program:
    """A command that runs until it is told to stop; both its outputs are read together.

    Args:
        typed: It reads what is typed into it, in a session of its own.
    """

    def __init__(self, *command: str, cwd: Path, env: Mapping[str, str], typed: bool = False) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE if typed else subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, cwd=cwd, env=dict(env), start_new_session=typed,
        )  # fmt: skip
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def until(self, wanted: str | Callable[[str], Any]) -> str:
        """The next line that contains, or satisfies, what is wanted."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {wanted!r} in:\n" + "\n".join(self.lines)) from None
            if line is None:
                raise AssertionError(f"ended without {wanted!r}:\n" + "\n".join(self.lines))
            self.lines.append(line)
            if (wanted in line) if isinstance(wanted, str) else wanted(line):
                return line

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; what it still said is in :attr:`lines`.

        Returns:
            The exit status.
        """
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("did not stop:\n" + "\n".join(self.lines)) from None
        self._reader.join(PATIENCE)
        while not self._queue.empty():
            line = self._queue.get()
            if line is not None:
                self.lines.append(line)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return status


def run(*arguments: str, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """``agentbus`` with these arguments, to its end."""
    return subprocess.run(
        [*AGENTBUS, *arguments], cwd=cwd, env=dict(env), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def paste(line: str, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A line in a shell, as somebody would paste it."""
    return subprocess.run(
        ["bash", "-e", "-c", line],
        cwd=cwd,
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
