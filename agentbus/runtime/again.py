"""At least once on the wire: what becomes of open exchanges when a connection breaks.

The asker sends the same frame over a new connection to the same instance; the recipient's replay window knows it, so
its handler runs once, and its answer goes over the new connection. Whoever does not come back is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final

from agentbus.crypto.merkle import leaf_hash
from agentbus.protocol.events import Ended
from agentbus.protocol.exchange import Exchange
from agentbus.protocol.exchanges import Exchanges
from agentbus.runtime.finding import Finder
from agentbus.transport.base import Connection, Transport
from agentbus.wire.frame import decode_frame
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS

UNHEARD: Final = 0.8  # seconds for a first sign of life after a frame was sent again
ORPHANED: Final = 3.0  # seconds that a handler goes on whose caller's connection broke


class Again:
    """A node's second tries.

    Args:
        ended: Told of each exchange that is given up.
        alive: Says on an exchange, over its connection of now, that its handler still runs.
    """

    def __init__(
        self,
        exchanges: Exchanges,
        finder: Finder,
        transport: Transport,
        *,
        ended: Callable[[Ended], None],
        alive: Callable[[Exchange], None],
    ) -> None:
        self._exchanges, self._finder, self._transport = exchanges, finder, transport
        self._ended, self._alive = ended, alive
        self.closed = False

    def lost(self, connection: Connection) -> None:
        """A connection is gone: what can go on over another one does, and who else waits for an answer hears so."""
        for event in self._exchanges.lose(connection):
            exchange = event.exchange
            self._finder.suspect(exchange.party.instance)
            if isinstance(event, Ended):
                self._ended(event)
            elif exchange.role == "callee":
                asyncio.get_running_loop().call_later(ORPHANED, self._orphaned, exchange, connection)
            elif not self.send(exchange, but=connection):
                self._lose(exchange)

    def left(self, instances: Collection[bytes]) -> None:
        """The directory says that these ended. It may have lost sight of one that still runs, so each is asked once
        more for what it was asked, and has to give a sign of life: another process may listen where it did."""
        self._probe(one for one in self._exchanges.asked if one.party.instance in instances)

    def returned(self, directory: PrincipalId) -> None:
        """The directory is heard again, perhaps as another process: what it was asked before is asked once more."""
        self._probe(one for one in self._exchanges.asked if one.party.principal == directory)

    def _probe(self, exchanges: Iterable[Exchange]) -> None:
        for exchange in [] if self.closed else list(exchanges):
            frame = self._exchanges.send_again(exchange, exchange.route)
            if frame is not None and exchange.route.offer(frame):
                asyncio.get_running_loop().call_later(UNHEARD, self._unheard, exchange, exchange.route)

    def send(self, exchange: Exchange, *, but: Connection) -> bool:
        """Send an open question's frame over a new connection to the same instance.

        Returns:
            False: it did not go: the instance is gone, there is no other connection than ``but``, or it went too often.
        """
        to = self._finder.again(PrincipalId(exchange.party.principal), exchange.party.instance)
        if to is None or self.closed:
            return False
        connection = self._transport.dial(to.endpoints[0], to.curve_key)
        if connection is but:
            return False
        frame = self._exchanges.send_again(exchange, connection)
        if frame is None or not connection.offer(frame):
            return False
        asyncio.get_running_loop().call_later(UNHEARD, self._unheard, exchange, connection)
        return True

    def repeated(self, connection: Connection, frame: bytes) -> bool:
        """A message that was accepted came again: it is answered again, and not run again.

        Returns:
            False: it is no honest repetition.
        """
        digest = leaf_hash(decode_frame(frame, LIMITS).header)
        found = self._exchanges.repeat(digest, route=connection, peer=connection.peer)
        if found is None:
            return False
        exchange, answer = found
        if answer is not None:
            connection.offer(answer)
        else:
            self._alive(exchange)
        return True

    def _unheard(self, exchange: Exchange, connection: Connection) -> None:
        if exchange.unheard and exchange.route is connection:
            self._lose(exchange)

    def _orphaned(self, exchange: Exchange, connection: Connection) -> None:
        """The caller did not come back for the answer: nobody waits for the rest."""
        if exchange.route is connection:
            self._lose(exchange)

    def _lose(self, exchange: Exchange) -> None:
        if self._exchanges.end(exchange, "lose"):
            self._ended(Ended(exchange, "gone"))
