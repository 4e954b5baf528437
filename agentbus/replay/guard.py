"""Keeping a replay from the network.

The replay itself opens no socket. What an agent's own code does is another matter, and two things stand against it:

- :func:`isolate` moves the process into a network namespace of its own, where there is no network: the kernel keeps it,
  whatever code runs. It needs Linux and a kernel that lets this user do so; ``agentbus log replay`` tries it.
- :class:`Guard` refuses sockets and new processes where Python is about to open them (PEP 578). Code of this process
  that does not go through Python, such as a C library with sockets of its own, or that wants to get around it, is not
  kept by it. It holds for the whole process while it is on: other threads, too.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from agentbus.errors import Unavailable

CODES: Final = {
    "unavailable.egress": "A replay has no network and starts no process: take what is outside through ctx.step.",
}

_NEWNET, _NEWUSER = 0x4000_0000, 0x1000_0000  # clone(2)
_REFUSED: Final = frozenset(
    {
        "socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname",
        "socket.getnameinfo", "socket.sendmsg", "socket.sendto", "os.exec", "os.fork", "os.forkpty",
        "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "subprocess.Popen",
    }
)  # fmt: skip


class Guard:
    """Refuses, while it is entered, whatever would leave this process.

    Args:
        refused: Told of each refusal, before it is raised.
    """

    def __init__(self, refused: Callable[[str], None] = lambda what: None) -> None:
        self.refused = refused

    def __enter__(self) -> Self:
        _install()
        _on.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _on.remove(self)


_on: Final[list[Guard]] = []
_installed: Final = threading.Lock()  # taken once, and never given back: an audit hook stays


def _install() -> None:
    if _installed.acquire(blocking=False):
        sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _on:
        return
    if event in _REFUSED or (event == "socket.__new__" and arguments[1] != socket.AF_UNIX):
        what = f"{event} {_shown(arguments)}".rstrip()
        for guard in list(_on):
            guard.refused(what)
        raise Unavailable("unavailable.egress", f"{what}: {CODES['unavailable.egress']}")


def _shown(arguments: tuple[Any, ...]) -> str:
    """Where it was to go: addresses and names, nothing that could be a secret in a command line."""
    return " ".join(repr(a)[:80] for a in arguments[:2] if isinstance(a, tuple | str)) if arguments else ""


def isolate() -> bool:
    """Leave the network for good: from here on this process is in a namespace that has none.

    Call it while the process has one thread.

    Returns:
        False: this system does not let us; the network is as it was.
    """
    if sys.platform != "linux":
        return False
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(_NEWNET) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if unshare(_NEWUSER | _NEWNET) != 0:
        return False
    try:  # keep our names: files are opened as before either way
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{name}").write_text(text, "ascii")
    except OSError:
        pass
    return True
