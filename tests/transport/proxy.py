"""A TCP connection with somebody in the middle: bytes pass as they are, slowly if wanted, until they are cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

CHUNK: Final = 16_384  # bytes


class Proxy:
    """Made by :func:`between`.

    Args:
        target: Where it leads, as ``tcp://host:port``.
        pace: Bytes a second towards the target; 0: as fast as they come.
    """

    def __init__(self, target: str, pace: int) -> None:
        self._host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._port = int(port)
        self._pace = pace
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.endpoint = ""
        self.passed = 0  # bytes that came back from the target
        self.on_reply: Callable[[bytes], bool] = lambda data: True  # False: this does not pass, and the line is cut
        self.connections = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._joined, "127.0.0.1", 0)
        self.endpoint = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def aclose(self) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End every connection that is there now; new ones are taken."""
        for task in self._tasks:
            task.cancel()

    def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._run(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        ways: list[asyncio.Future[None]] = []
        try:
            there, here = await asyncio.open_connection(self._host, self._port)
            writers.append(here)
            ways = [asyncio.ensure_future(self._forth(reader, here)), asyncio.ensure_future(self._back(there, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass
        finally:
            for way in ways:
                way.cancel()
            for each in writers:
                each.transport.abort()  # a reset, and nothing that waited goes out any more
            closing = (each.wait_closed() for each in writers)
            await asyncio.gather(*ways, *closing, return_exceptions=True)

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
                if self._pace:
                    await asyncio.sleep(len(data) / self._pace)

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while (data := await reader.read(CHUNK)) and self.on_reply(data):
                self.passed += len(data)
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def between(target: str, *, pace: int = 0) -> AsyncIterator[Proxy]:
    """Somebody in front of ``target``."""
    proxy = Proxy(target, pace)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.aclose()
