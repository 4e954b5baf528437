"""A transport within one event loop: for tests, replay and agents that share a process.

Rule 1: a frame is never handed over inside the call that offered it, so neither side is ever re-entered.
Rule 2: the same things are refused as on a real network: unknown endpoints, other keys, whoever ``admit`` refuses.
Rule 3: nothing is serialised or copied: a frame is ``bytes``, which nobody can alter.

A connection is two halves. Each half owns the queue of frames on their way to it; offering appends to the other's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final

from agentbus.errors import ProgrammingError, Unavailable
from agentbus.transport.base import Connection, Sink
from agentbus.transport.common import MAX_FRAME, WAITING, ask_admission, check_key, connection_ids, refuse_oversize

QUEUE: Final = 4096  # frames; what the ZeroMQ transport holds for each peer


class MemoryHub:
    """The network: which transport listens at which ``memory://<n>``. For one event loop."""

    def __init__(self) -> None:
        self._listeners: dict[str, MemoryTransport] = {}
        self._numbers = count(1)

    def listener(self, endpoint: str) -> MemoryTransport | None:
        """Who listens at ``endpoint`` now."""
        return self._listeners.get(endpoint)

    def register(self, transport: MemoryTransport) -> str:
        """A new endpoint for ``transport``; endpoints are never reused, so no successor hears a predecessor's peers."""
        endpoint = f"memory://{next(self._numbers)}"
        self._listeners[endpoint] = transport
        return endpoint

    def forget(self, endpoint: str) -> None:
        """Nobody listens at ``endpoint`` any more."""
        self._listeners.pop(endpoint, None)

    async def aclose(self) -> None:
        """Close every transport that listens here."""
        for transport in list(self._listeners.values()):
            await transport.aclose()


