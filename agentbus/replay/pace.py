"""Time in a replay: as it was, faster, or no time at all.

``instant`` runs on a loop whose clock stands still while anything can run and jumps to the next timer when nothing can:
sleeps and timeouts of a handler keep their order and cost nothing. ``original`` and ``xN`` run on real time, N times as
fast. Work that a handler gave to a thread is waited for.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final

from agentbus.errors import ConfigError
from agentbus.wire.limits import SECOND

CODES: Final = {
    "config.timing": "The timing of a replay is original, instant or xN with N above 0, such as x10.",
}

THREAD: Final = 30.0  # seconds that the jump to the next timer waits for work in threads


def parse_timing(text: str) -> float | None:
    """How many times as fast as it was; None: no time at all.

    Raises:
        ConfigError: ``config.timing``.
    """
    if text == "instant":
        return None
    if text == "original":
        return 1.0
    try:
        factor = float(text[1:]) if text[:1] in ("x", "×") else 0.0
    except ValueError:
        factor = 0.0
    if not 0 < factor < 1e9:
        raise ConfigError("config.timing", f"{text!r}: write original, instant or xN, such as x10")
    return factor


class _Jumping(selectors.DefaultSelector):
    """A selector that never sleeps for a timer: it says how far the clock may jump instead."""

    def __init__(self, factor: float | None) -> None:
        super().__init__()
        self.factor = factor
        self.jumped = 0.0
        self.in_threads = 0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.factor is not None:
            return super().select(timeout / self.factor)
        ready = super().select(THREAD if self.in_threads else 0)
        if not ready:
            self.jumped += timeout
        return ready


class PacedLoop(asyncio.SelectorEventLoop):
    """An event loop whose seconds are those of the record.

    Args:
        factor: How many of its seconds go by in a real one; None: as many as nobody has to wait for.
    """

    def __init__(self, factor: float | None) -> None:
        self._jumping = _Jumping(factor)
        self._began = time.monotonic()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds since the loop was made."""
        if self._jumping.factor is None:
            return self._jumping.jumped
        return (time.monotonic() - self._began) * self._jumping.factor

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As usual; the clock does not jump meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.in_threads += 1
        future.add_done_callback(self._back)
        return future

    def _back(self, _: Any) -> None:
        self._jumping.in_threads -= 1


class RunClock:
    """The clock of a run: it goes with its loop, and is set to the instant of each recorded message.

    Args:
        start: The first recorded instant, in microseconds.
        elapsed: The loop's clock, in seconds.
    """

    def __init__(self, start: int, elapsed: Callable[[], float]) -> None:
        self._offset = start
        self._elapsed = elapsed

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return self._offset + self.mono()

    def mono(self) -> int:
        """Microseconds that never go back."""
        return int(self._elapsed() * SECOND)

    def reach(self, instant: int) -> None:
        """Be at least at ``instant``: a recorded clock that went back does not take this one with it."""
        self._offset = max(self._offset, instant - self.mono())
