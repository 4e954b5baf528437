"""The example, over ZeroMQ in processes of its own: served, asked, killed, and replayed byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
AGENTBUS = [sys.executable, "-m", "agentbus.cli.main"]


class Weather(BaseHTTPRequestHandler):
    """Never the same twice."""

    asked = 0

    def do_GET(self) -> None:
        Weather.asked += 1
        body = f"{Weather.asked} degrees".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return None


@pytest.fixture
def weather() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Weather)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_oracle_says_the_same_again_without_weather(weather: str, tmp_path: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AGENTBUS_")}
    env = {**clean, "AGENTBUS_HOME": str(tmp_path / "home"), "AGENTBUS_DATA": str(tmp_path), "WEATHER_URL": weather}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*AGENTBUS, *arguments], cwd=EXAMPLES, env={**env, **more}, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    started: list[subprocess.Popen[str]] = []
    try:
        up = subprocess.Popen(
            [*AGENTBUS, "up", "--data", str(tmp_path), "--port", "0", "--json"], env=env, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        started.append(up)
        assert up.stdout is not None
        url = json.loads(up.stdout.readline())["bus"]
        token = json.loads(run("agent", "create", "oracle", "--json").stdout)["token"]
        enrolled = run("agent", "enrol", "oracle", "--token", token)
        assert enrolled.returncode == 0, enrolled.stderr
        ready = tmp_path / "ready"
        serving = subprocess.Popen(
            [*AGENTBUS, "run", "oracle:oracle", "--ready-file", str(ready)], cwd=EXAMPLES, env=env,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        started.append(serving)
        for _ in range(3000):
            if ready.exists() or serving.poll() is not None:
                break
            threading.Event().wait(0.02)
        answers = []
        for about in ("rain", "love", "rain"):
            asked = run("request", "oracle", "Question", json.dumps({"about": about}))
            assert asked.returncode == 0, asked.stderr
            answers.append(json.loads(asked.stdout)["text"])
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            if process.stdout is not None:
                process.stdout.close()
    assert len(set(answers)) == 3 and Weather.asked == 3

    root = url.partition("#")[2].partition(".")[0]
    replay = ["log", "replay", str(tmp_path / "oracle"), "oracle:oracle", "--root", root]
    done = run(*replay, "--json", WEATHER_URL="http://127.0.0.1:1/")
    report = json.loads(done.stdout)
    assert done.returncode == 0, (report, done.stderr)
    assert report["counts"]["same"] == report["messages"] == 3 and Weather.asked == 3

    junit = tmp_path / "replay.xml"
    live = run(*replay, "--mode", "live", "--junit", str(junit))
    assert live.returncode == 1 and Weather.asked == 6 and "different" in live.stdout
    assert 'failures="3"' in junit.read_text()
    assert run(*replay, "--mode", "live", "--compare", "math:isclose").returncode == 1
    wrong = run("log", "replay", str(tmp_path / "oracle"), "oracle:oracle", "--root", root, "--timing", "soon")
    assert wrong.returncode == 2 and "config.timing" in wrong.stderr
