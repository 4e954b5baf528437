"""The replay window: which messages of each peer were accepted.

Every envelope carries a number that counts, without a gap, what one instance sent to another. Per pair, everything up
to a floor and a bounded set above it are remembered, so memory depends on how many peers there are, not on how much
they say. What lies below the floor counts as seen: refusing too much is safe, and a retry is a new message.
A peer that was silent for longer than any message lives is forgotten: what it sent then has expired. How long that is,
the monotonic clock says. Should the clock on the wall be set back later, so that what had expired is good again, then
what is no younger than the newest that was forgotten counts as seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from agentbus.errors import Rejected
from agentbus.wire.header import Header
from agentbus.wire.limits import LIMITS

CODES: Final = {
    "reject.replayed": "This message, or one with its number, was accepted before.",
}

_AHEAD: Final = 4096  # numbers remembered above a gap; refused requests leave gaps


@dataclass(slots=True)
class _Pair:
    floor: int = 0
    ahead: set[int] = field(default_factory=set)
    deadline: int = 0  # the latest of its messages
    until: int = 0  # the same by the monotonic clock


class ReplayWindow:
    """Accepted numbers by (sender, its instance, recipient instance): instance ids are chosen by whoever starts one."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, bytes, bytes | None], _Pair] = {}
        self._checked = 0
        self._forgotten = 0  # the latest deadline of what is not remembered any more

    def seen(self, header: Header) -> bool:
        """Whether this message counts as accepted before. Changes nothing."""
        pair = self._pairs.get((header.sender, header.sender_instance, header.recipient_instance))
        if pair is None:
            return header.deadline <= self._forgotten
        return header.peer_seq <= pair.floor or header.peer_seq in pair.ahead

    def add(self, header: Header, *, now: int, mono: int) -> None:
        """Remember a message that was accepted at this instant of both clocks.

        Raises:
            Rejected: ``reject.replayed`` when it was there already.
        """
        if self.seen(header):
            raise Rejected("reject.replayed", "accepted before; a retry is a new message")
        key = (header.sender, header.sender_instance, header.recipient_instance)
        pair = self._pairs.get(key)
        if pair is None:
            pair = self._pairs[key] = _Pair()
        pair.deadline = max(pair.deadline, header.deadline)
        pair.until = max(pair.until, mono + header.deadline - now)
        if header.peer_seq == pair.floor + 1:
            pair.floor += 1
        else:
            pair.ahead.add(header.peer_seq)
            if len(pair.ahead) > _AHEAD:
                pair.floor = min(pair.ahead)
        while pair.ahead and (pair.floor + 1 in pair.ahead or pair.floor in pair.ahead):
            pair.ahead.discard(pair.floor)
            if pair.floor + 1 in pair.ahead:
                pair.floor += 1
                pair.ahead.discard(pair.floor)

    def forget(self, mono: int) -> None:
        """Drop pairs of which every message has expired; looks at most once a minute of the monotonic clock."""
        if mono - self._checked < LIMITS.lifetime // 10:
            return
        self._checked = mono
        for key in [key for key, pair in self._pairs.items() if pair.until + LIMITS.lifetime < mono]:
            self._forgotten = max(self._forgotten, self._pairs.pop(key).deadline)
