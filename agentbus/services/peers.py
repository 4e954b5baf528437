"""What the directory keeps of each connection, from its first frame to its end.

Rule 1: everything here belongs to a connection and ends with it, or before: nothing is kept for who is not there.
Rule 2: an instance lives on the connection that published it last, of those with one CURVE key. Another key's instance
of the same id is another instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from agentbus.transport.base import Connection
from agentbus.wire.limits import SECOND

PAGE: Final = 400_000  # bytes of what one frame carries: it may have a megabyte
ITEMS: Final = 4096  # in a list of a frame
INTEREST: Final = 3600 * SECOND  # how long whoever asked for a principal is told of its new instances
INTERESTS: Final = 1024  # principals of one connection; a node that asks for more asks again
TOLD: Final = 256  # statements of one principal that are pushed in a minute; who needs more of them asks
FOUND: Final = 1024 * 1024  # bytes a second of statements for one CURVE key; a hundredth is much for an honest node
FOUND_BURST: Final = 8 * FOUND
AGAIN: Final = 3 * SECOND  # before a page is sent once more, to who asks as if it had not got it


@dataclass(slots=True, eq=False)
class Peer:
    """One enrolled connection."""

    connection: Connection
    key: bytes  # the CURVE key at its other end
    listens: bool = False  # it has polled: from then on it is pushed what changes
    page_end: int = 0  # of the newest page of entries that it was sent
    page_at: int = 0
    homes: set[bytes] = field(default_factory=set)  # ids of the instances that live there
    interests: dict[str, int] = field(default_factory=dict)  # principal → until when; the longest asked for first

    def wants_page(self, size: int, mono: int) -> bool:
        """Whether it is sent entries from ``size`` on: what it has not been sent, or not just now."""
        return size >= self.page_end or mono - self.page_at >= AGAIN

    def sent_page(self, end: int, mono: int) -> None:
        """It was sent the entries before ``end``."""
        self.page_end, self.page_at = end, mono

    def ask_for(self, who: str, mono: int) -> None:
        """It asked for the instances of ``who``."""
        self.interests.pop(who, None)
        self.interests[who] = mono + INTEREST
        if len(self.interests) > INTERESTS:
            del self.interests[next(iter(self.interests))]


class Peers:
    """The enrolled connections of a directory."""

    def __init__(self) -> None:
        self._peers: dict[int, Peer] = {}
        self._homes: dict[tuple[bytes, bytes], tuple[Peer, int]] = {}  # CURVE key, instance id → where, until when
        self._told: dict[str, int] = {}  # principal → statements pushed in this minute
        self._minute = 0
        self._found: dict[bytes, tuple[float, int]] = {}  # CURVE key → bytes, and when by the monotonic clock

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._peers.values()))

    def __len__(self) -> int:
        return len(self._peers)

    def of(self, connection: Connection, key: bytes) -> Peer:
        """What is kept of ``connection``, whose other end has this CURVE key, from now on."""
        peer = self._peers.get(connection.id)
        if peer is None:
            peer = self._peers[connection.id] = Peer(connection, key)
        return peer

    def lost(self, connection: Connection) -> Peer | None:
        """A connection ended, and whose it was: its ``homes`` are the instances that lived there."""
        peer = self._peers.pop(connection.id, None)
        if peer is not None:
            for instance_id in peer.homes:
                del self._homes[peer.key, instance_id]
        return peer

    def listening(self) -> list[Peer]:
        """Those that have polled."""
        return [peer for peer in self._peers.values() if peer.listens]

    def interested(self, who: str, mono: int) -> list[Peer]:
        """Who is told of a new instance of ``who``; nobody, once there were too many in this minute."""
        if mono // (60 * SECOND) != self._minute:
            self._minute = mono // (60 * SECOND)
            self._told.clear()
        self._told[who] = self._told.get(who, 0) + 1
        if self._told[who] > TOLD:
            return []
        return [peer for peer in self.listening() if peer.interests.get(who, 0) > mono]

    def may_find(self, peer: Peer, mono: int) -> bool:
        """Whether a key is sent more statements now: a question of sixty bytes may have a long answer."""
        level, at = self._found.get(peer.key, (0.0, mono))
        level = max(0.0, level - (mono - at) / SECOND * FOUND)
        self._found[peer.key] = (level, mono)
        return level < FOUND_BURST

    def found(self, peer: Peer, size: int) -> None:
        """A key is sent so many bytes of statements, just after :meth:`may_find` said that it may."""
        level, at = self._found[peer.key]
        self._found[peer.key] = (level + size, at)

    # ── where instances live ─────────────────────────────────────────────────────────────────────────────────────

    def settle(self, peer: Peer, instance_id: bytes, until: int) -> None:
        """An instance was published over a connection: it lives there until its window is over."""
        name = (peer.key, instance_id)
        known = self._homes.get(name)
        if known is not None:
            known[0].homes.discard(instance_id)
        self._homes[name] = (peer, until)
        peer.homes.add(instance_id)

    def leave(self, peer: Peer, instance_ids: Iterable[bytes]) -> None:
        """Instances said over their own connection that they end."""
        for instance_id in instance_ids:
            if instance_id in peer.homes:
                peer.homes.discard(instance_id)
                del self._homes[peer.key, instance_id]

    def forget(self, now: int, mono: int) -> None:
        """Let go of what is past."""
        for (curve_key, instance_id), (peer, until) in list(self._homes.items()):
            if until <= now:
                del self._homes[curve_key, instance_id]
                peer.homes.discard(instance_id)
        self._found = {k: v for k, v in self._found.items() if (mono - v[1]) / SECOND * FOUND < v[0]}
        for peer in self._peers.values():
            over = [who for who, until in peer.interests.items() if until <= mono]
            for who in over:
                del peer.interests[who]


def paged(items: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Statements, entries or ids in lists that each fit into a frame; each holds one at least."""
    page: list[bytes] = []
    size = 0
    for item in items:
        if page and (size + len(item) + 8 > PAGE or len(page) == ITEMS):
            yield page
            page, size = [], 0
        page.append(item)
        size += len(item) + 8
    if page:
        yield page
