"""The benchmarks that nothing else runs go on running; their figures are nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def figures(script: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, f"benchmarks/{script}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def test_a_log_is_written_verified_and_proved_from() -> None:
    found = figures("log.py", "1280", "--json")
    assert found["entries"] == 1280 and found["verify_1_per_s"] > 0 and found["message_proof_ms"] > 0


def test_every_agent_hears_of_every_revocation() -> None:
    found = figures("revocation.py", "5")
    assert found["connected"] == 5 and found["pushes"] == 4 * found["revocations"]  # the fifth is a node of its own
