"""What is to happen at an instant of the node's monotonic clock, which in a test is turned by hand."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, Final

KEPT: Final = 1024  # alarms that were called off and may stay in the heap, or as many as are still to come


class Alarm:
    """One callback at one instant."""

    __slots__ = ("call", "due", "number")

    def __init__(self, due: int, number: int, call: Callable[[], Any] | None) -> None:
        self.due, self.number, self.call = due, number, call

    def __lt__(self, other: Alarm) -> bool:
        return (self.due, self.number) < (other.due, other.number)


class Alarms:
    """Callbacks by instant."""

    def __init__(self) -> None:
        self._heap: list[Alarm] = []
        self._numbers = count()
        self._off = 0

    def __len__(self) -> int:
        return len(self._heap) - self._off

    def add(self, due: int, call: Callable[[], Any]) -> Alarm:
        """Call ``call`` once ``due`` (microseconds) has come."""
        alarm = Alarm(due, next(self._numbers), call)
        heapq.heappush(self._heap, alarm)
        return alarm

    def call_off(self, alarm: Alarm) -> None:
        """It is not wanted any more; harmless when it has rung."""
        if alarm.call is None:
            return
        alarm.call = None
        self._off += 1
        if self._off > max(KEPT, len(self._heap) // 2):
            self._heap = [one for one in self._heap if one.call is not None]
            heapq.heapify(self._heap)
            self._off = 0

    def next(self) -> int | None:
        """When the next one is due."""
        while self._heap and self._heap[0].call is None:
            heapq.heappop(self._heap)
            self._off -= 1
        return self._heap[0].due if self._heap else None

    def ring(self, mono: int) -> None:
        """Call all that are due."""
        while (due := self.next()) is not None and due <= mono:
            call, alarm = self._heap[0].call, heapq.heappop(self._heap)
            alarm.call = None
            if call is not None:
                call()
