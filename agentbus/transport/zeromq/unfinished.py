"""Peers that send and never finish: libzmq collects the parts of a message before anybody can look at them.

MAXMSGSIZE bounds one frame, not a message of endless frames, and it bounds a stranger's handshake command no better: so
each connection could make the process hold what it likes. libzmq tells nothing of it. The kernel does: how many bytes a
connection has brought (``TCP_INFO``), less those that nobody has read yet.

Rule 1: who has brought more than two frames' worth since its last message, while nothing is left to read, is cut.
Rule 2: a handshake is short. Of those who were never heard, only who may have been admitted may have brought more; for
each admission that is the last who had connected before it.
Rule 3: what is seen here is a count of bytes. It decides over connections, never over messages.

Linux only; elsewhere the limit on the process's memory is all there is.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket as sockets
import struct
import sys
import termios
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

SOON: Final = 0.02  # seconds between looks while somebody may be shaking hands: what strangers bring meanwhile counts
LATER: Final = 0.1  # seconds between looks at those who have been admitted, while there are few
EACH: Final = 0.00015  # seconds more for each of them: fifty times what a look costs
YOUNG: Final = 6.0  # seconds; libzmq has ended every handshake by then
HANDSHAKE: Final = 8192  # bytes: greeting, HELLO and INITIATE have less than 1,000
TRICKLE: Final = 512.0  # bytes a second of heartbeats, which are no message
SLACK: Final = 65_536  # bytes: headers, and what libzmq reads ahead
_TCP_INFO: Final = 11
_RECEIVED: Final = slice(128, 136)  # tcpi_bytes_received, since Linux 4.1


def taken(fd: int) -> int | None:
    """How many bytes libzmq has read from the connection ``fd``; None where the system does not tell."""
    if sys.platform != "linux":
        return None
    connection = None
    try:
        connection = sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM, sockets.IPPROTO_TCP, fileno=fd)
        info = connection.getsockopt(sockets.IPPROTO_TCP, _TCP_INFO, 256)
        (unread,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    except OSError:  # closed meanwhile, which the constructor may be the first to find out
        return None
    finally:
        if connection is not None:
            connection.detach()  # it is libzmq's, and stays open
    counted = info[_RECEIVED]
    return int.from_bytes(counted, sys.byteorder) - unread if len(counted) == 8 else None


@dataclass(slots=True)
class _Seen:
    """One connection at the last look: since when, and from where its unfinished bytes are counted."""

    number: int
    since: float
    messages: int = 0
    mark: float = 0.0


class Unfinished:
    """Looks at a listener's connections from time to time.

    Args:
        loop: Where, and whose clock.
        connections: All of them now, oldest first: descriptor, its number, messages heard from it (None: none yet).
        quiet: Whether nothing is left to read, so that what has been taken and not heard is unfinished.
        admitted: The numbers of the admissions of those who have not been heard.
        cut: Ends the connection with this descriptor.
        max_frame: Bytes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        connections: Callable[[], Iterable[tuple[int, int, int | None]]],
        quiet: Callable[[], bool],
        admitted: Callable[[], Iterable[int]],
        cut: Callable[[int], None],
        max_frame: int,
    ) -> None:
        self._loop = loop
        self._connections, self._quiet, self._admitted, self._cut = connections, quiet, admitted, cut
        self._most = 2 * max_frame + SLACK
        self._seen: dict[int, _Seen] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looked = loop.time()
        self._closed = False

    def watch(self) -> None:
        """Somebody connected."""
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(SOON, self._look)

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        everybody = now - self._looked >= max(LATER, EACH * len(self._seen))
        quiet = self._quiet()
        passed, self._looked = (now - self._looked, now) if everybody else (0.0, self._looked)
        seen: dict[int, _Seen] = {}
        guilty: list[int] = []
        heavy: list[tuple[int, int]] = []  # number and descriptor, oldest first
        for fd, number, messages in self._connections():
            known = self._seen.get(fd)
            if known is None or known.number != number:
                known = _Seen(number, now)
            seen[fd] = known
            young = messages is None and now - known.since < YOUNG
            if not quiet or not (everybody or young):
                continue
            bytes_taken = taken(fd)
            if bytes_taken is None:
                continue
            if messages is not None and messages != known.messages:
                known.messages, known.mark = messages, bytes_taken
            known.mark = min(known.mark + TRICKLE * passed, bytes_taken)
            if bytes_taken - known.mark > self._most:
                guilty.append(fd)
            elif messages is None and bytes_taken > HANDSHAKE:
                heavy.append((number, fd))
        for admission in sorted(self._admitted(), reverse=True):
            may_be = [one for one in heavy if one[0] < admission]
            if may_be:
                heavy.remove(may_be[-1])
        for fd in (*guilty, *(fd for _, fd in heavy)):
            self._cut(fd)
        self._seen = seen
        if seen and not self._closed and self._timer is None:  # else somebody connected while this looked
            waiting = any(now - one.since < YOUNG for one in seen.values())
            self._timer = self._loop.call_later(SOON if waiting else max(LATER, EACH * len(seen)), self._look)
