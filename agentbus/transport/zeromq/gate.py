"""The listener's own reasons to refuse, before anybody is asked: too many, too often, or just thrown out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentbus.transport.zeromq.monitor import Accepted

PENALTY: Final = 5.0  # seconds for which a dropped key may not return: longer than any client's first retries
BURST: Final = 32.0  # connections one key may open at once; the processes of one identity share its key
UNHEARD: Final = 60.0  # seconds; who was admitted and has not been heard by then is counted no more
PACE: Final = 4.0  # connections a second one key may open after that


class Gate:
    """Memory about keys, bounded by the number of enrolled keys: only those who were admitted are remembered.

    Args:
        accepted: The listener's connections.
        has_room: Brings ``accepted`` up to date, and tells whether one more connection is within the limits.
        clock: Monotonic seconds.
    """

    def __init__(self, accepted: Accepted, *, has_room: Callable[[], bool], clock: Callable[[], float]) -> None:
        self._accepted = accepted
        self._has_room = has_room
        self._clock = clock
        self._banned: dict[bytes, float] = {}
        self._buckets: dict[bytes, tuple[float, float]] = {}
        self._unheard: dict[int, float] = {}

    def ban(self, key: bytes) -> None:
        """Refuse ``key`` for a while."""
        now = self._clock()
        self._banned = {banned: until for banned, until in self._banned.items() if until > now}
        self._banned[key] = now + PENALTY

    def may_ask(self, key: bytes) -> bool:
        """Whether it is worth asking who ``key`` is."""
        now = self._clock()
        return self._banned.get(key, now) <= now and self._tokens(key, now) >= 1 and self._has_room()

    def enter(self, key: bytes) -> bytes | None:
        """The User-Id of a connection that has just been admitted; None when ``key`` was banned meanwhile."""
        if not self.may_ask(key):  # which also numbers this connection's acceptance before its admission
            return None
        now = self._clock()
        self._buckets[key] = (self._tokens(key, now) - 1, now)
        number = self._accepted.next_number()
        self._unheard[number] = now
        return f"{key.hex()}.{number}".encode()

    def heard(self, number: int) -> None:
        """The connection that was admitted under ``number`` has spoken."""
        self._unheard.pop(number, None)

    def unheard(self) -> list[int]:
        """The numbers of those who were admitted of late and have not spoken."""
        old = self._clock() - UNHEARD
        for number in [number for number, at in self._unheard.items() if at < old]:
            del self._unheard[number]
        return list(self._unheard)

    def _tokens(self, key: bytes, now: float) -> float:
        tokens, at = self._buckets.get(key, (BURST, now))
        return min(BURST, tokens + (now - at) * PACE)


def read_user_id(user_id: str) -> tuple[bytes, int]:
    """The key and the admission's number that :meth:`Gate.enter` wrote."""
    key, _, number = user_id.partition(".")
    return bytes.fromhex(key), int(number)
