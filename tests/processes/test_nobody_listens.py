"""Who started a server may go away: it goes on without anybody to read what it says."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.processes.desk import Desk, desk  # noqa: F401  # a fixture


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_directory_goes_on_when_nobody_reads_its_output(desk: Desk, options: tuple[str, ...]) -> None:  # noqa: F811
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "agentbus.cli.main", "up", "--data", "data", "--port", "0", *options]
    try:
        up = subprocess.Popen(
            command, env=desk.environment, cwd=desk.folder, stdout=write, stderr=write, stdin=subprocess.DEVNULL
        )
    finally:
        os.close(write)
    try:
        for _ in range(600):
            if list((desk.folder / "home").glob("**/profile*")) or up.poll() is not None:
                break
            time.sleep(0.05)
        assert desk.json("status")["ready"] and up.poll() is None
        desk.enrol("user", "user/alice")
    finally:
        up.terminate()
        assert up.wait(20) == 0
