"""One process of a comparison: ``python -m benchmarks.peer SYSTEM FOLDER server|client [ADDRESS]``.

A module of ``benchmarks.systems`` has ``LABEL`` and two async context managers: ``server(folder)`` yields an address,
and ``client(folder, address)`` yields a function that sends a text and returns its echo. What it has to say begins with
``=>``: some libraries print, too.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

BODY: Final = "x" * 430  # with its frame about 450 bytes
FLIGHT: Final = 256

Echo = Callable[[str], Awaitable[str]]


async def sequential(echo: Echo, seconds: float) -> dict[str, float]:
    """One at a time."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end or not times:
        assert await echo(BODY) == BODY
        times.append(time.perf_counter() - began)
    times.sort()
    return {"p50_ms": times[len(times) // 2] * 1e3, "p99_ms": times[int(len(times) * 0.99)] * 1e3}


async def in_flight(echo: Echo, seconds: float) -> dict[str, float]:
    """So many at a time; what fails under that load is counted, and counts for nothing."""
    done = failed = 0
    began = time.perf_counter()
    end = began + seconds

    async def ask() -> None:
        nonlocal done, failed
        while time.perf_counter() < end:
            try:
                assert await echo(BODY) == BODY
                done += 1
            except Exception:
                failed += 1
                await asyncio.sleep(0.01)

    await asyncio.gather(*(ask() for _ in range(FLIGHT)))
    if not done:
        raise RuntimeError(f"none of {failed} requests in flight was answered")
    return {"requests_per_s": done / (time.perf_counter() - began), "failed": failed}


async def main(system: str, folder: str, role: str, address: str = "") -> None:
    """Serve, or measure whenever a line asks for it, until standard input closes."""
    module = importlib.import_module(f"benchmarks.systems.{system}")
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    if role == "server":
        async with module.server(Path(folder)) as where:
            print(f"=> {where}", flush=True)
            await reader.read()
        return
    async with module.client(Path(folder), address) as echo:
        assert await echo(BODY) == BODY
        print("=> ready", flush=True)
        while line := await reader.readline():
            seconds = float(line)
            print("=>", json.dumps(await sequential(echo, seconds) | await in_flight(echo, seconds)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
