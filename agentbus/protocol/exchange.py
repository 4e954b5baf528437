"""Exchanges as tables: what may follow what, for the one who asked and for the one who answers.

An exchange is named by the digest of the message that opened it. A move that is not in the table is not made: the
event says ``late`` or ``repeated`` instead, and nobody is disturbed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from agentbus.protocol.opening import Party
from agentbus.wire.header import Kind

State = Literal["waiting", "streaming", "answered", "failed", "cancelled", "expired", "gone"]
Role = Literal["caller", "callee"]

DONE: Final = frozenset({"answered", "failed", "cancelled", "expired", "gone"})

_ENDS: Final[dict[str, State]] = {"expire": "expired", "cancel": "cancelled", "lose": "gone"}


def _table(opening: Kind) -> dict[tuple[State, str], State]:
    moves: dict[tuple[State, str], State] = {("waiting", name): state for name, state in _ENDS.items()}
    moves["waiting", "error"] = "failed"
    moves["waiting", "progress"] = "waiting"
    if opening is Kind.REQUEST:
        moves["waiting", "reply"] = "answered"
    if opening is Kind.SEND:
        moves["waiting", "receipt"] = "waiting"
        moves["waiting", "final receipt"] = "answered"
    if opening is Kind.STREAM:
        moves["waiting", "item"] = "streaming"
        moves["waiting", "end"] = "answered"
        moves["waiting", "credit"] = "waiting"
        moves |= {("streaming", name): state for name, state in _ENDS.items()}
        moves["streaming", "item"] = "streaming"
        moves["streaming", "credit"] = "streaming"
        moves["streaming", "progress"] = "streaming"
        moves["streaming", "end"] = "answered"
        moves["streaming", "error"] = "failed"
    return moves


TRANSITIONS: Final = {kind: _table(kind) for kind in (Kind.REQUEST, Kind.SEND, Kind.STREAM)}
"""(state, move) → state, for each kind that opens an exchange; the documentation's diagrams are generated from it."""

MOVES: Final = {
    Kind.REPLY: "reply",
    Kind.ERROR: "error",
    Kind.RECEIPT: "receipt",
    Kind.ITEM: "item",
    Kind.END: "end",
    Kind.PROGRESS: "progress",
    Kind.CREDIT: "credit",
    Kind.CANCEL: "cancel",
}


@dataclass(slots=True)
class Exchange:
    """One open question, on one side of it."""

    digest: bytes
    role: Role
    kind: Kind
    party: Party
    deadline: int
    until: int  # the same by this node's monotonic clock: what ends it here, however the clock on the wall is set
    conversation: bytes
    route: Any  # where frames of this exchange go: opaque to the engine
    ack: str = "handled"  # the receipt a send waits for
    state: State = "waiting"
    next_index: int = 0  # the stream item that is next in order
    allowed: int = 0  # the callee may send items below this index
    peer: bytes | None = None  # the CURVE key that the opening message came from, on the callee's side
    tries: int = 0  # how often its frame was sent again, or came again
    unheard: bool = False  # it was sent again, and nothing came back yet

    @property
    def done(self) -> bool:
        """Whether nothing can follow."""
        return self.state in DONE

    def has(self, name: str) -> bool:
        """Whether the table has this move from here."""
        return (self.state, name) in TRANSITIONS[self.kind]

    def move(self, name: str) -> bool:
        """Make a move if the table has it.

        Returns:
            False: the table has no such move from here; nothing changed.
        """
        state = TRANSITIONS[self.kind].get((self.state, name))
        if state is None:
            return False
        self.state = state
        return True
