"""Telling others that a process is ready: systemd (``sd_notify(3)``, ``Type=notify``), or whoever watches a file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def notify(state: str) -> None:
    """Send ``READY=1`` or ``STOPPING=1`` to whoever set ``NOTIFY_SOCKET``; nothing happens where nobody did."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    import socket

    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(state.encode(), address if address[0] == "/" else f"\0{address[1:]}")


def mark_ready(path: Path, text: str) -> None:
    """Write a file that says so, whole or not at all; into a pipe it is written as it is."""
    if path.exists() and not path.is_file():
        path.write_text(text, "utf-8")
        return
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(text, "utf-8")
    fresh.replace(path)
