"""A clock that stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from agentbus.wire.limits import SECOND

if TYPE_CHECKING:
    from agentbus.runtime.node import Node

START: Final = 1_767_268_800 * SECOND
"""2026-01-01 12:00 UTC in microseconds, as in :mod:`agentbus.testing.draw`."""


class ManualClock:
    """Wall and monotonic time in microseconds; they move only by :meth:`advance`, and apart by :meth:`shift_wall`.

    Args:
        start: The instant it shows first.
    """

    def __init__(self, start: int = START) -> None:
        self._now = start
        self._mono = 0
        self._watchers: list[Callable[[], None]] = []

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return self._now

    def mono(self) -> int:
        """Microseconds that never go back."""
        return self._mono

    def advance(self, seconds: float) -> None:
        """Move on, then tell whoever watches: nodes expire what is due and start renewals.

        What they start runs when the event loop next does; ``await net.advance(seconds)`` lets it.

        Args:
            seconds: How far; never back.
        """
        if seconds < 0:
            raise ValueError("time goes forward; only what the clock on the wall shows can be set back")
        step = round(seconds * SECOND)
        self._now += step
        self._mono += step
        for watcher in list(self._watchers):
            watcher()

    def shift_wall(self, seconds: float) -> None:
        """Set the clock on the wall ``seconds`` ahead, or back: as an operator, NTP or a machine's sleep does.

        Nobody is told, and monotonic time stands still meanwhile: no timer fires for it.

        Args:
            seconds: How far; negative: back.
        """
        self._now += round(seconds * SECOND)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` after every step."""
        self._watchers.append(watcher)

    def drive(self, node: Node) -> None:
        """Let a node that runs by this clock expire what is due, and renew its instances, whenever it moves."""

        def moved() -> None:
            if node._closed:
                self._watchers.remove(moved)
                return
            node.tick()
            node.voices.renew_due()

        self.watch(moved)
