"""``status`` as a probe, and what ``up`` and ``run`` tell systemd."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds; only a failing test waits that long


class Place:
    """A folder with a directory and whatever runs beside it, and a socket such as systemd's."""

    def __init__(self, folder: Path) -> None:
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AGENTBUS_")}
        self.env |= {"AGENTBUS_HOME": str(folder / "home"), "NOTIFY_SOCKET": str(folder / "notify")}
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.bind(self.env["NOTIFY_SOCKET"])
        self.told.settimeout(PATIENCE)
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentbus.cli.main", *arguments],
            env=self.env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.started.append(process)
        assert self.told.recv(100) == b"READY=1"
        return process

    def run(self, *arguments: str) -> tuple[int, Any]:
        """The exit status of a command, and its JSON."""
        command = [sys.executable, "-m", "agentbus.cli.main", *arguments, "--json"]
        done = subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, timeout=PATIENCE, check=False)
        return done.returncode, json.loads(done.stdout)

    def close(self) -> None:
        self.told.close()
        for process in self.started:
            process.kill()
            process.wait()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_a_probe_sees_whether_its_agent_runs_and_the_directory_answers(place: Place) -> None:
    directory = place.start("up", "--port", "0")
    code, found = place.run("status")
    assert code == 0 and found["ready"] and found["running"] == []
    assert 0 <= found["age_ms"] <= found["max_age_ms"]

    _, token = place.run("agent", "create", "worker")
    assert place.run("agent", "enrol", "worker", "--token", token["token"])[0] == 0
    code, said = place.run("status", "--as", "worker", "--serving")
    assert (code, said["error"]["code"]) == (1, "agent.not_running")

    worker = place.start("run", "tests.processes.worker:worker")
    code, found = place.run("status", "--as", "worker", "--serving")
    assert code == 0
    assert [one["node"] for one in found["running"]] == ["worker"] and found["running"][0]["endpoints"]

    worker.send_signal(signal.SIGTERM)
    assert place.told.recv(100) == b"STOPPING=1"
    assert worker.wait(PATIENCE) == 0

    assert place.run("agent", "suspend", "worker")[0] == 0
    assert place.run("status", "--as", "worker")[0] == 1

    directory.send_signal(signal.SIGTERM)
    assert place.told.recv(100) == b"STOPPING=1"
    assert directory.wait(PATIENCE) == 0
    code, said = place.run("status")
    assert (code, said["error"]["code"]) == (1, "unavailable.directory")


def test_an_agent_that_only_dials_out_says_so(place: Place) -> None:
    place.start("up", "--port", "0")
    _, token = place.run("agent", "create", "worker")
    assert place.run("agent", "enrol", "worker", "--token", token["token"])[0] == 0
    place.env["AGENTBUS_LISTEN"] = ""
    place.start("run", "tests.processes.worker:worker")
    assert place.run("status", "--as", "worker")[0] == 0
    code, said = place.run("status", "--as", "worker", "--serving")
    assert (code, said["error"]["code"]) == (1, "agent.dials_out_only")
    code, said = place.run("request", "worker", "Work", "{}", "--as", "user/operator")
    assert (code, said["error"]["code"]) == (1, "agent.dials_out_only")


def test_a_probe_leaves_no_trace(place: Place) -> None:
    place.start("up", "--port", "0")
    home = Path(place.env["AGENTBUS_HOME"])
    before = sorted(str(path) for path in home.rglob("*") if "directory" not in path.parts)
    assert place.run("status")[0] == 0
    assert sorted(str(path) for path in home.rglob("*") if "directory" not in path.parts) == before
