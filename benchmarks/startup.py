"""What a start costs: ``python benchmarks/startup.py [ROUNDS]``. Wall time of whole processes; never a gate."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from statistics import median
from typing import Final

COMMAND: Final = [sys.executable, "-m", "agentbus.cli.main"]
PIN: Final = "A" * 43 + "." + "A" * 43
STARTS: Final = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import agentbus": [sys.executable, "-c", "import agentbus"],
    "from agentbus import Agent, Bus": [sys.executable, "-c", "from agentbus import Agent, Bus"],
    "agentbus --version": [*COMMAND, "--version"],
    "agentbus --help": [*COMMAND, "--help"],
    "agentbus run --help": [*COMMAND, "run", "--help"],
    "agentbus init URL": [*COMMAND, "init", f"agentbus://localhost:7400#{PIN}"],
}


def main() -> None:
    """Start each several times, in turn, after one start that is not counted."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    taken: dict[str, list[float]] = {name: [] for name in STARTS}
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "AGENTBUS_HOME": folder}
        for counted in range(rounds + 1):
            for name, command in STARTS.items():
                start = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)
                if counted:
                    taken[name].append((time.perf_counter() - start) * 1000)
    print(f"median of {rounds}, milliseconds (lowest - highest)")
    for name, values in taken.items():
        print(f"{name:32} {median(values):8.0f}   ({min(values):.0f} - {max(values):.0f})")


if __name__ == "__main__":
    main()
