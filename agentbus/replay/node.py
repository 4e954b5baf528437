"""The node of a replay: an ordinary one at a hub of its own, whose handlers' messages are answered and never sent."""

from __future__ import annotations

import os
from typing import Any, Final

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.signing import Purpose
from agentbus.delegation.statements import Instance
from agentbus.errors import Unavailable
from agentbus.logstore.memory import MemoryLog
from agentbus.protocol.exchange import Exchange
from agentbus.replay.player import Player
from agentbus.replay.stage import Stage
from agentbus.runtime.clock import Clock
from agentbus.runtime.node import Node, Waiter
from agentbus.runtime.tape import Tape
from agentbus.runtime.voices import Voice
from agentbus.transport.memory import MemoryHub, MemoryTransport
from agentbus.wire.header import Kind

CODES: Final = {
    "unavailable.replay": "A replay sends nothing: only what a handler asked for is on its message's record.",
}


class ReplayNode(Node):
    """One node on which everybody of the stage speaks, under signatures that count in no other run."""

    def __init__(self, stage: Stage, clock: Clock) -> None:
        curve, log_key = stage.curve, SigningKey(os.urandom(32))
        super().__init__(
            "directory",  # it has the CURVE key of the run's directory
            transport=MemoryTransport(MemoryHub(), key=curve.public),
            source=stage.source,
            curve_key=curve.public,
            log=MemoryLog(key=log_key, origin=f"agentbus.{stage.core.domain}/directory/1"),
            clock=clock,
            purpose=Purpose.REPLAY_BATCH,
        )
        self.players: dict[bytes, Player] = {}  # by the digest of the message in this run
        stage.node = self

    async def _keep_durable(self) -> None:
        """What this node logs ends with it."""

    async def admit(self, key: bytes) -> bool:
        """Nobody but this node itself is at its hub."""
        return key == self._curve_key

    def tape(self, digest: bytes) -> Tape:
        """The record of the message that a message of this run stands for."""
        return self.players.get(digest) or super().tape(digest)

    def deliver(self, kind: Kind, voice: Voice, to: Instance, waiter: Waiter, **parts: Any) -> Exchange:
        """Let a recorded message reach its agent once more, over this node's own transport; see :meth:`Node.ask`."""
        return super().ask(kind, voice, to, waiter, **parts)

    def ask(self, kind: Kind, voice: Voice, to: Instance, waiter: Waiter, **parts: Any) -> Exchange:
        """What a handler asks is answered by its tape and does not come here: whoever else asks is refused.

        Raises:
            Unavailable: ``unavailable.replay``.
        """
        raise Unavailable("unavailable.replay", f"{parts['action']} to {to.principal.short}: it is not sent")

    def answer(self, kind: Kind, voice: Voice, exchange: Exchange, **parts: Any) -> bool:
        player = self._player_of(exchange)
        if player is not None:
            if kind is Kind.CANCEL:
                player.cancelled(exchange)
            return True
        if kind is Kind.ITEM and exchange.role == "callee":
            serving = self.players.get(exchange.digest)
            if serving is not None and not serving.may_yield():
                return False
        return super().answer(kind, voice, exchange, **parts)

    def conclude(self, exchange: Exchange) -> None:
        if self._player_of(exchange) is None:
            super().conclude(exchange)

    def forget(self, exchange: Exchange) -> None:
        if self._player_of(exchange) is None:
            super().forget(exchange)

    def _player_of(self, exchange: Exchange) -> Player | None:
        """Whose record an exchange was made from; None for one of this run."""
        return next((player for player in self.players.values() if player.knows(exchange)), None)
