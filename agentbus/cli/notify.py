"""Telling systemd (``sd_notify(3)``): a unit of ``Type=notify`` is started once its process says that it is ready."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send ``READY=1`` or ``STOPPING=1`` to whoever set ``NOTIFY_SOCKET``; nothing happens where nobody did."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(state.encode(), address if address[0] == "/" else f"\0{address[1:]}")
