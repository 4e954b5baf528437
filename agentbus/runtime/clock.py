"""The runtime's only clocks. Time is an argument everywhere below."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for people and windows, monotonic time for ages; both in microseconds."""

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        ...

    def mono(self) -> int:
        """Microseconds that never go back; only differences mean something."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def mono(self) -> int:
        return time.monotonic_ns() // 1000
