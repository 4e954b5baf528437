"""What libzmq knows about connections and tells only its socket monitor.

A queue accepts frames for a dead peer as happily as for a live one; DISCONNECTED is the one prompt sign of death.
"""

from __future__ import annotations

import asyncio
import os
import socket as sockets
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Final

import zmq

from agentbus.transport.base import OTHER_KEY, REFUSED
from agentbus.transport.zeromq.reader import Reader

_EVENT: Final = struct.Struct("=Hi")
_NAMES: Final = count(1)
FAILURES: Final = {
    zmq.Event.CLOSED: "nobody listens there",
    zmq.Event.CONNECT_RETRIED: "nobody listens there",
    zmq.Event.DISCONNECTED: "the peer is gone",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: OTHER_KEY,
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: OTHER_KEY,
    zmq.Event.HANDSHAKE_FAILED_AUTH: REFUSED,
}
"""The events after which a dialled connection is over, and what to tell people."""


class Monitor:
    """Reads one socket's events on the loop.

    Args:
        loop: Where to read.
        socket: Whose events; neither bound nor connected yet, so that none is missed.
        events: Which ones.
        tell: Called with (event, value); the value is a file descriptor for ACCEPTED and DISCONNECTED.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        events: int,
        tell: Callable[[int, int], None],
    ) -> None:
        address = f"inproc://agentbus.monitor.{next(_NAMES)}"
        socket.monitor(address, events)
        self._watched = socket
        self._pair = socket.context.socket(zmq.PAIR)
        self._pair.setsockopt(zmq.LINGER, 0)
        self._pair.setsockopt(zmq.RCVHWM, 0)  # libzmq's I/O thread would block on a full one, with every connection
        self._pair.connect(address)
        self._tell = tell
        self._reader = Reader(loop, self._pair, self.drain)

    def drain(self) -> bool:
        """Take note of everything that has happened so far."""
        try:
            while True:
                event, value = _EVENT.unpack(self._pair.recv(zmq.DONTWAIT))
                self._pair.recv(zmq.DONTWAIT)  # the endpoint, always the same one
                self._tell(event, value)
        except zmq.Again:
            return False

    def close(self) -> None:
        """Stop, before the watched socket is closed."""
        self._reader.close()
        self._watched.monitor(None, 0)
        self._pair.close()


class Accepted:
    """The TCP connections a listener has now, each told from earlier and later ones with the same file descriptor.

    libzmq says which *descriptor* a frame came on and which was closed, and descriptors are used again. So every
    acceptance and every admission draws a number from one counter. A connection is accepted before it is admitted, and
    its descriptor's next user later. Hence a descriptor still is the admitted connection's if and only if it was
    accepted under a smaller number than the admission's.

    Whoever compares must have drained the monitor first.
    """

    def __init__(self) -> None:
        self._numbers = count(1)
        self._fds: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._fds)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Descriptor and number of each, from the oldest to the newest; a copy, since looking may change it."""
        return iter(tuple(self._fds.items()))

    def opened(self, fd: int) -> None:
        """ACCEPTED."""
        self._fds.pop(fd, None)  # to the end: iteration goes from the oldest to the newest
        self._fds[fd] = self.next_number()

    def closed(self, fd: int) -> None:
        """DISCONNECTED; libzmq tells it before it closes the descriptor."""
        self._fds.pop(fd, None)

    def next_number(self) -> int:
        """A number for an admission."""
        return next(self._numbers)

    def is_open(self, fd: int, admission: int) -> bool:
        """Whether ``fd`` still is the connection that was admitted under ``admission``."""
        return self._fds.get(fd, admission) < admission

    def oldest(self, but: Callable[[int], bool]) -> int | None:
        """The oldest descriptor for which ``but`` does not hold."""
        return next((fd for fd in self._fds if not but(fd)), None)

    def shut(self, fd: int, drain: Callable[[], bool]) -> None:
        """Cut the connection that has ``fd`` now: libzmq sees its end and cleans up. It has no call for that itself.

        Its I/O thread may close ``fd`` at any moment and anyone may open it anew, so a duplicate is made first and cut
        only if, after that, no DISCONNECTED has come for ``fd``: then it was the right one.
        """
        number = self._fds.get(fd)
        if number is None:
            return
        with suppress(OSError), sockets.socket(fileno=os.dup(fd)) as copy:
            drain()
            if self._fds.get(fd) == number:
                self.closed(fd)  # from now on as good as closed; DISCONNECTED will follow
                copy.shutdown(sockets.SHUT_RDWR)
