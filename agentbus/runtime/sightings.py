"""One instance key in two places: who holds a copy of it speaks over a connection of its own.

An instance speaks to a peer over one connection at a time. When that breaks it dials again, repeats what was not
answered, goes on there, and never comes back to the first. So a key that was heard on one connection, then on another
with a later number, and then on the first again with a still later one, is in two hands.

Rule 1: only what has verified counts, and only connections that others opened: nobody can cause an alarm about a key
that it does not hold.
Rule 2: both connections are cut. Which of the two is the thief cannot be known here, and the owner can end the key.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

CODES: Final = {
    "reject.key_twice": "An instance key speaks on two connections at once: it was copied. Revoke the instance.",
}

KEYS: Final = 4096  # of which is remembered where they were heard last


C = TypeVar("C")


@dataclass(slots=True)
class _Place(Generic[C]):
    connection: C
    number: int  # the highest heard there
    left: set[C] = field(default_factory=set)  # where it was heard before


class Sightings(Generic[C]):
    """Where each instance key was heard.

    Args:
        keys: How many are remembered; those heard longest ago are forgotten first.
    """

    def __init__(self, keys: int = KEYS) -> None:
        self._most = keys
        self._places: OrderedDict[bytes, _Place[C]] = OrderedDict()

    def heard(self, key: bytes, connection: C, number: int) -> C | None:
        """A message of ``key`` with the instance's running number has come over ``connection``.

        Returns:
            The other connection on which the key speaks at the same time; None where all is well.
        """
        place = self._places.get(key)
        if place is None:
            self._places[key] = _Place(connection, number)
            if len(self._places) > self._most:
                self._places.popitem(last=False)
            return None
        if number <= place.number:
            return None  # repeated, or overtaken on the way: it says nothing of now
        if connection in place.left:
            return place.connection
        if connection != place.connection:
            place.left.add(place.connection)
            place.connection = connection
            self._places.move_to_end(key)
        place.number = number
        return None

    def lost(self, connection: C) -> None:
        """A connection ended: whoever spoke there may speak elsewhere."""
        for key, place in list(self._places.items()):
            place.left.discard(connection)
            if place.connection == connection:
                del self._places[key]
