"""The figures of docs/performance.md: ``python benchmarks/promises.py [ROUNDS]``. Medians and spread; never a gate."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any


def flat(figures: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested figures by dotted name."""
    found: dict[str, float] = {}
    for key, value in figures.items():
        if isinstance(value, dict) and key != "settings":
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix + key] = float(value)
    return found


def main() -> None:
    """Run ``agentbus bench`` several times, signed and unsigned in the same run, and print medians with their range."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    runs = []
    for _ in range(rounds):
        command = [sys.executable, "-m", "agentbus.cli.main", "bench", "--json"]
        runs.append(flat(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)))
    print(f"median of {rounds} (lowest - highest)")
    for name in runs[0]:
        values = [run[name] for run in runs]
        print(f"{name:32} {median(values):12.1f}   ({min(values):.1f} - {max(values):.1f})")


if __name__ == "__main__":
    main()
