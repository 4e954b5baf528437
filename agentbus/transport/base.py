"""The port to the network: frames between connections, and no promise beyond that.

A transport may lose, repeat or reorder frames; it never alters or joins them. It knows at most *which CURVE key* is at
the other end of a connection, never who a message is from: that is the signature's business.
"""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

REFUSED: Final = "refused by the peer"
OTHER_KEY: Final = "the handshake failed: another key listens there, or no agentbus"
"""Reasons for which a connection that was dialled is lost, and dialling again will not help."""


class Connection(Protocol):
    """One live path to one peer. It is never revived: after ``lost`` a new ``dial`` makes a new one."""

    @property
    def id(self) -> int:
        """Unique in this process, never reused."""
        ...

    @property
    def peer(self) -> bytes | None:
        """The peer's 32-byte CURVE (X25519) key, proven by the handshake; None where a transport cannot know it."""
        ...

    @property
    def dialled(self) -> bool:
        """True when this side opened it."""
        ...

    def offer(self, frame: bytes) -> bool:
        """Queue one frame without waiting.

        Returns:
            True: accepted locally, not delivered. False: the queue, bounded in frames and in bytes, is full, or the
            peer is gone.
        """
        ...

    def drop(self, *, keep_out: bool = True) -> None:
        """Close this connection at once; what waits in it is discarded, and the sink hears ``lost``.

        Args:
            keep_out: Refuse whoever dialled in for a while, whatever ``admit`` says.
        """
        ...


class Sink(Protocol):
    """Who is told what happens; a transport calls it only from the loop it was opened on, and never re-entrantly."""

    def received(self, connection: Connection, frame: bytes) -> None:
        """One whole frame, exactly as it was offered at the other end."""
        ...

    def lost(self, connection: Connection, reason: str) -> None:
        """The peer is gone (closed, killed, silent past the heartbeats, dropped). Told once for each connection."""
        ...

    async def admit(self, key: bytes) -> bool:
        """Whether the holder of this 32-byte CURVE key may connect. Anything but True, and any error, refuses."""
        ...


@runtime_checkable
class Transport(Protocol):
    """A socket, or what stands for one. Bounded everywhere: queues, frame size, handshakes."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where others can dial this transport, after ``open``; empty when it only dials out."""
        ...

    async def open(self, sink: Sink) -> None:
        """Bind, if it listens, and begin to deliver to ``sink``."""
        ...

    def dial(self, endpoint: str, key: bytes) -> Connection:
        """The live connection to the peer that listens at ``endpoint`` and holds ``key``; a new one if there is none.

        Never waits: frames offered before the handshake ends wait in the bounded queue, and a peer that is not there,
        or holds another key, is reported by ``lost``.
        """
        ...

    async def aclose(self) -> None:
        """Close everything; frames already accepted get a moment to leave (at most 1 s), and nothing is left behind."""
        ...
