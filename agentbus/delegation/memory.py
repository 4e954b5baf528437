"""What was judged good, remembered for as long as judging again could not give another answer.

Judging a chain is a pure function of its bytes, a snapshot of trust and an instant. So a verdict may be remembered,
under three rules that keep it the same as judging every time:

Rule 1: only for the very snapshot it was judged under. A snapshot never changes; whatever the directory says makes
another one, and another one begins with nothing.
Rule 2: only between the latest beginning and the earliest end of every window that was looked at.
Rule 3: only what is good. A refusal is judged anew each time.
Rule 4: under what it is a verdict on. A chain is whatever bytes somebody sent, and they may be those of a key.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from agentbus.crypto.cache import SignatureCache
from agentbus.delegation.statements import Instance
from agentbus.delegation.trust import Trust
from agentbus.wire.limits import LIMITS

ENTRIES: Final = 4096  # of one snapshot; with chains of at most 4 KiB below 32 MiB


class Memory(SignatureCache):
    """A :class:`~agentbus.crypto.cache.SignatureCache` that remembers verdicts, too."""

    def __init__(self) -> None:
        super().__init__()
        self._trust: Trust | None = None
        self._good: dict[Hashable, tuple[int, int, Any]] = {}

    def recall(self, what: tuple[str, Hashable], trust: Trust, now: int) -> Any:
        """What :meth:`remember` was given about ``what`` under this snapshot and for this instant; else None."""
        if trust is not self._trust:
            self._trust, self._good = trust, {}
            return None
        known = self._good.get(what)
        return known[2] if known is not None and known[0] <= now < known[1] else None

    def remember(self, what: tuple[str, Hashable], value: Any, trust: Trust, start: int, end: int) -> None:
        """Keep a verdict that holds from ``start`` until before ``end``."""
        if trust is not self._trust:
            self._trust, self._good = trust, {}
        if len(self._good) >= ENTRIES:
            self._good.clear()
        self._good[what] = (start, end, value)

    def refuses(self, instance: Instance, trust: Trust, now: int) -> str | None:
        """:meth:`Trust.refuses`, remembered."""
        what = ("instance", instance.key)
        if self.recall(what, trust, now):
            return None
        code = trust.refuses(instance, now)
        if code is None:
            self.remember(what, True, trust, instance.not_before - LIMITS.skew, trust.holds_until(instance))
        return code
