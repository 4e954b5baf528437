"""Figures of the directory: ``python benchmarks/directory.py [EXCHANGES] [AGENTS] [--json]``. Never a gate.

A directory in a process of its own, over ZeroMQ under CURVE: until it is ready, what a key costs to look up, what a
token exchange costs, and how much memory agents take that do nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import OKPKey

from agentbus import Agent, Bus, Context, Identity, Raw
from agentbus.cli.bench.measure import Ping, Pong
from agentbus.cli.demo.processes import Processes
from agentbus.crypto.keys import SigningKey
from agentbus.runtime.exchange import PutIssuer
from agentbus.runtime.trust_cache import TrustCache

STARTS, FLIGHT = 7, 32
IDP, AUDIENCE = "https://idp.example", "https://bus.example"
KEY: Final = OKPKey.generate_key("Ed25519", parameters={"kid": "ed"})
RULE: Final[dict[str, Any]] = {
    "issuer": IDP, "audience": AUDIENCE, "jwks": {"keys": [{**KEY.as_dict(private=False), "use": "sig"}]},
    "scopes": ["docs:*"], "clients": [("web", "app")], "max_depth": 2,
}  # fmt: skip
IDLE: Final = "--idle"


@asynccontextmanager
async def directory(folder: Path, **people: list[str]) -> AsyncIterator[tuple[str, Bus]]:
    """A directory with these agents under their ceilings, and the operator's bus."""
    os.environ.update(AGENTBUS_HOME=str(folder / "home"), AGENTBUS_DATA=str(folder))
    processes = Processes(folder, folder / "home", {})
    try:
        url = await processes.up()
        async with Bus.connect(url, identity="user/operator", listen="") as operator:
            for name, ceiling in people.items():
                fields = {"name": name, "may_talk_to": ["*"], "ceiling": ceiling}
                token = await operator.request("service/directory", Raw("CreatePrincipal", fields))
                await Identity.enrol(name, token=token["token"], url=url)
            yield url, operator
    finally:
        await processes.stop()


async def ready() -> dict[str, float]:
    """From ``agentbus up`` in an empty folder until it prints its URL."""
    took = []
    for _ in range(STARTS):
        with TemporaryDirectory(prefix="agentbus-bench-") as name:
            processes = Processes(Path(name), Path(name) / "home", {})
            began = time.perf_counter()
            try:
                await processes.up()
                took.append(1000 * (time.perf_counter() - began))
            finally:
                await processes.stop()
    return {"up_ready_ms": median(took)}


async def exchanges(bus: Bus, count: int) -> dict[str, float]:
    """A user's token becomes an authority, one after the other and many at once."""
    now = int(time.time())
    claims = {"iss": IDP, "sub": "ann", "aud": AUDIENCE, "client_id": "web", "iat": now, "exp": now + 900}
    head = {"alg": "Ed25519", "kid": "ed", "typ": "at+jwt"}
    made = (
        jwt.encode(head, {**claims, "jti": f"token-{n}"}, KEY, algorithms=["Ed25519"]) for n in range(2 * count + 10)
    )
    tokens = iter(list(made))

    async def one() -> float:
        began = time.perf_counter()
        await bus.exchange(next(tokens), scopes=["docs:read"])
        return time.perf_counter() - began

    for _ in range(10):
        await one()
    alone = sorted([await one() for _ in range(count)])
    return {
        "exchange_ms_p50": 1000 * median(alone),
        "exchange_ms_p99": 1000 * alone[int(0.99 * (count - 1))],
        "exchanges_per_s": await rate(one, count),
    }


async def rate(one: Callable[[], Awaitable[Any]], count: int) -> float:
    """How many a second, with some under way at once."""
    todo = iter(range(count))

    async def some() -> None:
        for _ in todo:
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(FLIGHT)))
    return count / (time.perf_counter() - began)


async def keys(bus: Bus, rounds: int = 200) -> dict[str, float]:
    """Whose key is this: from this node's copy of the directory's log, and by asking the directory."""
    source = bus._node.source
    assert isinstance(source, TrustCache)
    known = bus._node.voices.get(bus._voice.local.instance_id)
    assert known is not None and source.trust.instances[known.key.id]
    instances, key = source.trust.instances, known.key.id
    began = time.perf_counter()
    for _ in range(100_000):
        instances.get(key)
    cached = (time.perf_counter() - began) / 100_000
    asked = []
    for _ in range(rounds):
        stranger = SigningKey(os.urandom(32)).public.id
        began = time.perf_counter()
        await source.find(keys=[stranger])
        asked.append(time.perf_counter() - began)
    return {"key_cached_us": 1e6 * cached, "key_at_directory_ms": 1000 * median(asked)}


def memory() -> float:
    """MiB that this process has now."""
    return int(re.findall(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def idler(name: str) -> Agent[None]:
    """An agent that could answer, and is never asked."""
    agent: Agent[None] = Agent(name)

    @agent.handler
    async def ping(request: Ping, ctx: Context[None]) -> Pong:
        return Pong(text=request.text)

    return agent


async def idle(url: str, count: int) -> None:
    """The child: serve one agent, then all the others; print what each cost."""
    async with Bus.connect(url, identity="idle-0", listen="") as bus, bus.serve(idler("idle-0")):
        await asyncio.sleep(2)
        first = memory()
        async with bus.serve(*(idler(f"idle-{n}") for n in range(1, count))):
            await asyncio.sleep(2)
            further = (memory() - first) / max(1, count - 1)
            print(json.dumps({"idle_first_mib": first, "idle_further_mib": further}), flush=True)


async def measure(count: int, agents: int) -> dict[str, float]:
    """Every figure."""
    figures = await ready()
    with TemporaryDirectory(prefix="agentbus-bench-") as name:
        people = {"app": ["docs:*"], **{f"idle-{n}": [] for n in range(agents)}}
        async with directory(Path(name), **people) as (url, operator):
            user = {"name": "user/ann", "may_talk_to": ["*"], "rights": ["docs:*"]}
            token = await operator.request("service/directory", Raw("CreatePrincipal", user))
            await Identity.enrol("user/ann", token=token["token"], url=url)
            await operator.request("service/directory", PutIssuer.model_validate({"rule": RULE}))
            async with Bus.connect(url, identity="app", listen="") as bus:
                figures |= await keys(bus)
                figures |= await exchanges(bus, count)
            child = await asyncio.create_subprocess_exec(
                sys.executable, __file__, IDLE, url, str(agents), stdout=asyncio.subprocess.PIPE
            )
            out, _ = await child.communicate()
            figures |= json.loads(out)
    return figures


def main() -> None:
    """Measure, and print."""
    if sys.argv[1:2] == [IDLE]:
        asyncio.run(idle(sys.argv[2], int(sys.argv[3])))
        return
    numbers = [int(text) for text in sys.argv[1:] if text.isdigit()]
    count, agents = (numbers + [1000, 50][len(numbers) :])[:2]
    figures = asyncio.run(measure(count, agents))
    if "--json" in sys.argv:
        print(json.dumps(figures))
        return
    for what, value in figures.items():
        print(f"{what:24} {value:12,.2f}")


if __name__ == "__main__":
    main()
