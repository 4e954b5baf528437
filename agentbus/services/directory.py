"""The directory as a service: synchronisation frames for nodes, ordinary signed requests for people and agents.

Synchronisation carries signed statements to whoever may connect; an enrolment connection can do one thing; everything
else is an envelope, judged as any other.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from agentbus.crypto.keys import CurveKey
from agentbus.delegation.statements import Instance, Rotation, decode_signed
from agentbus.directory import life
from agentbus.directory.core import Directory
from agentbus.errors import AgentBusError, DirectoryRefused, Malformed
from agentbus.runtime.clock import Clock
from agentbus.services.inside import Inside
from agentbus.transport.base import Connection
from agentbus.wire.frame import ENROLMENT
from agentbus.wire.limits import SECOND
from agentbus.wire.sync import decode_sync, encode_sync

logger: Final = logging.getLogger("agentbus.directory")
PAGE: Final = 400_000  # bytes of entries in one answer: a frame holds a megabyte
ENROLMENT_SIZE: Final = 4096  # bytes; whoever holds a token is nobody yet
TIME_LEAF: Final = 10 * SECOND


def token_curve_key(token: bytes) -> CurveKey:
    """The one-time X25519 key of an enrolment token: HKDF-SHA256 (RFC 5869), one block of output."""
    extracted = hmac.digest(b"agentbus-enrolment-token", token, "sha256")
    return CurveKey(hmac.digest(extracted, b"curve\x01", "sha256"))


class DirectoryServer(Inside):
    """Answers the synchronisation of nodes, and pushes what changes; also the directory node's own trust source.

    Args:
        core: The state machine.
        clock: Wall and monotonic time.
        entropy: Random bytes.
    """

    def __init__(self, core: Directory, clock: Clock, entropy: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__(core, clock, entropy)
        self._nodes: dict[int, Connection] = {}
        self._interest: dict[str, set[int]] = {}
        self._homes: dict[bytes, int] = {}  # instance id → the connection that published it, the newest if several did
        self._task: asyncio.Task[None] | None = None
        core.changed = self._grown

    async def open(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._beat())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await super().aclose()

    # ── a node's Server ──────────────────────────────────────────────────────────────────────────────────────────

    def admits(self, key: bytes) -> bool:
        """Whether an unused enrolment token has this CURVE key."""
        return self.core.admits_token(key, self.clock.now())

    def lost(self, connection: Connection) -> None:
        """A node is gone, and with it its instances."""
        if self._nodes.pop(connection.id, None) is None:
            return
        for interested in self._interest.values():
            interested.discard(connection.id)
        lived_there = [instance for instance, home in self._homes.items() if home == connection.id]
        for instance in lived_there:
            del self._homes[instance]
        if connection.peer is not None:  # other processes of the same identity go on
            self._tell_gone(self.core.presence.leave(connection.peer, lived_there))

    def serve(self, connection: Connection, frame: bytes) -> None:
        """One synchronisation or enrolment frame; every one is answered, if only with a refusal."""
        number = 0
        try:
            if frame[0] == ENROLMENT and len(frame) > ENROLMENT_SIZE:
                raise Malformed("malformed.sync", f"an enrolment has at most {ENROLMENT_SIZE} bytes")
            operation, number, parts = decode_sync(frame)
            enrolled = connection.peer in self.core.trust.curve_keys
            if enrolled == (operation == "enrol"):
                raise DirectoryRefused("directory.token", "an enrolment connection enrols, and others do not")
            answer = getattr(self, f"_{operation}", None) if operation in _OPERATIONS else None
            if answer is None:
                raise Malformed("malformed.sync", f"nobody asks for {operation!r}")
            reply = answer(connection, *parts)
        except AgentBusError as error:
            reply = ("refused", error.code, error.message)
        except Exception:
            logger.exception("a frame of the synchronisation could not be answered")
            reply = ("refused", "directory.failed", "the directory failed on this; its own log says why")
        if reply is not None:
            connection.offer(encode_sync(reply[0], number, *reply[1:]))

    def _poll(self, connection: Connection, size: int, shown: bytes, introduced: bytes) -> tuple[Any, ...]:
        self.core.shown(size, shown, introduced)
        first = connection.id not in self._nodes
        self._nodes[connection.id] = connection
        page: list[bytes] = []
        total = 0
        for entry in self.core.store.entries(max(0, size)) if size < self.core.trust.size else ():
            total += len(entry) + 8
            if total > PAGE or len(page) >= 4000:
                break
            page.append(entry)
        return ("head", self.core.head(self.clock.now()), page, self.core.presence.ended()[-4096:] if first else [])

    def _find(self, connection: Connection, keys: list[Any], principals: list[Any]) -> tuple[Any, ...]:
        if any(type(k) is not bytes for k in keys) or any(type(p) is not str for p in principals):
            raise Malformed("malformed.sync", "find takes key ids and principals")
        for who in principals[:64]:
            if who in self.core.trust.principals:
                self._interest.setdefault(who, set()).add(connection.id)
        return ("found", self.core.presence.statements(keys[:64], principals[:64], self.clock.now()))

    def _publish(self, connection: Connection, statement: bytes) -> tuple[Any, ...]:
        instance = Instance.decode(decode_signed(statement).body)
        if connection.peer is not None and instance.curve_key != connection.peer:
            raise DirectoryRefused("directory.no_standing", "an instance is published over its own node's connection")
        chain = self._publish_here(statement)
        self._homes[instance.instance_id] = connection.id
        self._push_to(self._interest.get(instance.principal, set()), encode_sync("push", 0, b"", [], [statement], []))
        return ("standing", chain)

    def _leave(self, connection: Connection, instance_ids: list[Any]) -> None:
        ended = [i for i in instance_ids if type(i) is bytes]
        for instance in ended:
            if self._homes.get(instance) == connection.id:
                del self._homes[instance]
        if connection.peer is not None:
            self._tell_gone(self.core.presence.leave(connection.peer, ended))

    def _enrol(
        self, connection: Connection, who: str, key: bytes, curve_key: bytes, expires: int, proof: bytes
    ) -> tuple[Any, ...]:
        self.core.enrol_by_token(
            connection.peer or b"", who=who, key=key, curve_key=curve_key, expires=expires, proof=proof,
            now=self.clock.now(),
        )  # fmt: skip
        return ("enrolled",)

    def _rotate(self, connection: Connection, who: str, body: bytes, by_old: bytes, by_new: bytes) -> tuple[Any, ...]:
        """A rotation proves itself; that it comes over its principal's own connection keeps noise out."""
        if connection.peer is not None and self.core.trust.curve_keys.get(connection.peer) != who:
            raise DirectoryRefused("directory.not_owner", "a key is rotated over a connection of its principal")
        if Rotation.decode(body).principal != who:
            raise Malformed("malformed.sync", "the rotation is about somebody else")
        self.core.charge(who, now=self.clock.now())
        life.rotate(self.core, [body, by_old, by_new], now=self.clock.now())
        return ("rotated",)

    # ── what it says unasked ─────────────────────────────────────────────────────────────────────────────────────

    def _grown(self, entries: list[bytes]) -> None:
        """The log grew: everybody sees the same bytes, at once, with the head that covers them."""
        note = self.core.head(self.clock.now())
        self._push_to(self._nodes, encode_sync("push", 0, note, entries, [], []))
        self._drop_the_refused()
        for tell in self.changed:
            tell()

    def _drop_the_refused(self) -> None:
        """Connections of principals that are active no more, or of an epoch that ended."""
        for connection in list(self._nodes.values()):
            peer = connection.peer
            if peer is not None and peer in self.core.trust.curve_keys and not self.core.trust.admits(peer):
                connection.drop(keep_out=False)  # it is not admitted, until it is resumed: then at once

    def _tell_gone(self, keys: list[bytes]) -> None:
        if keys:
            self.departed.update(keys)
            self._push_to(self._nodes, encode_sync("push", 0, b"", [], [], keys))

    def _push_to(self, ids: Iterable[int], frame: bytes) -> None:
        for connection_id in list(ids):
            connection = self._nodes.get(connection_id)
            if connection is not None:
                connection.offer(frame)

    async def _beat(self) -> None:
        """A head every second, a TIME leaf every ten while anybody listens."""
        while True:
            await asyncio.sleep(1)
            try:
                self._tick(self.clock.now())
            except Exception:  # a full disk, say: the next second is another
                logger.exception("the directory could not say that it is there")

    def _tick(self, now: int) -> None:
        self.core.presence.forget_expired(now)
        self.departed.intersection_update(self.core.trust.instances)
        if self.core.behind:
            return  # it signs nothing any more
        if self._nodes and now - self.core.trust.last_time >= TIME_LEAF:
            self.core.time_leaf(self.entropy(16), now=now)
        elif self._nodes:
            self._push_to(self._nodes, encode_sync("push", 0, self.core.head(now), [], [], []))


_OPERATIONS: Final = frozenset({"poll", "find", "publish", "leave", "enrol", "rotate"})