class MemoryTransport:
    """One end of a :class:`MemoryHub`.

    Args:
        hub: The network to join.
        key: The 32-byte CURVE key under which peers know this transport.
        listen: Whether others can dial it.
        queue: Frames that may wait on their way to one peer.
        max_frame: Bytes.
    """

    def __init__(
        self, hub: MemoryHub, *, key: bytes, listen: bool = True, queue: int = QUEUE, max_frame: int = MAX_FRAME
    ) -> None:
        check_key(key)
        self.key = key
        self.queue = queue
        self.max_frame = max_frame
        self._hub = hub
        self._listen = listen
        self._endpoints: tuple[str, ...] = ()
        self._sink: Sink | None = None
        self._closed = False
        self._dialled: dict[tuple[str, bytes], _Half] = {}
        self._halves: set[_Half] = set()
        self._admissions: set[asyncio.Task[bool]] = set()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where others can dial this transport, after :meth:`open`."""
        return self._endpoints

    async def open(self, sink: Sink) -> None:
        """Join the hub and begin to deliver to ``sink``."""
        if self._sink is not None or self._closed:
            raise ProgrammingError("usage", "a transport is opened once")
        self._sink = sink
        if self._listen:
            self._endpoints = (self._hub.register(self),)

    def dial(self, endpoint: str, key: bytes) -> Connection:
        """The live connection to ``key`` at ``endpoint``, or a new one."""
        sink = self._live_sink()
        check_key(key)
        known = self._dialled.get((endpoint, key))
        if known is not None:
            return known
        half = _Half(self, sink, peer=key, dialled=True)
        self._dialled[(endpoint, key)] = half
        half.on_end = lambda: self._dialled.pop((endpoint, key), None)
        self._halves.add(half)
        listener = self._hub.listener(endpoint)
        if listener is None or listener.key != key or listener._sink is None:
            half.end("nobody with this key listens there")
            return half
        half.join(_Half(listener, listener._sink, peer=self.key, dialled=False))
        asking = ask_admission(listener._sink, self.key)
        task = asyncio.get_running_loop().create_task(asking, name=f"agentbus-admit-{half.id}")
        task.add_done_callback(half.admission_decided)
        for owner in (self, listener):  # whichever closes first ends it
            owner._admissions.add(task)
            task.add_done_callback(owner._admissions.discard)
        return half

    async def aclose(self) -> None:
        """Leave the hub. Peers still get what was accepted, then ``lost``; this sink hears nothing more."""
        if self._closed:
            return
        self._closed = True
        for endpoint in self._endpoints:
            self._hub.forget(endpoint)
        for task in list(self._admissions):
            task.cancel()
        for half in list(self._halves):
            half.leave()
        await asyncio.gather(*self._admissions, return_exceptions=True)

    def _live_sink(self) -> Sink:
        if self._closed:
            raise Unavailable("unavailable", "this transport is closed")
        if self._sink is None:
            raise ProgrammingError("usage", "open the transport before dialling")
        return self._sink


class _Half:
    """One side's view of a connection: what it sends goes into ``other``'s queue."""

    def __init__(self, owner: MemoryTransport, sink: Sink, *, peer: bytes, dialled: bool) -> None:
        self.id = next(connection_ids)
        self.peer: bytes | None = peer
        self.dialled = dialled
        self.owner = owner
        self.sink = sink
        self.other: _Half | None = None
        self.gone = False
        self.on_end: Callable[[], object] | None = None
        self._frames: deque[bytes] = deque()
        self._waiting = 0  # bytes
        self._admitted = False
        self._scheduled = False
        self._ending: str | None = None

    def __repr__(self) -> str:
        return f"<memory connection {self.id} {'to' if self.dialled else 'from'} {(self.peer or b'').hex()[:8]}>"

    def join(self, other: _Half) -> None:
        """Make the two halves of one connection."""
        self.other, other.other = other, self

    def offer(self, frame: bytes) -> bool:
        """Queue one frame for the other side."""
        refuse_oversize(len(frame), self.owner.max_frame)
        other = self.other
        if self.gone or other is None or other.gone or len(other._frames) >= self.owner.queue:
            return False
        if other._frames and other._waiting + len(frame) > WAITING:
            return False
        if len(frame) > other.owner.max_frame:  # as a real listener would: the peer that sends too much is dropped
            other.end("a frame was too long")
            self.end("closed by the peer")
            return True
        other._frames.append(frame)
        other._waiting += len(frame)
        other._schedule()
        return True

    def drop(self, *, keep_out: bool = True) -> None:
        """Close both sides at once and discard what waits."""
        other = self.other
        if other is not None and not self.gone:
            other._frames.clear()
            other.end("closed by the peer")
        self._frames.clear()
        self.end("dropped here")

    def admission_decided(self, task: asyncio.Task[bool]) -> None:
        """Open both halves or end both. A cancelled question is a refusal."""
        if task.cancelled() or not task.result():
            self.end("refused by the peer")
        if not self.gone:
            for half in filter(None, (self, self.other)):
                half._open()

    def end(self, reason: str) -> None:
        """Gone from now on; the sink hears so from the loop, after the frames that were already here."""
        if self.gone:
            return
        if not self.dialled and not self._admitted:
            self.vanish()
            return
        self.gone = True
        if self.on_end is not None:
            self.on_end()
        self._ending = reason
        asyncio.get_running_loop().call_soon(self._drain)

    def leave(self) -> None:
        """Our own transport closes: silent here, ``lost`` over there."""
        if self.other is not None:
            self.other.end("closed by the peer")
        self.vanish()

    def vanish(self) -> None:
        """Gone without a word: this sink never heard of the connection, or its transport is closing."""
        self.gone = True
        self._ending = None
        self._frames.clear()
        self.owner._halves.discard(self)

    def _open(self) -> None:
        """Deliver from now on, beginning with what waited."""
        self._admitted = True
        self.owner._halves.add(self)
        if self._frames:
            self._schedule()

    def _schedule(self) -> None:
        if self._admitted and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        """Hand over what was here when the tick began; what a sink offers meanwhile is for the next tick."""
        self._scheduled = False
        frames, sink = self._frames, self.sink
        try:
            for _ in range(len(frames)):
                if not frames:  # the sink dropped this connection or closed the transport
                    break
                frame = frames.popleft()
                self._waiting -= len(frame)
                sink.received(self, frame)
        finally:
            if frames:
                self._schedule()  # a sink that raised, or offered to itself, must not strand the rest
        if self._ending is not None:
            reason, self._ending = self._ending, None
            self.owner._halves.discard(self)
            self.sink.lost(self, reason)
