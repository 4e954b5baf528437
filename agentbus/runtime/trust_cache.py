"""A node's view of the directory: one connection, one poll at a time, one Trust.

Rule 1: what arrives here is only carried; :class:`Trust` judges it.
Rule 2: age counts from the instant a poll was *sent*. A push brings content, and extends nothing.
Rule 3: polls are coalesced, and every question is bounded in time. That nobody has a key is believed for two seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, Protocol

from agentbus.crypto.keys import thumbprint
from agentbus.delegation.statements import INSTANCE, Instance, decode_signed
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError, ConfigError, DirectoryRefused, Malformed, Rejected, Unavailable, from_code
from agentbus.runtime.clock import Clock
from agentbus.transport.base import OTHER_KEY, REFUSED, Connection, Transport
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS, SECOND
from agentbus.wire.sync import decode_sync, encode_sync

CODES: Final = {
    "unavailable.directory": "The directory does not answer; agents go on until max_directory_age, then wait.",
    "unavailable.directory_refused": "The directory refuses this identity: it is unknown, not active or too frequent.",
    "unavailable.directory_key": "Whoever listens at the bus URL's address has not the CURVE key that its pin names.",
    "config.clock": "This machine's clock and the directory's are more than half a minute apart.",
}

logger: Final = logging.getLogger("agentbus.directory")
ANSWER: Final = 3.0  # seconds for one answer
NEGATIVE: Final = 2 * SECOND  # how long "nobody" is believed


class KeptLog(Protocol):
    """What a node keeps of the directory's log; nothing that goes wrong with it stops the node."""

    def load(self, root: bytes, *, now: int) -> Trust: ...
    def append(self, entries: list[bytes]) -> None: ...
    def keep_head(self, size: int, note: bytes) -> None: ...
    def head_of(self, size: int) -> bytes | None: ...
    def root_at(self, size: int) -> bytes: ...
    def head_key_entry(self) -> bytes: ...
    def convict(self, size: int, note: bytes) -> object: ...
    def close(self) -> None: ...


class TrustSource(Protocol):
    """Where a node's trust comes from."""

    changed: list[Callable[[], None]]
    departed: set[bytes]  # key ids of instances that ended: they cannot be asked, what they signed still verifies
    left: list[Callable[[Collection[bytes]], None]]  # called with the ids of instances that just ended, so it is said
    returned: list[Callable[[], None]]  # called when the directory is heard again over a new connection

    @property
    def trust(self) -> Trust: ...
    async def open(self) -> None: ...
    async def aclose(self) -> None: ...
    def age(self) -> int | None: ...
    def hint(self) -> None: ...
    async def refresh(self) -> None: ...
    async def find(self, keys: Iterable[bytes] = (), principals: Iterable[str] = ()) -> None: ...
    async def rotate(self, who: PrincipalId, body: bytes, by_old: bytes, by_new: bytes) -> None: ...
    async def publish(self, statement: bytes) -> bytes: ...
    def leave(self, instance_ids: list[bytes]) -> None: ...
    def owns(self, connection: Connection) -> bool: ...
    def received(self, frame: bytes) -> None: ...
    def cut(self, reason: str) -> None: ...


