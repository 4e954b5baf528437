"""Recorded results are handed over one at a time, in the order they were recorded.

Each is due as long after it was asked for as it was then. One that is due while an earlier one was not even asked for
waits a little for it, and then goes first: a handler that asks in another order is still answered.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final

PATIENCE: Final = 1.0  # seconds of the run's clock


class Order:
    """The results of one handler.

    Args:
        positions: Where they stand in the log.
        asap: Whether nothing is waited for, because the loop's seconds are real and the run's are not.
    """

    def __init__(self, positions: Iterable[int], *, asap: bool = False) -> None:
        self._left = sorted(positions)
        self._asap = asap
        self._waiting: dict[int, tuple[float, Callable[[], None], asyncio.TimerHandle]] = {}
        self._next: asyncio.TimerHandle | None = None

    def ask(self, position: int, latency: int, deliver: Callable[[], None]) -> None:
        """Let the result at ``position`` be delivered ``latency`` microseconds from now, and not before its turn."""
        loop = asyncio.get_running_loop()
        due = loop.time() + (0.0 if self._asap else max(0, latency) / 1_000_000)
        self._waiting[position] = (due, deliver, loop.call_at(due + PATIENCE, self._give, position))
        self._arm()

    def close(self) -> None:
        """Deliver nothing more."""
        self.drop(list(self._left))

    def drop(self, positions: Iterable[int]) -> None:
        """Nobody waits for these any more, or ever will."""
        for position in positions:
            self._forget(position)
        self._arm()

    def _arm(self) -> None:
        """Whoever is first in the record and was asked for is next."""
        if self._next is not None or not self._left or self._left[0] not in self._waiting:
            return
        position = self._left[0]
        due = self._waiting[position][0]
        self._next = asyncio.get_running_loop().call_at(due, self._turn, position)

    def _turn(self, position: int) -> None:
        self._next = None
        self._give(position)
        asyncio.get_running_loop().call_soon(self._arm)  # once whoever got it has run

    def _give(self, position: int) -> None:
        found = self._waiting.get(position)
        if found is not None:
            self._forget(position)
            found[1]()

    def _forget(self, position: int) -> None:
        found = self._waiting.pop(position, None)
        if found is not None:
            found[2].cancel()
        at = bisect_left(self._left, position)
        if at < len(self._left) and self._left[at] == position:
            del self._left[at]
