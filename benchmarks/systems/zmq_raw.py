"""Plain pyzmq with its own reader on the socket's FD: no signature, no encryption, no log, JSON bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import zmq

from benchmarks.peer import Echo

LABEL: Final = "pyzmq, unsigned"


def reading(socket: zmq.Socket[bytes], take: Callable[[list[bytes]], None]) -> Callable[[], None]:
    """Edge-triggered, as libzmq is: reads until nothing is left."""

    def read() -> None:
        try:
            while True:
                take(socket.recv_multipart(zmq.DONTWAIT))
        except zmq.Again:
            pass

    return read


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[str]:
    """A ROUTER that echoes."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    port = socket.bind_to_random_port("tcp://127.0.0.1")

    def answer(message: list[bytes]) -> None:
        number, text = json.loads(message[-1])
        socket.send_multipart([message[0], json.dumps([number, text]).encode()])

    asyncio.get_running_loop().add_reader(socket.getsockopt(zmq.FD), reading(socket, answer))
    yield f"tcp://127.0.0.1:{port}"
    socket.close(0)
    context.term()


@asynccontextmanager
async def client(folder: Path, address: str) -> AsyncIterator[Echo]:
    """A DEALER that counts its questions."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(address)
    waiting: dict[int, asyncio.Future[str]] = {}
    numbers = count()
    loop = asyncio.get_running_loop()

    def take(message: list[bytes]) -> None:
        number, text = json.loads(message[0])
        waiting.pop(number).set_result(text)

    read: Any = reading(socket, take)
    loop.add_reader(socket.getsockopt(zmq.FD), read)

    async def echo(text: str) -> str:
        number = next(numbers)
        future = waiting[number] = loop.create_future()
        socket.send(json.dumps([number, text]).encode())
        loop.call_soon(read)  # a send may swallow the edge
        return await future

    yield echo
    socket.close(0)
    context.term()
