"""What ``agentbus bench`` measures: signed against unsigned, on this machine, two processes each, over loopback.

Figures, never a gate. The unsigned peer is a plain pyzmq echo (DEALER to ROUTER, JSON bodies, no CURVE, no log).
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from pydantic import BaseModel

from agentbus.runtime.agent import Agent
from agentbus.runtime.context import Context
from agentbus.runtime.message import Request

BODY: Final = "x" * 430  # with its JSON frame about 450 bytes
FLIGHT: Final = 256


class Pong(BaseModel):
    text: str


class Ping(Request[Pong]):
    text: str


class Note(BaseModel):
    text: str


echo = Agent("echo", description="What bench asks")


@echo.handler(concurrency=1024)
async def ping(request: Ping, ctx: Context) -> Pong:
    return Pong(text=request.text)


@echo.handler(concurrency=1024)
async def note(request: Note, ctx: Context) -> None:
    return None


async def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """Every figure; processes and logs live under ``folder``."""
    unsigned = await _unsigned(seconds)
    signed = await _signed(folder, seconds)
    return {
        **signed,
        "unsigned": unsigned,
        **_crypto(),
        "settings": {
            "body_bytes": 450,
            "in_flight": FLIGHT,
            "seconds": seconds,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "transport": "zeromq, loopback, CURVE; durability process",
        },
    }


async def _signed(folder: Path, seconds: float) -> dict[str, Any]:
    from agentbus.bus.base import Bus
    from agentbus.cli.demo.processes import Processes
    from agentbus.identity import Identity
    from agentbus.runtime.message import Raw

    os.environ.update(AGENTBUS_HOME=str(folder / "home"), AGENTBUS_DATA=str(folder))
    processes = Processes(folder, folder / "home", {})
    try:
        url = await processes.up()
        async with Bus.connect(url, identity="user/operator", listen="") as operator:
            for name in ("echo", "asker"):
                fields = {"name": name, "may_talk_to": ["*"]}
                token = await operator.request("service/directory", Raw("CreatePrincipal", fields))
                await Identity.enrol(name, token=token["token"], url=url)
        await processes.serve("agentbus.cli.bench.measure:echo", "echo")
        async with Bus.connect(url, identity="asker", listen="") as bus:
            ask = Ping(text=BODY)
            tell = Note(text=BODY)
            return await _measure(
                lambda: bus.request("echo", ask), lambda: bus.send("echo", tell, ack="delivered"), seconds
            )
    finally:
        await processes.stop()


async def _unsigned(seconds: float) -> dict[str, Any]:
    """The same over plain pyzmq, with its own reader on the socket's FD."""
    import json

    import zmq

    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ECHO, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    assert child.stdout is not None
    endpoint = (await child.stdout.readline()).decode().strip()
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(endpoint)
    waiting: dict[int, asyncio.Future[Any]] = {}
    loop = asyncio.get_running_loop()

    def read() -> None:
        while socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            number, body = json.loads(socket.recv(zmq.NOBLOCK))
            future = waiting.pop(number, None)
            if future is not None and not future.done():
                future.set_result(body)

    loop.add_reader(socket.fileno(), read)
    count = 0

    async def request() -> Any:
        nonlocal count
        count += 1
        future = waiting[count] = loop.create_future()
        socket.send(json.dumps([count, {"text": BODY}]).encode(), zmq.NOBLOCK)
        loop.call_soon(read)
        return await future

    try:
        return await _measure(request, request, seconds)
    finally:
        loop.remove_reader(socket.fileno())
        socket.close(0)
        context.term()
        child.terminate()
        await child.wait()


_ECHO: Final = """
import zmq
socket = zmq.Context().socket(zmq.ROUTER)
port = socket.bind_to_random_port("tcp://127.0.0.1")
print(f"tcp://127.0.0.1:{port}", flush=True)
while True:
    socket.send_multipart(socket.recv_multipart())
"""


async def _measure(
    request: Callable[[], Awaitable[Any]], send: Callable[[], Awaitable[Any]], seconds: float
) -> dict[str, Any]:
    for _ in range(200):  # warm-up
        await request()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        await request()
        times.append((time.perf_counter() - began) * 1e6)
    return {
        "request_rtt_us": {"p50": round(median(times), 1), "p99": round(quantiles(times, n=100)[98], 1)},
        "requests_per_s": round(await _rate(request, seconds)),
        "sends_per_s": round(await _rate(send, seconds)),
    }


async def _rate(call: Callable[[], Awaitable[Any]], seconds: float) -> float:
    done = 0
    began = time.perf_counter()
    end = began + seconds

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    await asyncio.gather(*(worker() for _ in range(FLIGHT)))
    return done / (time.perf_counter() - began)


def _crypto() -> dict[str, float]:
    """Seal and open alone, with a chain of one link that was seen before: one under a signature, and 64 under one."""
    from agentbus.crypto.signing import Purpose, sign
    from agentbus.delegation.chain import Authority, verify_chain
    from agentbus.delegation.memory import Memory
    from agentbus.protocol.engine import Engine, Local
    from agentbus.protocol.opening import open_envelope
    from agentbus.testing.draw import chain_bytes, draw_world, standing
    from agentbus.wire.header import Kind

    world = draw_world("carol", "dave")
    carol, dave = world["carol"], world["dave"]
    chain = Authority.from_bytes(chain_bytes(standing(world, "carol")))
    engine = Engine(os.urandom)
    local = Local(carol.id, carol.epoch, carol.running.instance_id, carol.instance.id, chain)
    engine.add_local(local)
    body = BODY.encode()

    def seal(n: int) -> list[bytes]:
        for _ in range(n):
            engine.ask(
                Kind.REQUEST, local, dave.running, action="Ping", body=body, chain=chain, now=world.now, mono=0,
                deadline=world.now + 60_000_000, trust=world.trust, route=None,
            )  # fmt: skip
        for batch in engine.take_batches():
            engine.attach(batch, sign(carol.instance, Purpose.BATCH, batch.batch.to_sign))
        return [ready.frame for ready in engine.take_frames()]

    def open_all(frames: list[bytes], cache: Memory) -> None:
        for frame in frames:
            open_envelope(
                frame, me={dave.running.instance_id: dave.id}, trust=world.trust, now=world.now,
                seen=lambda header: False, exchanges=lambda digest, answering: None, cache=cache,
            )  # fmt: skip

    figures = {}
    for name, n in (("", 1), ("batch_", 64)):
        sealing, opening = [], []
        for _ in range(max(10, 640 // n)):
            began = time.perf_counter()
            frames = seal(n)
            sealing.append((time.perf_counter() - began) * 1e6 / n)
            cache = Memory()
            verify_chain(chain.data, trust=world.trust, now=world.now, cache=cache)
            began = time.perf_counter()
            open_all(frames, cache)
            opening.append((time.perf_counter() - began) * 1e6 / n)
        figures[f"{name}seal_us"] = round(median(sealing), 2)
        figures[f"{name}open_us"] = round(median(opening), 2)
    return figures
