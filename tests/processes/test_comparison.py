"""The comparison runs with what is installed, and says what is not; its figures are nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def compare(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.compare", "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=ROOT)


def test_agentbus_is_measured_beside_another_and_who_is_missing_is_named(tmp_path: Path) -> None:
    done = compare(tmp_path, "--rounds", "1", "--seconds", "0.1", "agentbus", "zmq_raw", "slim")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert {"agentbus", "zmq_raw"} <= set(result["systems"])
    assert set(result["systems"]) | set(result["missing"]) == {"agentbus", "zmq_raw", "slim"}
    for figures in result["systems"].values():
        assert figures["p50_ms"] > 0 and figures["requests_per_s"] > 0
    assert "missing" in done.stdout or "slim" in result["systems"]
    assert (tmp_path / "comparison.svg").read_text().startswith("<svg")


def test_a_system_that_is_none_is_wrong_use(tmp_path: Path) -> None:
    assert compare(tmp_path, "carrier-pigeon").returncode == 2
