"""The socket that others dial, and the connections they opened.

Rule 1: who sent a frame is read off that frame (ZAP's User-Id), never from its routing id: peers choose those.
Rule 2: a message is exactly one frame. Who sends anything else is dropped and kept out for a while.
Rule 3: a routing id only says where replies go; nobody else can get one while its connection lives (HANDOVER is off),
nor guess that of an agentbus peer afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import zmq

from agentbus.errors import ConfigError
from agentbus.transport.base import Sink
from agentbus.transport.common import connection_ids, refuse_oversize
from agentbus.transport.zeromq.gate import Gate, read_user_id
from agentbus.transport.zeromq.monitor import Accepted, Monitor
from agentbus.transport.zeromq.reader import BUDGET, Reader
from agentbus.transport.zeromq.sockets import Settings, listening, speak_ipv6
from agentbus.transport.zeromq.unfinished import Unfinished
from agentbus.transport.zeromq.unsent import Unsent
from agentbus.transport.zeromq.zap import ZapHandler

GRACE: Final = 1.0  # seconds; under a load that never ends, nothing left to read is no sign to wait for
_EVENTS: Final = zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED


class Inbound:
    """A connection that a peer opened."""

    dialled = False

    def __init__(self, listener: Listener, user_id: str, *, routing_id: bytes, fd: int) -> None:
        key, self.admission = read_user_id(user_id)
        self.id = next(connection_ids)
        self.peer: bytes | None = key
        self.user_id = user_id
        self.routing_id = routing_id
        self.fd = fd
        self.messages = 0
        self.unsent = Unsent(listener.waiting)
        self.over: str | None = None
        self._listener = listener

    def __repr__(self) -> str:
        return f"<connection {self.id} from {(self.peer or b'').hex()[:8]}>"

    def offer(self, frame: bytes) -> bool:
        """Queue one frame."""
        return self._listener.send(self, frame)

    def drop(self, *, keep_out: bool = True) -> None:
        """Close at once, and refuse the peer's return for a while."""
        self._listener.drop(self, "dropped here", keep_out=keep_out)


