"""What the directory's log says of principals and keys, and all that it ever said of their states.

Nothing here is trimmed: a record keeps each state with the instant from which it holds (``since``) and the instant at
which the log said so (``known``). The two differ: that a key was stolen on Monday is learned on Tuesday.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from agentbus.crypto.keys import VerifyKey
from agentbus.delegation.scope import Scope
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import SECOND

KeyState = Literal["prepared", "active", "retiring", "retired", "tainted", "compromised", "revoked"]
KEY_MOVES: Final[Mapping[str, frozenset[str]]] = {
    "prepared": frozenset({"retired", "compromised"}),
    "active": frozenset({"retiring", "retired", "tainted", "compromised"}),
    "retiring": frozenset({"retired", "tainted", "compromised"}),
    "tainted": frozenset({"retired", "compromised"}),
    "retired": frozenset({"compromised"}),
    "compromised": frozenset({"compromised"}),  # since an earlier instant only: what is known of a theft grows
    "revoked": frozenset(),
}
"""What may be said of an identity key: never better than before. ``active`` is a registration's or a rotation's
business, ``revoked`` a revocation's."""
WORSE: Final = ("unknown", "prepared", "active", "retiring", "tainted", "retired", "compromised", "revoked")
"""A key's states, each worse than the one before it: of all that was said of a key at an instant, the worst holds."""
USABLE: Final = frozenset({"active", "retiring", "tainted"})
"""States under which a key still verifies."""
MAX_OVERLAP: Final = 7 * 24 * 3600 * SECOND
"""How long a key may verify after its successor took over."""


TAINT_LASTS: Final = 3600 * SECOND
"""How long what a tainted key signed still counts: whoever has the key can date what it signs to before the taint."""


class Stand(NamedTuple):
    """One thing that the log said of a state."""

    state: str
    epoch: int
    since: int  # the instant from which it holds
    known: int  # the instant of the entry that said so
    seq: int  # its position in the log


@dataclass(frozen=True, slots=True)
class Principal:
    """What the directory says of an agent, user or service."""

    id: PrincipalId
    state: str  # pending, active, suspended, retired or revoked
    epoch: int
    owner: str
    purpose: str
    ceiling: tuple[Scope, ...]
    may_talk_to: tuple[str, ...]
    rights: tuple[Scope, ...] | None  # a user's; None means everything, and only for user records
    tags: tuple[str, ...] = ()
    keys: tuple[bytes, ...] = ()  # ids of its identity keys, oldest first
    nodes: tuple[str, ...] = ()  # names that its nodes have, for good
    history: tuple[Stand, ...] = ()


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """An identity key's record; it is never removed."""

    key: VerifyKey
    principal: PrincipalId
    epoch: int
    curve_key: bytes
    state: KeyState
    since: int  # the instant of the state
    until: int | None = None  # when a key whose successor took over stops verifying
    history: tuple[Stand, ...] = ()

    def state_at(self, at: int, known: int | None = None) -> str:
        """The state that held at an instant, by what the log had said at another; else ``unknown``."""
        said = (s.state for s in self.history if s.since <= at and (known is None or s.known <= known))
        return max(said, key=WORSE.index, default="unknown")

    def issues(self, instant: int) -> bool:
        """Whether the key may sign something new at ``instant``: after its successor took over or it was tainted, no
        more. What it signed before stays as good as the key.
        """
        return self.state == "active" or (self.state != "prepared" and instant <= self.closed)

    @property
    def stolen_since(self) -> int | None:
        """The instant from which the key is known to have been in other hands, by all that the log said."""
        return min((stand.since for stand in self.history if stand.state == "compromised"), default=None)

    @property
    def ends(self) -> int | None:
        """When it stops verifying, as far as that is known: at the end of an overlap, or some time after a taint."""
        tainted = self.closed + TAINT_LASTS if self.state == "tainted" else None
        return min((end for end in (self.until, tainted) if end is not None), default=None)

    @property
    def closed(self) -> int:
        """From when on the key signs nothing new: the end of its time as the active key."""
        after = [stand.since for stand in self.history if stand.state not in ("prepared", "active")]
        return min(after, default=self.since)


@dataclass(frozen=True, slots=True)
class OnlineKey:
    """One of the directory's four online keys."""

    key: VerifyKey
    role: str
    retired_at: int | None = None  # from when on it counts no more; known ahead, so that what it signed can run out

    def counts(self, now: int) -> bool:
        """Whether what it signed still counts."""
        return self.retired_at is None or now < self.retired_at


def stand_at(history: Iterable[Stand], at: int, known: int | None = None) -> Stand | None:
    """What held of a principal at an instant, by what was known at another: the last word that reaches back to it.

    Args:
        history: In log order.
        at: The instant asked about, microseconds.
        known: What the log had said by this instant; None: all of it.

    Returns:
        None where nothing was said that holds at ``at``.
    """
    found = None
    for stand in history:
        if stand.since <= at and (known is None or stand.known <= known):
            found = stand
    return found
