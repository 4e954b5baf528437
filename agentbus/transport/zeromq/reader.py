"""Reading libzmq's sockets on an asyncio loop.

Rule 1: a socket's FD is edge-triggered: it tells that *something changed*, once. So a reader goes on until there is
nothing left, and looks again after whatever may have swallowed the edge; every send may.
Rule 2: nobody holds the loop: after a bounded number of messages a reader lets others run and comes back by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import zmq

BUDGET: Final = 128  # messages before others get their turn: about 1 ms


class Reader:
    """Calls ``drain`` when its socket may have something to read, and again as long as ``drain`` answers True.

    Args:
        loop: Where the socket is read.
        socket: What is read; nobody else may.
        drain: Reads until nothing is left (False) or the budget is spent (True).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: zmq.Socket[bytes], drain: Callable[[], bool]) -> None:
        self._loop = loop
        self._fd = int(socket.getsockopt(zmq.FD))
        self._drain = drain
        self._scheduled = False
        self._closed = False
        loop.add_reader(self._fd, self._run)  # at once: nothing of ours is on the stack
        self.wake()  # an edge from before we listened will not come again

    def wake(self) -> None:
        """Look soon, but once in a tick however many ask."""
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def close(self) -> None:
        """Stop; before the socket is closed, because its FD may then be somebody else's."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._fd)

    def _run(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        more = True
        try:
            more = self._drain()
        finally:  # when a sink raises, the rest is still there, and no new edge will announce it
            if more:
                self.wake()
