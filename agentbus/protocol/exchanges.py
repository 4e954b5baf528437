"""All exchanges of one node: those that are open, in either role, and the newest that are over.

Rule 1: whoever is over leaves its table at once, whatever ended it.
Rule 2: everything is bounded: how many are open, how many one instance may be asked at once, how many one principal may
have open here, how many are remembered. What one peer says pushes out nothing that is kept of another.
Rule 3: what is over is forgotten once nothing that belongs to it could be accepted any more: a node that had much to do
and rests gives its memory back.
Rule 4: when a connection breaks, what has one answer may go on over another: the same frame, the same answer, again. So
frames of open questions and of final answers are kept.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any, Final

from agentbus.errors import Backpressure
from agentbus.protocol.events import Cut, Ended
from agentbus.protocol.exchange import Exchange
from agentbus.protocol.opening import Party
from agentbus.protocol.shares import Shares
from agentbus.wire.header import Kind
from agentbus.wire.limits import SECOND

CODES: Final = {
    "backpressure.exchanges": "Too many exchanges are open on this node; wait for some to end.",
    "backpressure.peer": "The peer takes no more for now. Nothing was sent.",
    "backpressure.sender": "As many exchanges of this sender are open on the node that it asks as may be; try later.",
}

OPEN: Final = 100_000  # exchanges, both roles together
OVER: Final = 8192  # exchanges that are over and still known
SWEEP: Final = 60 * SECOND  # between two looks for what is over and past its deadline
KEPT: Final = 64 * 1024 * 1024  # bytes of frames that may have to be sent again
SERVED: Final = 8192  # exchanges that one principal may have open here; what four of its processes ask one instance
UNDER_WAY: Final = 2048  # exchanges that one instance may be asked at once: half of what a peer lets wait
AGAIN: Final = 2  # times that a frame is sent again after its connection broke
REPEATS: Final = 4  # times that an answer is repeated; who asks more often is no honest peer with a bad line
_ONCE: Final = frozenset({Kind.REQUEST, Kind.SEND})  # one answer, which can be repeated; a stream breaks instead


class Exchanges:
    """The tables of one node's exchanges.

    Args:
        most: How many may be open, both roles together.
    """

    def __init__(self, most: int = OPEN) -> None:
        self._most = most
        self._asked: dict[bytes, Exchange] = {}  # this side opened
        self._serving: dict[bytes, Exchange] = {}  # the other side opened
        self._over: Shares[tuple[str, bytes], Exchange] = Shares(OVER)
        self._sweep: int | None = None  # when to look through them, by the monotonic clock
        self._deadlines: list[tuple[int, int, Exchange]] = []
        self._under_way: dict[bytes, int] = {}  # by the instance that is asked
        self._served: Counter[str] = Counter()  # by the principal that asks
        self._kept: Shares[tuple[str, bytes], bytes] = Shares(KEPT)
        self._count = 0

    def __len__(self) -> int:
        return len(self._asked) + len(self._serving)

    @property
    def asked(self) -> list[Exchange]:
        """Those that this side opened and that are not over."""
        return list(self._asked.values())

    @property
    def serving(self) -> list[Exchange]:
        """Those that the other side opened and that are not over."""
        return list(self._serving.values())

    # ── one exchange's way ───────────────────────────────────────────────────────────────────────────────────────

    def require_room(self, to: bytes | None = None, name: str = "", *, sender: str = "") -> None:
        """Return when one more exchange may be opened.

        Args:
            to: The instance that is asked, where this side asks.
            name: Whose it is.
            sender: The principal that asks, where this side is asked.

        Raises:
            Backpressure: ``backpressure.exchanges``, ``backpressure.peer``, ``backpressure.sender``.
        """
        if self._served[sender] >= SERVED:
            raise Backpressure(
                "backpressure.sender", f"{SERVED} exchanges of {sender} are open here; wait for some to end"
            )
        if len(self) >= self._most:
            raise Backpressure("backpressure.exchanges", f"{self._most} exchanges are open")
        if to is not None and self._under_way.get(to, 0) >= UNDER_WAY:
            raise Backpressure("backpressure.peer", f"{UNDER_WAY} exchanges with {name} are open; wait for some to end")

    def open(self, exchange: Exchange) -> None:
        """An exchange begins."""
        if exchange.role == "caller":
            self._asked[exchange.digest] = exchange
            to = exchange.party.instance
            self._under_way[to] = self._under_way.get(to, 0) + 1
        else:
            self._serving[exchange.digest] = exchange
            self._served[exchange.party.principal] += 1
        self._count += 1
        heapq.heappush(self._deadlines, (exchange.until, self._count, exchange))
        if len(self._deadlines) > 4 * len(self) + 1024:  # mostly exchanges that ended long before they had to
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
            heapq.heapify(self._deadlines)

    def find(self, digest: bytes, answering: bool) -> Exchange | None:
        """The exchange that this message opened, by this side (``answering``) or the other; over or not."""
        exchange = (self._asked if answering else self._serving).get(digest)
        return exchange or self._over.get(("caller" if answering else "callee", digest))

    def asked_by(self, digest: bytes) -> Exchange | None:
        """The exchange that the message of this digest opened here, while it is open."""
        return self._asked.get(digest)

    def party(self, digest: bytes, answering: bool) -> Party | None:
        """The other party of an exchange (step 12)."""
        exchange = self.find(digest, answering)
        return exchange.party if exchange else None

    def retire(self, exchange: Exchange) -> None:
        """What is over leaves its table; the newest are remembered, so that a late answer is called late."""
        if not exchange.done:
            return
        if exchange.role == "callee":
            if self._serving.pop(exchange.digest, None) is not None:
                self._served[exchange.party.principal] -= 1
                if not self._served[exchange.party.principal]:
                    del self._served[exchange.party.principal]
        elif self._asked.pop(exchange.digest, None) is not None:
            self._kept.pop(("caller", exchange.digest))
            left = self._under_way.pop(exchange.party.instance, 0) - 1
            if left > 0:
                self._under_way[exchange.party.instance] = left
        for key in self._over.put(exchange.party.principal, (exchange.role, exchange.digest), exchange):
            self._kept.pop(key)
        if self._sweep is None:
            self._sweep = exchange.until + SWEEP

    def end(self, exchange: Exchange, how: str) -> bool:
        """End an exchange without a message: ``lose``, ``cancel`` or ``expire``; False when it was over already."""
        moved = exchange.move(how)
        self.retire(exchange)
        return moved

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def expire(self, mono: int) -> list[Ended]:
        """End what is due at this instant of the monotonic clock."""
        ended = []
        while self._deadlines and self._deadlines[0][0] <= mono:
            exchange = heapq.heappop(self._deadlines)[2]
            if self.end(exchange, "expire"):
                ended.append(Ended(exchange, "expired"))
        if self._sweep is not None and self._sweep <= mono:
            self._forget(mono)
        return ended

    def _forget(self, mono: int) -> None:
        """Its messages have expired, too: none comes late any more, and no answer is asked for again."""
        for key, exchange in self._over.items():
            if exchange.until <= mono:
                self._over.pop(key)
                self._kept.pop(key)
        self._sweep = mono + SWEEP if len(self._over) else None

    def next_deadline(self) -> int | None:
        """When :meth:`expire` has something to do, by the monotonic clock."""
        while self._deadlines and self._deadlines[0][2].done:
            heapq.heappop(self._deadlines)
        if not self._deadlines:
            return self._sweep
        return self._deadlines[0][0] if self._sweep is None else min(self._deadlines[0][0], self._sweep)

    # ── when a connection breaks ─────────────────────────────────────────────────────────────────────────────────

    def keep(self, exchange: Exchange, frame: bytes) -> None:
        """Keep the frame of an open question or of a final answer: it may have to be sent again."""
        if exchange.kind in _ONCE and (exchange.role == "callee" or not exchange.done):
            key = (exchange.role, exchange.digest)
            self._kept.put(exchange.party.principal, key, frame, len(frame))

    def lose(self, route: Any) -> list[Ended | Cut]:
        """The connection behind ``route`` is gone: a stream over it has ended, the rest may go on over another."""
        events: list[Ended | Cut] = []
        for exchange in [e for table in (self._asked, self._serving) for e in table.values() if e.route is route]:
            if exchange.kind in _ONCE and (exchange.role == "callee" or self._may_go_again(exchange)):
                events.append(Cut(exchange))
            elif self.end(exchange, "lose"):
                events.append(Ended(exchange, "gone"))
        return events

    def _may_go_again(self, exchange: Exchange) -> bool:
        return exchange.tries < AGAIN and self._kept.get(("caller", exchange.digest)) is not None

    def send_again(self, exchange: Exchange, route: Any) -> bytes | None:
        """The frame of an open question, to be offered to ``route``; None when it cannot be sent again."""
        if exchange.done or not self._may_go_again(exchange):
            return None
        exchange.route, exchange.unheard = route, True
        exchange.tries += 1
        return self._kept.get(("caller", exchange.digest))

    def repeat(self, digest: bytes, *, route: Any, peer: bytes | None) -> tuple[Exchange, bytes | None] | None:
        """What to say to whoever sends a message again that was accepted here.

        Args:
            digest: The message's.
            route: The connection it came over now: an answer that is still to come goes there.
            peer: The key at the other end of it; the same as then, or nothing is said.

        Returns:
            The exchange, and the frame of its final answer where there is one; None: no honest repetition.
        """
        exchange = self.find(digest, answering=False)
        if exchange is None or exchange.kind not in _ONCE or peer is None or peer != exchange.peer:
            return None
        exchange.tries += 1
        if exchange.tries > REPEATS:
            return None
        exchange.route = route
        return exchange, self._kept.get(("callee", digest)) if exchange.done else None
