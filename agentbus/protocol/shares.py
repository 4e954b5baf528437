"""A bounded table that many fill: whoever holds most loses its oldest first, so nobody pushes out another's."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Final, Generic, TypeVar

_SLACK: Final = 64

K = TypeVar("K")
V = TypeVar("V")


class Shares(Generic[K, V]):
    """Values by key, each with its weight and its holder.

    Args:
        limit: Weight, all values together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._holders: dict[K, str] = {}
        self._of: dict[str, OrderedDict[K, tuple[int, V]]] = {}  # by holder, oldest first
        self._weights: dict[str, int] = {}
        self._largest: list[tuple[int, str]] = []  # a heap of (-weight, holder), each at least once as heavy as it is
        self.weight = 0

    def __len__(self) -> int:
        return len(self._holders)

    def put(self, holder: str, key: K, value: V, weight: int = 1) -> list[K]:
        """Keep a value; one under the same key goes.

        Returns:
            The keys of what had to go for it, perhaps itself.
        """
        self.pop(key)
        self._holders[key] = holder
        self._of.setdefault(holder, OrderedDict())[key] = (weight, value)
        self._weigh(holder, weight)
        gone = []
        while self.weight > self._limit:
            mine = self._of[self._top()]
            gone.append(next(iter(mine)))
            self.pop(gone[-1])
        return gone

    def get(self, key: K) -> V | None:
        """The value of a key, while it is kept."""
        holder = self._holders.get(key)
        return self._of[holder][key][1] if holder is not None else None

    def pop(self, key: K) -> V | None:
        """Take a value out."""
        holder = self._holders.pop(key, None)
        if holder is None:
            return None
        weight, value = self._of[holder].pop(key)
        if self._of[holder]:
            self._weigh(holder, -weight)
        else:
            self.weight -= weight
            del self._of[holder], self._weights[holder]
        return value

    def _weigh(self, holder: str, more: int) -> None:
        self.weight += more
        self._weights[holder] = now = self._weights.get(holder, 0) + more
        if more > 0:
            heapq.heappush(self._largest, (-now, holder))
            if len(self._largest) > 4 * len(self._weights) + _SLACK:
                self._largest = [(-weight, one) for one, weight in self._weights.items()]
                heapq.heapify(self._largest)

    def _top(self) -> str:
        """Who holds most. What the heap says of a holder may be what it held once: then it is put right."""
        while True:
            said, holder = self._largest[0]
            now = self._weights.get(holder)
            if now == -said:
                return holder
            heapq.heappop(self._largest)
            if now is not None and now < -said:
                heapq.heappush(self._largest, (-now, holder))
