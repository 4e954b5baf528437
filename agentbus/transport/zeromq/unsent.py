"""What waits for one peer, in bytes: libzmq counts frames, and holds as many of a megabyte as of ten bytes.

libzmq does not tell how much of it has left. The kernel does: how many bytes the peer has acknowledged (``TCP_INFO``).
What is neither is in libzmq's queue or in the kernel's, and both are memory here.

Rule 1: the kernel is asked only where the bound would be passed without asking.
Rule 2: what else leaves (handshake, heartbeats) counts as if it had waited, so a look may find too little and never too
much: nobody who reads is taken for somebody who does not.

Linux only; elsewhere the number of frames is the only bound.
"""

from __future__ import annotations

import socket as sockets
import sys
from typing import Final

_TCP_INFO: Final = 11
_ACKNOWLEDGED: Final = slice(120, 128)  # tcpi_bytes_acked, since Linux 4.1
_MESSAGE: Final = 33  # bytes of CURVE's MESSAGE command beside the frame in it
_SHORT: Final = 255  # bytes; a longer command has a length of eight bytes instead of one


def on_the_wire(size: int) -> int:
    """How many bytes a frame of this size is to TCP."""
    command = size + _MESSAGE
    return command + (2 if command <= _SHORT else 9)


def acknowledged(fd: int) -> int | None:
    """How many bytes the peer of ``fd`` has acknowledged; None where the system does not tell."""
    if sys.platform != "linux":
        return None
    connection = None
    try:
        connection = sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM, sockets.IPPROTO_TCP, fileno=fd)
        counted = connection.getsockopt(sockets.IPPROTO_TCP, _TCP_INFO, 256)[_ACKNOWLEDGED]
    except OSError:  # closed meanwhile
        return None
    finally:
        if connection is not None:
            connection.detach()  # it is libzmq's, and stays open
    return int.from_bytes(counted, sys.byteorder) if len(counted) == 8 else None


class Unsent:
    """The bytes that were offered to one connection and may not have left yet.

    Args:
        most: Bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting = 0
        self._acknowledged = 0

    def takes(self, size: int, fd: int | None) -> bool:
        """Whether a frame of this size may wait, too; one alone always may. ``fd`` is None before there is one."""
        if self._waiting + size > self._most and fd is not None:
            now = acknowledged(fd)
            if now is None:
                self._waiting = 0
            elif now > self._acknowledged:
                self._waiting = max(0, self._waiting - (now - self._acknowledged))
                self._acknowledged = now
        return self._waiting == 0 or self._waiting + size <= self._most

    def add(self, size: int) -> None:
        """A frame of this size was queued."""
        self._waiting += on_the_wire(size)