class TrustCache:
    """The :class:`TrustSource` of an ordinary node.

    Args:
        transport: The node's transport, opened by then.
        endpoint: Where the directory listens.
        key: The directory's CURVE key.
        root: The pinned thumbprint of the root key.
        mirror: What this node kept of the directory's log; it goes on from there.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        endpoint: str,
        key: bytes,
        root: bytes,
        clock: Clock,
        mirror: KeptLog | None = None,
    ) -> None:
        self.trust = Trust.pinned(root) if mirror is None else mirror.load(root, now=clock.now())
        self._mirror = mirror
        self.changed: list[Callable[[], None]] = []
        self.departed: set[bytes] = set()
        self.left: list[Callable[[Collection[bytes]], None]] = []
        self.returned: list[Callable[[], None]] = []
        self.problem: AgentBusError | None = None
        self.forked: Rejected | None = None  # it showed a peer another history: nothing new is believed
        self._transport = transport
        self._endpoint, self._key = endpoint, key
        self._clock = clock
        self._connection: Connection | None = None
        self._number = 0
        self._waiting: dict[int, tuple[str, asyncio.Future[list[Any]]]] = {}
        self._nobody: dict[bytes, int] = {}
        self._polling: asyncio.Task[None] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._hint = asyncio.Event()
        self._away = False
        self._hinted = 0

    async def open(self) -> None:
        """Hear the directory once, then keep hearing it.

        Raises:
            Unavailable: ``unavailable.directory``. Rejected: what the directory showed is not good.
        """
        await self.refresh()
        self.check_clock()
        self._loop = asyncio.get_running_loop().create_task(self._keep_fresh())

    def check_clock(self) -> None:
        """Compare this machine's clock with the instant of the head that was heard last.

        Raises:
            ConfigError: ``config.clock``: nothing that is signed here would be believed there, nor the other way round.
        """
        if self.trust.head is None:
            return
        ahead = self._clock.now() - self.trust.head.instant
        if abs(ahead) > LIMITS.skew:
            way = "ahead of" if ahead > 0 else "behind"
            seconds = f"{abs(ahead) / SECOND:.0f} s {way} the directory's"
            raise ConfigError("config.clock", f"this machine's clock is {seconds}; set both (NTP keeps them right)")

    async def aclose(self) -> None:
        for task in (self._loop, self._polling):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(t for t in (self._loop, self._polling) if t), return_exceptions=True)
        if self._mirror is not None:
            self._mirror.close()

    def age(self) -> int | None:
        """Microseconds since the newest answered poll was sent; None for a directory that showed two histories."""
        return None if self.forked is not None else self.trust.age(self._clock.mono())

    async def refresh(self) -> None:
        """Poll now; calls at the same time share one poll.

        Raises:
            Unavailable, Rejected, Malformed: the poll failed, or what it brought is not good.
        """
        if self._polling is None or self._polling.done():
            self._polling = asyncio.get_running_loop().create_task(self._poll())
        await asyncio.shield(self._polling)

    async def _poll(self) -> None:
        while True:
            sent_at = self._clock.mono()
            size = self.trust.size
            shown = self.trust.head.note if self.trust.head is not None and self.trust.head.size == size else b""
            try:
                note, entries, ended = await self._call("poll", size, shown, b"", expect="head")
            except DirectoryRefused as error:
                if error.code != "directory.restored" or self._mirror is None:
                    raise
                # It may be too old to know whose head that is: then the root key's word convinces it.
                introduced = await asyncio.to_thread(self._mirror.head_key_entry)
                note, entries, ended = await self._call("poll", size, shown, introduced, expect="head")
            self._ended(ended)
            entries = entries[self.trust.size - size :]  # a push may have brought the first ones meanwhile
            if entries:
                self._advance_log(entries)
            try:
                self._accept_head(note, sent_at=sent_at)
            except Unavailable:
                if not entries:
                    raise
                continue  # the log is longer than one answer: ask for the rest
            self.problem = None
            if self._away:
                self._away = False
                for tell in self.returned:
                    tell()
            return

    async def _keep_fresh(self) -> None:
        while True:
            pause = self.trust.max_age / SECOND / 3 if self.problem is None else 0.5
            try:
                async with asyncio.timeout(pause):
                    await self._hint.wait()
            except TimeoutError:
                pass
            self._hint.clear()
            try:
                await self.refresh()
                self._forget()
            except AgentBusError as error:
                self.problem = error
            except Exception:  # a fault of this process: the directory is heard again all the same
                logger.exception("the directory's answer could not be taken in")
                self.problem = Unavailable("unavailable.directory", "its answer could not be taken in; see the log")

    def _forget(self) -> None:
        """Let go of what is past by the directory's clock, too: this machine's may be put forward, and back again."""
        head = self.trust.head
        heard = max(self.trust.last_instant, head.instant if head is not None else 0)
        self.trust = self.trust.forget(min(self._clock.now(), heard))
        self.departed.intersection_update(self.trust.instances)

    def hint(self) -> None:
        """A peer says it has seen more of the directory's log than this node: poll soon, once a second at most."""
        mono = self._clock.mono()
        if mono - self._hinted >= SECOND:
            self._hinted = mono
            self._hint.set()

    async def find(self, keys: Iterable[bytes] = (), principals: Iterable[str] = ()) -> None:
        """Fetch instance statements; a key that nobody has is not asked for again for two seconds.

        Raises:
            Unavailable: ``unavailable.directory``.
        """
        now = self._clock.mono()
        self._nobody = {who: until for who, until in self._nobody.items() if until > now}
        wanted_keys = [key for key in keys if key not in self._nobody]
        wanted = list(principals)
        if not wanted_keys and not wanted:
            return
        (statements,) = await self._call("find", wanted_keys, wanted, expect="found")
        if self._advance_each(statements):
            await self.refresh()  # under an identity key that is not known here: a push was lost
            self._advance_each(statements)
        now = self._clock.mono()
        for key in wanted_keys:
            if key not in self.trust.instances:
                self._nobody[key] = now + NEGATIVE

    async def rotate(self, who: PrincipalId, body: bytes, by_old: bytes, by_new: bytes) -> None:
        """Ask for a rotation that both keys signed; when this returns, it is folded here.

        Raises:
            DirectoryRefused: ``directory.rotation`` and its kin. Unavailable: ``unavailable.directory``.
        """
        await self._call("rotate", who, body, by_old, by_new, expect="rotated")
        await self.refresh()

    async def publish(self, statement: bytes) -> bytes:
        """Publish an instance statement.

        Returns:
            The standing chain it was answered with.
        """
        (chain,) = await self._call("publish", statement, expect="standing")
        self._advance([statement])
        return bytes(chain)

    def leave(self, instance_ids: list[bytes]) -> None:
        """Say that these instances end; nobody waits for an answer."""
        if self._connection is not None and instance_ids:
            self._connection.offer(encode_sync("leave", 0, instance_ids))

    # ── the connection ───────────────────────────────────────────────────────────────────────────────────────────

    def owns(self, connection: Connection) -> bool:
        """Whether this is the connection to the directory."""
        return connection is self._connection

    def cut(self, reason: str) -> None:
        """The connection is gone: what waits fails, and the next call dials again."""
        self._connection = None
        self._away = True
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(self._unreachable(reason))
        self._waiting.clear()
        if self.problem is None:  # ask at once; after that, who is cut off again and again waits before each try
            self.problem = self._unreachable(reason)
            self._hint.set()

    def received(self, frame: bytes) -> None:
        """A frame of the synchronisation."""
        try:
            operation, number, parts = decode_sync(frame)
        except Malformed as error:
            self.problem = error
            return
        if operation == "push":
            self._pushed(*parts)
            return
        expected, future = self._waiting.pop(number, (None, None))
        if future is None or future.done():
            return
        if operation == "refused":
            future.set_exception(from_code(parts[0], parts[1], retryable=False, details={}))
        elif operation != expected:
            future.set_exception(Malformed("malformed.sync", f"{operation} answers no {expected}"))
        else:
            future.set_result(parts)

    async def _call(self, operation: str, *parts: Any, expect: str) -> list[Any]:
        if self._connection is None:
            self._connection = self._transport.dial(self._endpoint, self._key)
        self._number += 1
        number = self._number
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (expect, future)
        if not self._connection.offer(encode_sync(operation, number, *parts)):
            self._waiting.pop(number, None)
            raise Unavailable(
                "unavailable.directory", f"the directory at {self._endpoint} takes nothing; is it running?"
            )
        try:
            async with asyncio.timeout(ANSWER):
                return await future
        except TimeoutError as error:
            raise Unavailable("unavailable.directory", f"no answer from {self._endpoint}; is it running?") from error
        finally:
            self._waiting.pop(number, None)

    def _unreachable(self, reason: str) -> Unavailable:
        where = f"the directory at {self._endpoint}"
        if reason == REFUSED:
            why = "unknown there, suspended or revoked (ask its operator), or it connects too often (wait)"
            return Unavailable("unavailable.directory_refused", f"{where} refuses this identity: {why}")
        if reason == OTHER_KEY:
            text = f"at {self._endpoint} listens no directory with the pinned key; compare the bus URLs"
            return Unavailable("unavailable.directory_key", text, retryable=False)
        return Unavailable("unavailable.directory", f"{where}: {reason}; is `agentbus up` running there?")

    # ── what it brings ───────────────────────────────────────────────────────────────────────────────────────────

    def _pushed(self, note: bytes, entries: list[bytes], statements: list[bytes], ended: list[bytes]) -> None:
        try:
            if entries:
                self._advance_log(entries)
            self._advance_each(statements)
            if note:
                self._accept_head(note)
        except (Unavailable, Rejected, Malformed) as error:
            if error.code in ("reject.head_forked", "reject.wrong_root"):
                self.problem = error
            self._hint.set()  # a gap, or entries in another order: the poll brings them all
        except Exception:  # a fault of this process: what comes next is taken in all the same
            logger.exception("what the directory pushed could not be taken in")
            self._hint.set()
        self._ended(ended)

    def _ended(self, keys: Iterable[bytes]) -> None:
        """These instances ended; of those that are not known here nothing is kept, as they cannot be asked anyway."""
        ended = {key for key in keys if key in self.trust.instances} - self.departed
        self.departed |= ended
        for tell in self.left if ended else ():
            tell({self.trust.instances[key].instance_id for key in ended})

    def head_of(self, size: int) -> bytes | None:
        """The head of this size that the directory showed this node, if it is remembered."""
        return None if self._mirror is None else self._mirror.head_of(size)

    async def compare(self, note: bytes) -> None:
        """Compare a head that a peer was shown with what was folded here; a contradiction is kept as evidence.

        Raises:
            Malformed, Rejected: it is no head of this directory, or contradicts what it showed this node
                (``reject.head_forked``). Unavailable: it is of a larger log than the directory shows here.
        """
        checkpoint = self.trust.read_head(note)
        if checkpoint.size > self.trust.size:
            await self.refresh()
        if checkpoint.size > self.trust.size:
            raise Unavailable("unavailable.directory_behind", "a peer was shown more of the directory's log than this")
        if self._mirror is None:
            return
        known = self.head_of(checkpoint.size)
        if known is not None:
            root = self.trust.read_head(known).root
        else:
            root = await asyncio.to_thread(self._mirror.root_at, checkpoint.size)
        if root == checkpoint.root:
            return
        kept = self._mirror.convict(checkpoint.size, note)
        self.forked = Rejected(
            "reject.head_forked",
            "a peer was shown another history by the directory",
            details={"size": checkpoint.size, "evidence": str(kept)},
        )
        self.problem = self.forked
        raise self.forked

    def _accept_head(self, note: bytes, *, sent_at: int | None = None) -> None:
        """Take a head; one that contradicts what the directory said before is kept as evidence."""
        try:
            self._set(self.trust.accept_head(note, sent_at=sent_at))
        except Rejected as error:
            if error.code == "reject.head_forked" and self._mirror is not None:
                kept = self._mirror.convict(error.details["size"], note)
                if kept is not None:
                    error.details["evidence"] = str(kept)
            raise
        if self._mirror is not None and self.trust.head is not None:
            self._mirror.keep_head(self.trust.head.size, self.trust.head.note)

    def _advance_log(self, entries: list[bytes]) -> None:
        self._advance(entries)
        if self._mirror is not None:
            self._mirror.append(entries)

    def _advance(self, statements: list[bytes]) -> None:
        self._set(self.trust.advance(statements, now=self._clock.now()))

    def _advance_each(self, statements: list[bytes]) -> bool:
        """Instance statements stand alone: a bad one is left out, the others count.

        Returns:
            Whether one is signed by an identity key that is not known here.
        """
        unknown = False
        for statement in statements:
            try:
                signed = decode_signed(statement)
                if signed.tag == INSTANCE:
                    instance = Instance.decode(signed.body)
                    if instance.identity_key not in self.trust.keys:
                        unknown = True
                        continue
                    self._advance([statement])
                    self.departed.discard(thumbprint(instance.key))
            except AgentBusError as error:
                self.problem = self.problem or error
        return unknown

    def _set(self, trust: Trust) -> None:
        before, self.trust = self.trust, trust
        if trust.size != before.size:
            for tell in self.changed:
                tell()
