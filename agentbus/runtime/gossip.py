"""What peers see of the directory: heads compared, so that a directory cannot show two nodes two histories unnoticed.

Rule 1: a size in a peer's header is a hint and no more. It makes no message good or bad; at most it makes us ask.
Rule 2: what a peer hands over is a head, which proves itself: it is compared with what was folded here.
Rule 3: a head that the directory signed and that contradicts it is written down, and from then on the directory is not
believed: its age is unknown, so new work is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError, Malformed
from agentbus.runtime.clock import Clock
from agentbus.transport.base import Connection
from agentbus.wire.limits import SECOND
from agentbus.wire.sync import decode_sync, encode_sync

ASK_EVERY: Final = 60 * SECOND  # of one connection
ANSWER_EVERY: Final = SECOND  # to one connection; who asks more often pays
PEERS: Final = 4096  # connections that are remembered


class Hears(Protocol):
    """The part of a node's view of the directory that is compared."""

    @property
    def trust(self) -> Trust: ...
    async def refresh(self) -> None: ...
    def head_of(self, size: int) -> bytes | None: ...
    async def compare(self, note: bytes) -> None: ...


class Gossip:
    """Asks the peers of a node for the heads they saw, and answers when it is asked.

    Args:
        source: This node's own view of the directory.
        clock: Monotonic time.
        spawn: Starts a task that ends with the node.
        charge: Whoever sends what nobody asked for pays.
    """

    def __init__(
        self,
        source: Hears,
        clock: Clock,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
        charge: Callable[[Connection], None],
    ) -> None:
        self._source, self._clock, self._spawn, self._charge = source, clock, spawn, charge
        self._asked: dict[int, int] = {}  # connection → when it was asked last
        self._open: set[int] = set()  # connections that owe an answer
        self._answered: dict[int, int] = {}

    def named(self, connection: Connection, size: int) -> None:
        """A peer's header names a size of the directory's log."""
        now = self._clock.mono()
        if now - self._asked.get(connection.id, -ASK_EVERY) < ASK_EVERY:
            return
        _bounded(self._asked)[connection.id] = now
        self._open.add(connection.id)
        connection.offer(encode_sync("head-at", 0, size))

    def received(self, connection: Connection, frame: bytes) -> None:
        """A synchronisation frame of a peer, who is not the directory."""
        try:
            operation, _, parts = decode_sync(frame)
        except Malformed:
            self._charge(connection)
            return
        if operation == "head-at":
            self._answer(connection, parts[0])
        elif operation == "head-of" and connection.id in self._open:
            self._open.discard(connection.id)
            if parts[0]:
                self._spawn(self._compare(connection, parts[0]))
        else:
            self._charge(connection)

    def _answer(self, connection: Connection, size: int) -> None:
        now = self._clock.mono()
        if now - self._answered.get(connection.id, -ANSWER_EVERY) < ANSWER_EVERY:
            self._charge(connection)
            return
        _bounded(self._answered)[connection.id] = now
        newest = self._source.trust.head
        note = self._source.head_of(size) or (newest.note if newest is not None else b"")
        connection.offer(encode_sync("head-of", 0, note))

    async def _compare(self, connection: Connection, note: bytes) -> None:
        try:
            await self._source.compare(note)
        except Malformed:
            self._charge(connection)
        except AgentBusError:
            return  # of another key or too new: says nothing. A contradiction was kept by whoever compared

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        for kept in (self._asked, self._answered):
            kept.pop(connection.id, None)
        self._open.discard(connection.id)


def _bounded(table: dict[int, int]) -> dict[int, int]:
    while len(table) >= PEERS:
        del table[next(iter(table))]
    return table
