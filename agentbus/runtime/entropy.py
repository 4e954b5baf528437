"""The system's randomness, drawn a page at a time: a system call for each id and salt costs more than hashing them.

A child process that forks off never hands out its parent's bytes. Keys are not made from here; each draws its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

PAGE: Final = 4096  # bytes


class Pool:
    """``pool(n)``: n random bytes that nobody else is given.

    Args:
        source: Where they come from.
    """

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._page = b""
        self._at = 0
        self._owner = 0

    def __call__(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._page) or os.getpid() != self._owner:
            if length > PAGE:
                return self._source(length)
            self._page, self._at, end, self._owner = self._source(PAGE), 0, length, os.getpid()
        taken = self._page[self._at : end]
        self._at = end
        return taken
