"""A bounded table that many fill: whoever holds most loses its oldest first, so nobody pushes out another's."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

_ROOM: Final = 64  # a part of so many is made free at once: looking for who holds most is then paid for by many

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
        self.weight = 0

    def __len__(self) -> int:
        return len(self._holders)

    def put(self, holder: str, key: K, value: V, weight: int = 1) -> list[K]:
        """Keep a value; one under the same key goes.

        Returns:
            The keys of what had to go for it, perhaps itself.
        """
        if key in self._holders:
            self.pop(key)
        self._holders[key] = holder
        mine = self._of.get(holder)
        if mine is None:
            mine = self._of[holder] = OrderedDict()
            self._weights[holder] = 0
        mine[key] = (weight, value)
        self._weights[holder] += weight
        self.weight += weight
        return self._make_room() if self.weight > self._limit else []

    def get(self, key: K) -> V | None:
        """The value of a key, while it is kept."""
        holder = self._holders.get(key)
        return self._of[holder][key][1] if holder is not None else None

    def items(self) -> list[tuple[K, V]]:
        """What is kept now, by key."""
        return [(key, value) for mine in self._of.values() for key, (_, value) in mine.items()]

    def pop(self, key: K) -> V | None:
        """Take a value out."""
        holder = self._holders.pop(key, None)
        if holder is None:
            return None
        mine = self._of[holder]
        weight, value = mine.pop(key)
        self.weight -= weight
        self._weights[holder] -= weight
        if not mine:
            del self._of[holder], self._weights[holder]
        return value

    def _make_room(self) -> list[K]:
        """Cut everybody who holds more than the level at which enough is free down to it."""
        excess = self.weight - (self._limit - self._limit // _ROOM)
        largest = sorted(self._weights.items(), key=lambda one: -one[1])
        together, level = 0, 0
        for count, (_, weight) in enumerate(largest, 1):
            together += weight
            level = (together - excess) // count
            if count == len(largest) or level >= largest[count][1]:
                break
        gone: list[K] = []
        for holder, weight in largest:
            if weight <= level:
                break
            while self._weights.get(holder, 0) > level:
                gone.append(next(iter(self._of[holder])))
                self.pop(gone[-1])
        return gone
