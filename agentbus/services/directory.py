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
from itertools import chain, zip_longest
from typing import Any, Final

from agentbus.crypto.keys import CurveKey, thumbprint
from agentbus.delegation.statements import Instance, Rotation, decode_signed
from agentbus.directory import life
from agentbus.directory.core import Directory
from agentbus.errors import AgentBusError, Backpressure, DirectoryRefused, Malformed
from agentbus.runtime.clock import Clock
from agentbus.services.inside import Inside
from agentbus.services.peers import ITEMS, Peer, Peers, paged
from agentbus.transport.base import Connection
from agentbus.wire.frame import ENROLMENT
from agentbus.wire.limits import SECOND
from agentbus.wire.sync import decode_sync, encode_sync

logger: Final = logging.getLogger("agentbus.directory")
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
        self._peers = Peers()
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
        peer = self._peers.lost(connection)
        if peer is not None and peer.homes:  # other processes of the same identity go on
            self._tell_gone(self.core.presence.leave(peer.key, peer.homes))

    def serve(self, connection: Connection, frame: bytes) -> None:
        """One synchronisation or enrolment frame; every one is answered, if only with a refusal."""
        number = 0
        try:
            if frame[0] == ENROLMENT and len(frame) > ENROLMENT_SIZE:
                raise Malformed("malformed.sync", f"an enrolment has at most {ENROLMENT_SIZE} bytes")
            peer: Peer | None = None
            if connection.peer is not None and connection.peer in self.core.trust.curve_keys:
                if not self.core.trust.admits(connection.peer):
                    connection.drop(keep_out=False)
                    return
                peer = self._peers.of(connection, connection.peer)  # its end is noticed, whatever it asks for
            operation, number, parts = decode_sync(frame)
            if (peer is None) != (operation == "enrol"):
                raise DirectoryRefused("directory.token", "an enrolment connection enrols, and others do not")
            answer = getattr(self, f"_{operation}", None) if operation in _OPERATIONS else None
            if answer is None:
                raise Malformed("malformed.sync", f"nobody asks for {operation!r}")
            reply = answer(peer or connection, *parts)
            if reply is not None:
                self._offer(connection, encode_sync(reply[0], number, *reply[1:]))
        except AgentBusError as error:
            self._offer(connection, encode_sync("refused", number, error.code, error.message[:ENROLMENT_SIZE]))
        except Exception:
            logger.exception("a frame of the synchronisation could not be answered")
            text = "the directory failed on this; its own log says why"
            self._offer(connection, encode_sync("refused", number, "directory.failed", text))

    def _poll(self, peer: Peer, size: int, shown: bytes, introduced: bytes) -> tuple[Any, ...]:
        self.core.shown(size, shown, introduced)
        ended = [] if peer.listens else self.core.presence.ended()[-ITEMS:]
        peer.listens = True
        page: list[bytes] = []
        size, mono = max(0, size), self.clock.mono()
        if size < self.core.trust.size and peer.wants_page(size, mono):
            page = next(paged(self.core.store.entries(size)), [])
            peer.sent_page(size + len(page), mono)
        return ("head", self.core.head(self.clock.now()), page, ended)

    def _find(self, peer: Peer, keys: list[Any], principals: list[Any]) -> tuple[Any, ...]:
        """Whom it knows by key, then one of each principal in turn: nobody's many instances push another's out."""
        if any(type(k) is not bytes for k in keys) or any(type(p) is not str for p in principals):
            raise Malformed("malformed.sync", "find takes key ids and principals")
        presence, trust, now, mono = self.core.presence, self.core.trust, self.clock.now(), self.clock.mono()
        if not self._peers.may_find(peer, mono):  # before anything is looked up
            raise Backpressure("backpressure.connection", "too much was asked for by this key; ask for less, or later")
        by_principal: list[list[bytes]] = []
        for who in dict.fromkeys(principals[:64]):
            if who in trust.principals:
                peer.ask_for(who, mono)
                at = [thumbprint(one.key) for one in trust.instances_of(who, now)]
                by_principal.append([trust.statements[key] for key in at if presence.runs(key)])
        in_turn = (one for turn in zip_longest(*by_principal) for one in turn if one is not None)
        found = dict.fromkeys(chain(presence.statements(keys[:64], (), now), in_turn))
        page = next(paged(found), [])
        self._peers.found(peer, sum(map(len, page)))
        return ("found", page)

    def _publish(self, peer: Peer, statement: bytes) -> tuple[Any, ...]:
        instance = Instance.decode(decode_signed(statement).body)
        if instance.curve_key != peer.key:
            raise DirectoryRefused("directory.no_standing", "an instance is published over its own node's connection")
        standing = self._publish_here(statement)
        self._peers.settle(peer, instance.instance_id, instance.not_after)
        self._push(self._peers.interested(instance.principal, self.clock.mono()), statements=[statement])
        return ("standing", standing)

    def _leave(self, peer: Peer, instance_ids: list[Any]) -> None:
        ended = [i for i in instance_ids if type(i) is bytes]
        self._peers.leave(peer, ended)
        self._tell_gone(self.core.presence.leave(peer.key, ended))

    def _enrol(
        self, connection: Connection, who: str, key: bytes, curve_key: bytes, expires: int, proof: bytes
    ) -> tuple[Any, ...]:
        self.core.enrol_by_token(
            connection.peer or b"", who=who, key=key, curve_key=curve_key, expires=expires, proof=proof,
            now=self.clock.now(),
        )  # fmt: skip
        return ("enrolled",)

    def _rotate(self, peer: Peer, who: str, body: bytes, by_old: bytes, by_new: bytes) -> tuple[Any, ...]:
        """A rotation proves itself; that it comes over its principal's own connection keeps noise out."""
        if self.core.trust.curve_keys.get(peer.key) != who:
            raise DirectoryRefused("directory.not_owner", "a key is rotated over a connection of its principal")
        if Rotation.decode(body).principal != who:
            raise Malformed("malformed.sync", "the rotation is about somebody else")
        self.core.charge(who, now=self.clock.now())
        life.rotate(self.core, [body, by_old, by_new], now=self.clock.now())
        return ("rotated",)

    # ── what it says unasked ─────────────────────────────────────────────────────────────────────────────────────

    def _grown(self, entries: list[bytes]) -> None:
        """The log grew: everybody sees the same bytes, at once, with the head that covers them."""
        self._push(self._peers.listening(), self.core.head(self.clock.now()), entries=entries)
        self._drop_the_refused()
        for tell in self.changed:
            tell()

    def _drop_the_refused(self) -> None:
        """Connections of principals that are active no more, or of an epoch that ended."""
        for peer in self._peers:
            if not self.core.trust.admits(peer.key):
                peer.connection.drop(keep_out=False)  # it is not admitted, until it is resumed: then at once

    def _tell_gone(self, keys: list[bytes]) -> None:
        if keys:
            super()._tell_gone(keys)
            self._push(self._peers.listening(), ended=keys)

    def _push(
        self,
        to: list[Peer],
        note: bytes = b"",
        *,
        entries: Iterable[bytes] = (),
        statements: Iterable[bytes] = (),
        ended: Iterable[bytes] = (),
    ) -> None:
        """Tell these, in as many frames as it takes; the head comes last, with the entries that it covers."""
        rows: list[tuple[list[bytes], list[bytes], list[bytes]]] = [
            *((page, [], []) for page in paged(entries)),
            *(([], page, []) for page in paged(statements)),
            *(([], [], page) for page in paged(ended)),
        ] or [([], [], [])]
        for row in rows if to else ():
            frame = encode_sync("push", 0, note if row is rows[-1] else b"", *row)
            for peer in to:
                self._offer(peer.connection, frame)

    def _offer(self, connection: Connection, frame: bytes) -> None:
        """Who takes nothing any more is cut off: it has missed what it should know, and is kept nothing."""
        if not connection.offer(frame):
            connection.drop()

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
        self._peers.forget(now, self.clock.mono())
        if self.core.behind:
            return  # it signs nothing any more
        listening = self._peers.listening()
        if listening and now - self.core.trust.last_time >= TIME_LEAF:
            self.core.time_leaf(self.entropy(16), now=now)
        elif listening:
            self._push(listening, self.core.head(now))


_OPERATIONS: Final = frozenset({"poll", "find", "publish", "leave", "enrol", "rotate"})
