"""agentbus beside others: ``python -m benchmarks.compare [--rounds 5] [--seconds 1] [--out DIR] [SYSTEM …]``.

A question with a body of 450 bytes is echoed between two processes over loopback: one at a time (the round trip), and
256 at a time (requests/s). Each system has a process that answers and one that asks; whatever else it needs (a broker,
a directory) runs beside them. One round of every system after another, so that a busy moment of the machine is
everybody's; the first round warms up and does not count. Prints a table; writes ``comparison.json`` and
``comparison.svg``. Nothing here is a gate.

A system whose packages are not installed is listed as missing, with what to install: ``pip install -e '.[bench]'``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.plot import bars

SYSTEMS: Final = ("agentbus", "zmq_raw", "nats_unsigned", "nats_signed", "autogen", "a2a", "slim")
PATIENCE: Final = 60.0  # seconds until a process says something


class System:
    """One system's two processes."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.module = importlib.import_module(f"benchmarks.systems.{name}")
        self.folder = folder / name
        self.rounds: list[dict[str, float]] = []
        self.trouble = ""
        self._processes: list[Process] = []
        self._client: Process

    async def start(self) -> None:
        """Both processes, ready."""
        self.folder.mkdir(parents=True)
        server = await self._child("server")
        address = await self._line(server)
        self._client = await self._child("client", address)
        assert await self._line(self._client) == "ready"

    async def round(self, seconds: float) -> dict[str, float]:
        """One measurement of each kind."""
        assert self._client.stdin is not None
        self._client.stdin.write(f"{seconds}\n".encode())
        figures: dict[str, float] = json.loads(await self._line(self._client, PATIENCE + 4 * seconds))
        return figures

    async def stop(self) -> None:
        """End both: their standard input closes; who does not listen is killed."""
        for process in reversed(self._processes):
            if process.stdin is not None:
                process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _child(self, *arguments: str) -> Process:
        with (self.folder / "errors").open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.peer", self.name, str(self.folder), *arguments,
                stdin=PIPE, stdout=PIPE, stderr=errors, cwd=Path(__file__).parent.parent,
            )  # fmt: skip
        self._processes.append(process)
        return process

    async def _line(self, process: Process, within: float = PATIENCE) -> str:
        assert process.stdout is not None
        async with asyncio.timeout(within):
            while line := await process.stdout.readline():
                if line.startswith(b"=> "):
                    return line[3:].decode().strip()
        said = (self.folder / "errors").read_text("utf-8", "replace").strip().splitlines()
        raise RuntimeError(next((one for one in reversed(said) if "Error" in one), "it ended"))


async def compare(names: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Every system's medians, and who is missing."""
    missing: dict[str, str] = {}
    running: list[System] = []
    async with AsyncExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        for name in names:
            try:
                system = System(name, folder)
                undo.push_async_callback(system.stop)
                await system.start()
            except ImportError as error:
                missing[name] = f"not installed: {error.name or error}"
            except (RuntimeError, TimeoutError, AssertionError) as error:
                missing[name] = f"did not start: {error}"
            else:
                running.append(system)
        for number in range(rounds + 1):
            for system in list(running):
                try:
                    figures = await system.round(seconds)
                except (RuntimeError, TimeoutError, ValueError) as error:
                    missing[system.name] = f"stopped: {error}"
                    running.remove(system)
                    continue
                if number:  # the first warms up
                    system.rounds.append(figures)
    medians: dict[str, dict[str, Any]] = {
        system.name: {
            "label": system.module.LABEL,
            **{key: median(one[key] for one in system.rounds) for key in system.rounds[0]},
            "lowest_rate": min(one["requests_per_s"] for one in system.rounds),
            "highest_rate": max(one["requests_per_s"] for one in system.rounds),
        }
        for system in running
    }
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "settings": {"rounds": rounds, "seconds": seconds, "body_bytes": 450, "in_flight": 256},
        "systems": medians,
        "missing": missing,
    }


def table(result: dict[str, Any]) -> str:
    """For people; ratios are against agentbus of the same run."""
    ours = result["systems"].get("agentbus")
    lines = [
        "| system | round trip p50 | p99 | requests/s, 256 in flight (lowest - highest) | agentbus is |",
        "|---|---|---|---|---|",
    ]
    for one in result["systems"].values():
        ratio = f"{ours['requests_per_s'] / one['requests_per_s']:.2f} ×" if ours else ""
        failed = f", {one['failed']:,.0f} failed" if one["failed"] else ""
        rate = f"{one['requests_per_s']:,.0f} ({one['lowest_rate']:,.0f} - {one['highest_rate']:,.0f}){failed}"
        lines.append(f"| {one['label']} | {one['p50_ms']:.2f} ms | {one['p99_ms']:.2f} ms | {rate} | {ratio} |")
    lines += [f"| {name} | missing | | {why} | |" for name, why in result["missing"].items()]
    return "\n".join(lines)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", default=[], metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    unknown = [name for name in options.systems if name not in SYSTEMS]
    if unknown:
        parser.error(f"no system is called {', '.join(unknown)}; there are {', '.join(SYSTEMS)}")
    result = asyncio.run(compare(options.systems or list(SYSTEMS), options.rounds, options.seconds))
    print(table(result))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "comparison.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    rates = {one["label"]: one["requests_per_s"] for one in result["systems"].values()}
    (options.out / "comparison.svg").write_text(bars("requests/s, 256 in flight", rates), "utf-8")


if __name__ == "__main__":
    main()
