"""Who may connect: the one ZAP handler of a context (RFC 27).

Rule 1: only CURVE, only keys that ``admit`` answers True for; everything else, errors and silence included, is refused.
Rule 2: requests do not wait for each other, and only so many wait at all.
Rule 3: the User-Id of an admitted connection is its key and a number of its own, so whatever routing id a peer takes,
no frame of its can pass for another's, nor for its own former connection's.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import zmq

from agentbus.transport.base import Sink
from agentbus.transport.common import KEY_SIZE, ask_admission
from agentbus.transport.zeromq.gate import Gate
from agentbus.transport.zeromq.reader import BUDGET, Reader

ENDPOINT: Final = "inproc://zeromq.zap.01"
PENDING: Final = 256  # admissions being decided; anybody who knows our public key can cause one


class ZapHandler:
    """Answers libzmq's question for each CURVE handshake.

    Args:
        loop: Where requests are read and decided.
        context: Whose handler this is; it must exist before anything is bound.
        sink: Decides.
        gate: Refuses before the sink is asked, and numbers the admissions.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: zmq.Context[zmq.Socket[bytes]], sink: Sink, gate: Gate
    ) -> None:
        self._loop = loop
        self._sink = sink
        self._gate = gate
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ENDPOINT)
        self._reader = Reader(loop, self._socket, self._drain)

    async def aclose(self) -> None:
        """Refuse whatever is undecided."""
        self._reader.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()

    def _drain(self) -> bool:
        for _ in range(BUDGET):
            try:
                request = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return False
            self._begin(request)
        return True

    def _begin(self, request: list[bytes]) -> None:
        if len(request) < 4:
            return  # nothing to address an answer to; libzmq gives up after the handshake's time
        route = [request[0], b"", b"1.0", request[3]]
        key = _curve_key(request)
        if key is None or len(self._tasks) >= PENDING or not self._gate.may_ask(key):
            self._answer(route, None)
            return
        task = self._loop.create_task(self._decide(route, key), name="agentbus-zap")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide(self, route: list[bytes], key: bytes) -> None:
        admitted = await ask_admission(self._sink, key)
        self._answer(route, self._gate.enter(key) if admitted else None)

    def _answer(self, route: list[bytes], user_id: bytes | None) -> None:
        verdict = [b"400", b"refused", b"", b""] if user_id is None else [b"200", b"OK", user_id, b""]
        with suppress(zmq.ZMQError):  # the peer did not wait for the answer
            self._socket.send_multipart(route + verdict, zmq.DONTWAIT)
        self._reader.wake()


def _curve_key(request: list[bytes]) -> bytes | None:
    """The client's key, of a request that is CURVE's and nothing else (RFC 27: routing id, empty, version, …)."""
    if len(request) != 9 or request[1] != b"" or request[2] != b"1.0" or request[7] != b"CURVE":
        return None
    return request[8] if len(request[8]) == KEY_SIZE else None
