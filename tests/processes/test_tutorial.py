"""The tutorial, block by block, as a newcomer would paste it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TUTORIAL.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def shells(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    opened: list[subprocess.Popen[str]] = []
    yield opened
    for shell in reversed(opened):
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGTERM)
        try:
            shell.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait(10)
        assert shell.stdout is not None
        shell.stdout.close()


def test_a_newcomer_gets_from_an_empty_folder_to_the_first_refused_request(
    tmp_path: Path, shells: list[subprocess.Popen[str]]
) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {k: v for k, v in os.environ.items() if not k.startswith("AGENTBUS_")} | {"PATH": path}

    def shell(script: str, until: str, times: int = 1) -> str:
        """A shell that stays open; returns the line that says ``until``."""
        opened = subprocess.Popen(
            ["bash", "-e"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=tmp_path, env=env, start_new_session=True,
        )  # fmt: skip
        shells.append(opened)
        assert opened.stdin is not None and opened.stdout is not None
        opened.stdin.write(script)
        opened.stdin.close()
        seen = []
        for line in opened.stdout:
            seen.append(line)
            times -= until in line
            if times == 0:
                return line
        raise AssertionError("".join(seen))

    def paste(script: str) -> subprocess.CompletedProcess[str]:
        script = f"export AGENTBUS_HOME=$PWD/bus\n{script}"
        return subprocess.run(
            ["bash", "-e", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    (tmp_path / "hello.py").write_text(blocks("python")[0], "utf-8")
    directory, agents, ask, refused, verify = blocks("sh")

    first = shell(directory.replace("agentbus up", "agentbus up --port 0"), "bus ")
    assert re.match(r"bus agentbus://127\.0\.0\.1:\d+#[\w-]{43}\.[\w-]{43}$", first.strip())
    shell(agents, "is served", times=2)

    answered = paste(ask)
    assert answered.returncode == 0, answered.stderr
    assert "spiffe://agents.local/user/alice asked: why?why?" in answered.stdout

    denied = paste(refused)
    assert denied.returncode == 1
    assert "denied.nothing_handed_over" in denied.stderr and "delegate=" in denied.stderr
    assert len(denied.stderr.strip().splitlines()) == 1

    os.killpg(shells[1].pid, signal.SIGTERM)
    shells[1].wait(15)
    verified = paste(verify)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "Summarize" in verified.stdout

    segment = tmp_path / "bus" / "logs" / "planner" / "00000000.seg"
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    assert paste(verify.splitlines()[0]).returncode == 1
