"""Who may connect: asked of the node's trust for every CURVE key that shakes hands, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentbus.runtime.clock import Clock
from agentbus.runtime.trust_cache import TrustSource
from agentbus.wire.limits import SECOND

ASK_EVERY: Final = SECOND // 2
"""Strangers knock as often as they like. The directory is asked about them twice a second, all together: who enrolled a
moment ago is told of by its push, or by such a poll."""


class Admission:
    """The gate of one node.

    Args:
        source: Where trust comes from.
        clock: Monotonic time.
        guests: Further CURVE keys that may connect: enrolment tokens, at the directory.
    """

    def __init__(self, source: TrustSource, clock: Clock, guests: Callable[[bytes], bool] = lambda key: False) -> None:
        self._source, self._clock, self._guests = source, clock, guests
        self._asked: int | None = None

    async def admit(self, key: bytes) -> bool:
        """Whether a CURVE key may connect: an enrolled principal's that is not suspended, retired or revoked."""
        if self._guests(key):
            return True
        if key not in self._source.trust.curve_keys:
            await self._ask()
        return self._source.trust.admits(key)

    async def _ask(self) -> None:
        now = self._clock.mono()
        if self._asked is None or now - self._asked >= ASK_EVERY:
            self._asked = now
            await self._source.refresh()
