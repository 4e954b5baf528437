"""What grows with the number of links, agents and entries: ``python -m benchmarks.scaling [--out DIR]``.

Each cost is measured at several sizes, in this process, without a network; the fastest of some tries. A cost *for one*
should not grow with how many there are: the table's last column is how much dearer one is at the largest size than at
the smallest. Figures, never a gate.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.delegation.chain import verify_chain
from agentbus.delegation.memory import Memory
from agentbus.delegation.trust import Trust
from agentbus.directory.core import Directory, OnlineKeys
from agentbus.directory.store import SqliteStore
from agentbus.host import enrol_here
from agentbus.identity import Identity
from agentbus.logstore.files import FileLog
from agentbus.testing.draw import chain_bytes, draw_chain, draw_world
from agentbus.wire.ids import name_id
from benchmarks.plot import lines

NAMES: Final = ("bob", "carol", "dave", "erin", "frank", "grace")
LINKS: Final = (1, 2, 3, 4, 5, 6)
AGENTS: Final = (50, 200, 800)
ENTRIES: Final = (1_000, 8_000, 64_000)
DOMAIN: Final = "scale.test"
NOW: Final = 1_750_000_000_000_000


def timed(work: Callable[[], Any], times: int = 5) -> float:
    """Seconds, the fastest of some tries: what else the machine does only ever adds."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def links() -> dict[str, dict[int, float]]:
    """Microseconds to verify a chain of so many links."""
    world = draw_world(*NAMES)
    cold, warm = {}, {}
    for number in LINKS:
        drawing = "alice" + "".join(f" -[quote]-> {name}" for name in NAMES[:number])
        chain = chain_bytes(draw_chain(drawing, world=world))
        cold[number] = timed(lambda c=chain: verify_chain(c, trust=world.trust, now=world.now), 40) * 1e6  # type: ignore[misc]
        cache = Memory()
        verify_chain(chain, trust=world.trust, now=world.now, cache=cache)
        again = lambda c=chain, m=cache: verify_chain(c, trust=world.trust, now=world.now, cache=m)  # noqa: E731
        warm[number] = timed(again, 50) * 1e6
    return {"chain, cold (µs)": cold, "chain, seen before (µs)": warm}


def agents() -> dict[str, dict[int, float]]:
    """Microseconds for each agent: enrolling one more among so many, and folding the log of them all."""
    enrolling, folding = {}, {}
    for number in AGENTS:
        keys, root = OnlineKeys.make(os.urandom), SigningKey(os.urandom(32))
        core = Directory.create(SqliteStore(None), keys, root, domain=DOMAIN, now=NOW)

        def enrol(n: int, core: Directory = core) -> None:
            identity = Identity(name_id(f"agent-{n}", DOMAIN), SigningKey(os.urandom(32)), CurveKey(os.urandom(32)))
            enrol_here(core, identity, now=NOW)

        for n in range(number):
            enrol(n)
        more = iter(range(number, number + 20))
        enrolling[number] = timed(lambda enrol=enrol, more=more: enrol(next(more)), 20) * 1e6  # type: ignore[misc]
        log = list(core.store.entries())
        fold = timed(lambda log=log, root=root: Trust.pinned(root.id).advance(log, now=NOW), 6)  # type: ignore[misc]
        folding[number] = fold / len(log) * 1e6
        core.close()
    return {"enrol one more agent (µs)": enrolling, "fold one entry of the directory's log (µs)": folding}


def entries() -> dict[str, dict[int, float]]:
    """Microseconds to append one entry (in groups of 64) to a log of so many, and milliseconds for its checkpoint."""
    appending, covering = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for number in ENTRIES:
            key = SigningKey(os.urandom(32))
            log = FileLog.open(Path(folder) / str(number), key=key, origin=f"agentbus.{DOMAIN}/n/1", now=NOW)
            group = [os.urandom(300) for _ in range(64)]
            for _ in range(number // 64):
                log.append(group)
            log.checkpoint()
            appending[number] = timed(lambda log=log, group=group: log.append(group), 20) / 64 * 1e6  # type: ignore[misc]
            covers = []
            for _ in range(5):
                for _ in range(20):
                    log.append(group)
                covers.append(timed(log.checkpoint, 1))
            covering[number] = min(covers) * 1e3
            log.close()
    return {"append one entry (µs)": appending, "checkpoint after 1,280 more (ms)": covering}


def main() -> None:
    """Measure, print, write ``scaling.json`` and ``scaling.svg``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    out: Path = parser.parse_args().out
    found = links() | agents() | entries()
    print("| what | at each size | dearer by |\n|---|---|---|")
    for name, sizes in found.items():
        values = list(sizes.values())
        each = ", ".join(f"{size:,}: {value:.1f}" for size, value in sizes.items())
        print(f"| {name} | {each} | {values[-1] / values[0]:.1f} × |")
    out.mkdir(parents=True, exist_ok=True)
    (out / "scaling.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (out / "scaling.svg").write_text(lines("cost for one, against the cost at the smallest size", found), "utf-8")


if __name__ == "__main__":
    main()