class Listener:
    """One ROUTER with its ZAP handler, its monitor and its connections.

    Args:
        context: The transport's; this is its only listener.
        settings: Keys and limits.
        sink: Who is told.
        connections: How many connections there may be, half-open ones included.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], settings: Settings, sink: Sink, *, connections: int
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sink = sink
        self._max_frame = settings.max_frame
        self.waiting = settings.waiting
        self._limit = connections
        self._closed = False
        self.malformed = 0
        self._by_user: dict[str, Inbound] = {}
        self._by_fd: dict[int, Inbound] = {}
        self._leaving: list[Inbound] = []
        self._bury_at = 0.0
        self._accepted = Accepted()
        self._socket = listening(context, settings)
        self._monitor = Monitor(self._loop, self._socket, _EVENTS, self._event)
        self._gate = Gate(self._accepted, has_room=self._has_room, clock=self._loop.time)
        self._zap = ZapHandler(self._loop, context, sink, self._gate)
        self._reader = Reader(self._loop, self._socket, self._drain)
        self._unfinished = Unfinished(
            self._loop,
            connections=self._connections,
            quiet=self._quiet,
            admitted=self._gate.unheard,
            cut=self._cut,
            max_frame=settings.max_frame,
        )

    def bind(self, endpoint: str) -> str:
        """Listen; the endpoint with the port that was found for ``*``.

        Raises:
            ConfigError: ``config.transport``: it cannot be bound.
        """
        try:
            speak_ipv6(self._socket, endpoint)
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            why = str(error.strerror).partition(" (addr=")[0]
            todo = "choose another address or port" if "://" in endpoint else "write tcp://ADDRESS:PORT"
            text = f"cannot listen at {endpoint}: {why}; {todo}"
            raise ConfigError("config.transport", text) from error
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def send(self, connection: Inbound, frame: bytes) -> bool:
        """Queue one frame for ``connection``; see the port's ``offer``."""
        refuse_oversize(len(frame), self._max_frame)
        if connection.over is not None or self._closed or not connection.unsent.takes(len(frame), connection.fd):
            return False
        try:
            self._socket.send(connection.routing_id, zmq.DONTWAIT | zmq.SNDMORE)
            self._socket.send(frame, zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno != zmq.EAGAIN:  # EHOSTUNREACH
                self._end(connection, "the peer is gone")
            return False
        finally:
            self._reader.wake()  # a send may swallow the edge that announces a frame
        connection.unsent.add(len(frame))
        return True

    def drop(self, connection: Inbound, reason: str, *, keep_out: bool = True) -> None:
        """Cut ``connection``, and with ``keep_out`` refuse its key for a while."""
        if connection.over is not None or self._closed:
            return
        self._end(connection, reason)
        if keep_out:
            self._gate.ban(connection.peer or b"")
        self._monitor.drain()
        if self._accepted.is_open(connection.fd, connection.admission):
            self._accepted.shut(connection.fd, self._monitor.drain)

    async def aclose(self, linger: int) -> None:
        """Close; what waits has ``linger`` ms to leave, and the sink hears nothing more."""
        self._closed = True
        self._unfinished.close()
        self._reader.close()
        self._monitor.close()
        await self._zap.aclose()
        self._socket.close(linger)

    def _drain(self) -> bool:
        socket, known, received = self._socket, self._by_user, self._sink.received
        for _ in range(BUDGET):
            try:
                routing_id = socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                self._bury()
                return False
            frame = socket.recv(zmq.DONTWAIT, copy=False)
            user_id = str(frame.get("User-Id"))
            connection = known.get(user_id) or self._meet(user_id, routing_id, frame)
            connection.messages += 1
            if frame.more or len(frame) > self._max_frame:
                self._reject(connection, frame)
            elif connection.over is None:
                received(connection, frame.bytes)
        if self._leaving and self._loop.time() >= self._bury_at:
            self._bury()
        return True

    def _meet(self, user_id: str, routing_id: bytes, frame: zmq.Frame) -> Inbound:
        """The first frame of a connection: from now on its death is ours to notice."""
        fd = int(frame.get(zmq.SRCFD))
        connection = Inbound(self, user_id, routing_id=routing_id, fd=fd)
        self._by_user[user_id] = connection
        self._gate.heard(connection.admission)
        self._monitor.drain()
        if self._accepted.is_open(fd, connection.admission):
            self._by_fd[fd] = connection
        else:  # it came, spoke and went before we looked
            self._leave(connection)
        return connection

    def _reject(self, connection: Inbound, frame: zmq.Frame) -> None:
        self.malformed += 1
        while frame.more:
            frame = self._socket.recv(zmq.DONTWAIT, copy=False)
        self.drop(connection, "it sent something that is not one frame")

    def _event(self, event: int, fd: int) -> None:
        if event == zmq.Event.ACCEPTED:
            self._accepted.opened(fd)
            self._unfinished.watch()
            if len(self._accepted) > self._limit:
                self._loop.call_soon(self._has_room)
            return
        self._accepted.closed(fd)
        connection = self._by_fd.pop(fd, None)
        if connection is not None:
            self._leave(connection)

    def _leave(self, connection: Inbound) -> None:
        """Its end is known, but frames it sent before may still wait to be read."""
        if not self._leaving:
            self._bury_at = self._loop.time() + GRACE
        self._leaving.append(connection)
        self._reader.wake()

    def _has_room(self) -> bool:
        """Whether no more than ``connections`` are left, after those who have said nothing for longest were cut."""
        if self._closed:
            return False
        self._monitor.drain()
        for _ in range(len(self._accepted) - self._limit):
            silent = self._accepted.oldest(but=self._by_fd.__contains__)
            if silent is not None:
                self._accepted.shut(silent, self._monitor.drain)
        return len(self._accepted) <= self._limit

    def _quiet(self) -> bool:
        waiting = self._socket.poll(0)
        self._reader.wake()  # asking may swallow the edge that announces a frame
        return not waiting

    def _connections(self) -> Iterator[tuple[int, int, int | None]]:
        self._monitor.drain()
        for fd, number in self._accepted:
            connection = self._by_fd.get(fd)
            yield fd, number, connection.messages if connection is not None else None

    def _cut(self, fd: int) -> None:
        """This connection brings bytes and no message."""
        self.malformed += 1
        connection = self._by_fd.get(fd)
        if connection is not None:
            self.drop(connection, "it sent more than a message, and did not end it")
        else:
            self._accepted.shut(fd, self._monitor.drain)

    def _bury(self) -> None:
        """Nothing is left to read, so nothing of those who went either; or enough time was given. Tell, and forget."""
        leaving, self._leaving = self._leaving, []
        for connection in leaving:
            del self._by_user[connection.user_id]
            self._end(connection, "the peer is gone")

    def _end(self, connection: Inbound, reason: str) -> None:
        if connection.over is None:
            connection.over = reason
            self._loop.call_soon(self._tell, connection, reason)

    def _tell(self, connection: Inbound, reason: str) -> None:
        if not self._closed:
            self._sink.lost(connection, reason)
