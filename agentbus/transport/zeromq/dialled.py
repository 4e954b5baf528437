"""A connection that we opened: a DEALER of its own, used once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from agentbus.transport.base import Sink
from agentbus.transport.common import connection_ids, refuse_oversize
from agentbus.transport.zeromq.monitor import FAILURES, Monitor
from agentbus.transport.zeromq.reader import BUDGET, Reader
from agentbus.transport.zeromq.sockets import Settings, can_dial, dialling, speak_ipv6
from agentbus.transport.zeromq.unsent import Unsent


class Dialled:
    """One live path to the peer at ``endpoint``.

    Args:
        context: The transport's.
        settings: Keys and limits.
        sink: Who is told.
        endpoint: Where the peer listens.
        peer: Its key; nobody else can complete the handshake.
        closed: Called once, when its socket is closed.
    """

    dialled = True

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: Settings,
        sink: Sink,
        *,
        endpoint: str,
        peer: bytes,
        closed: Callable[[Dialled], None],
    ) -> None:
        self.id = next(connection_ids)
        self.peer: bytes | None = peer
        self._loop = asyncio.get_running_loop()
        self._sink = sink
        self._max_frame = settings.max_frame
        self._closed = closed
        self._over: str | None = None
        self._told = False
        self._fd: int | None = None
        self._unsent = Unsent(settings.waiting)
        self._socket = dialling(context, settings, peer)
        self._monitor = Monitor(self._loop, self._socket, sum(FAILURES) | zmq.Event.CONNECTED, self._event)
        self._reader = Reader(self._loop, self._socket, self._drain)
        self._connect(endpoint)

    def __repr__(self) -> str:
        return f"<connection {self.id} to {(self.peer or b'').hex()[:8]}>"

    @property
    def alive(self) -> bool:
        """Whether a frame offered now could still arrive."""
        return self._over is None

    def offer(self, frame: bytes) -> bool:
        """Queue one frame."""
        refuse_oversize(len(frame), self._max_frame)
        if self._over is not None or not self._unsent.takes(len(frame), self._fd):
            return False
        try:
            self._socket.send(frame, zmq.DONTWAIT)
        except zmq.Again:
            return False
        finally:
            self._reader.wake()  # a send may swallow the edge that announces a frame
        self._unsent.add(len(frame))
        return True

    def drop(self, *, keep_out: bool = True) -> None:
        """Close at once."""
        if self._over is None:
            self._over = "dropped here"
            self._close(0)
            self._loop.call_soon(self._tell)

    def leave(self, linger: int) -> None:
        """The transport is closing: what waits has ``linger`` ms to go, and the sink hears nothing more."""
        self._told = True
        self._over = self._over or "closed here"
        self._close(linger)

    def _connect(self, endpoint: str) -> None:
        if not can_dial(endpoint):
            self._fail("that is no endpoint of the form tcp://host:port")
            return
        try:
            speak_ipv6(self._socket, endpoint)
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._fail(f"that endpoint cannot be dialled: {error.strerror}")

    def _event(self, event: int, value: int) -> None:
        if event == zmq.Event.CONNECTED:
            self._fd = value
        elif self._over is None:
            self._fail(FAILURES[zmq.Event(event)])

    def _fail(self, reason: str) -> None:
        """Over, but what has already arrived is still handed on; then the sink hears of it."""
        self._over = reason
        self._reader.wake()

    def _close(self, linger: int) -> None:
        if not self._socket.closed:
            self._reader.close()
            self._monitor.close()
            self._socket.close(linger)
            self._closed(self)

    def _drain(self) -> bool:
        socket, received = self._socket, self._sink.received
        for _ in range(BUDGET):
            try:
                frame = socket.recv(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                break
            if frame.more or len(frame) > self._max_frame:
                self.drop()
                return False
            received(self, frame.bytes)
            if socket.closed:
                return False
        else:
            return True
        if self._over is not None:
            self._close(0)
            self._tell()
        return False

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._sink.lost(self, self._over or "closed here")
