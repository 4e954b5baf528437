"""From a frame on a connection to an event: whose turn it is, the look-up before verification, and what it cost.

Until a signature has verified, nothing is charged to, logged under or reported about the *claimed* sender: what a frame
costs is its connection's business (step 1 of the sixteen).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

from agentbus.delegation.decide import Policy
from agentbus.delegation.messages import VerifiedMessage
from agentbus.delegation.trust import NeedsTrust
from agentbus.errors import AgentBusError, LogError, Malformed
from agentbus.protocol.engine import Engine
from agentbus.protocol.events import Asked, Event, Good, Refused
from agentbus.protocol.opening import Read, read_frame
from agentbus.runtime import problems
from agentbus.runtime.clock import Clock
from agentbus.runtime.record import Recorder
from agentbus.runtime.refusals import Refusals
from agentbus.runtime.sightings import Sightings
from agentbus.runtime.trust_cache import TrustSource
from agentbus.runtime.turns import Turns
from agentbus.transport.base import Connection
from agentbus.wire.frame import Envelope, decode_frame
from agentbus.wire.header import Header
from agentbus.wire.limits import LIMITS, SECOND

_alarms = logging.getLogger("agentbus.alarm")

logger: Final = logging.getLogger("agentbus.inbound")
LOOK_UPS: Final = 2  # the sender's statement first, then those of its chain's issuers
LOOK_UP_RATE: Final = 20  # a second, for each connection: beyond it a message of an unknown sender is not looked up
HELD: Final = 1024  # frames of one connection that may wait for a look-up
HELD_BYTES: Final = 8 * 1024 * 1024  # of them: who sends what has to be looked up chooses how large the rest is
LATE: Final = 0.1  # what an honest peer's late answer costs, of the bucket's
FORGERIES: Final = frozenset({"reject.body", "reject.chain_digest", "reject.handover_digest"})  # never an accident
BAD_FRAMES: Final = 64  # unverifiable frames of one connection before it is dropped; one a second is forgiven
AT_ONCE: Final = 64  # frames judged in one step of the loop; what comes beyond them takes turns

Take = Callable[[Connection, bytes], None]
_Item = tuple[Connection, bytes, Take | None]
_Accepted = tuple[Connection, Good, int]
Parts = Read | Malformed
"""What a frame's bytes alone tell: its parts, or why it has none."""


def cut(frame: bytes) -> Parts:
    """Steps 2 and 3, which depend on nothing else and so may come before the turn of the frame itself."""
    try:
        return read_frame(frame)
    except Malformed as error:
        return error


@dataclass(slots=True)
class Account:
    """What is kept of one connection: frames behind a look-up, until their turn, and how often it misbehaved."""

    held: deque[bytes] = field(default_factory=deque)
    held_bytes: int = 0
    turns: int = 0  # turns that were given to them and have not come
    looking: bool = False
    over: bool = False  # it was refused without end: nothing that comes behind is verified any more
    bad: float = 0.0
    bad_at: int = 0
    second: int = 0
    looked: int = 0

    def may_look(self, now: int) -> bool:
        """Count a look-up on behalf of this connection; False when it has had all of this second's."""
        if now // SECOND != self.second:
            self.second, self.looked = now // SECOND, 0
        self.looked += 1
        return self.looked <= LOOK_UP_RATE


class Inbound:
    """A node's inbound side.

    Args:
        deliver: Takes each event of a message that was accepted.
        repeated: Takes a frame that the replay window knows; False: it is no honest repetition.
        wake: Lets what was laid out leave.
        witness: Takes each accepted message that came with notes of logs.
        spawn: Starts a task that ends with the node.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        source: TrustSource,
        recorder: Recorder,
        clock: Clock,
        deliver: Callable[[Event], None],
        repeated: Callable[[Connection, bytes], bool],
        wake: Callable[[], None],
        witness: Callable[[Connection, VerifiedMessage], None],
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        self.policy = Policy("0")
        self.accounts: WeakKeyDictionary[Connection, Account] = WeakKeyDictionary()
        """What is kept of each connection, as long as there is anything of it: a frame may be judged after its end."""
        self._engine, self._source, self._recorder, self._clock = engine, source, recorder, clock
        self._deliver, self._repeated, self._wake, self._spawn = deliver, repeated, wake, spawn
        self._sightings: Sightings[Connection] = Sightings()
        self._witness = witness
        self._refusals = Refusals()
        self._turns: Turns[_Item] = Turns()
        self._fresh: list[_Item] = []  # frames of this step of the loop, while few wait
        self._crowd = False  # whether several keys spoke in the last second
        self._speaking: set[bytes | int] = set()  # the keys heard in this second of the clock
        self._second = 0
        self._scheduled = False
        self.closed = False
        self.named: Callable[[Connection, int], None] = lambda connection, size: None  # sizes of the directory's log

    def received(self, connection: Connection, frame: bytes, take: Take | None = None) -> None:
        """Step 1: judged at once while few come; in turns when many do.

        Args:
            take: What takes the frame in its turn, where it is no envelope.
        """
        key = connection.peer or connection.id
        self._speaking.add(key)
        if not self._scheduled:  # the first of a step: as a rule it is the only one
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turns)
            self._judge([(connection, frame, take)])
        elif len(self._fresh) < AT_ONCE and not self._turns.waiting and not self._crowd:
            self._fresh.append((connection, frame, take))
        elif not self._turns.push(key, (connection, frame, take), len(frame)):
            now = self._clock.now()
            self._recorder.rejected(frame, connection=connection.peer, code="backpressure.connection", now=now)
            self.charge(connection, LATE)

    def lost(self, connection: Connection) -> None:
        """A connection is gone; what it sent before is still judged in its turn."""
        if not connection.dialled:
            self._sightings.lost(connection)

    def charge(self, connection: Connection, cost: float = 1.0) -> None:
        """The bucket: whoever sends what does not verify pays, and nobody else."""
        account = self._account(connection)
        mono = self._clock.mono()
        account.bad = max(0.0, account.bad - (mono - account.bad_at) / SECOND) + cost
        account.bad_at = mono
        if account.bad > BAD_FRAMES:
            connection.drop()

    def _account(self, connection: Connection) -> Account:
        account = self.accounts.get(connection)
        if account is None:
            account = self.accounts[connection] = Account()
        return account

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turns)

    def _take_turns(self) -> None:
        """One step of the loop: so many frames, whoever's turn it is, and then others of this process."""
        self._scheduled = False
        if self.closed:
            return
        self._look_around()
        fresh, self._fresh = self._fresh, []  # they came while no other waited
        if fresh or self._turns.waiting:
            self._schedule()
            self._judge(fresh or self._turns.step(AT_ONCE, crowd=self._crowd))

    def _judge(self, items: list[_Item]) -> None:
        """The frames of one step, in their order, and each kind of work in a row: what is at hand costs less."""
        cuts = [None if take is not None else cut(frame) for _, frame, take in items]
        accepted: list[_Accepted] = []
        for (connection, frame, take), parts in zip(items, cuts, strict=True):
            if parts is not None:
                self._give(connection, self._admit, frame, parts, accepted)
            elif take is not None:
                self._finish(accepted)
                self._give(connection, take, frame)
        self._finish(accepted)

    def _finish(self, accepted: list[_Accepted]) -> None:
        """(15) What was accepted so far goes on the record, and then to whom it is for."""
        heard = [one for one in accepted if self._give(one[0], self._note, one[1], one[2])]
        accepted.clear()
        for connection, event, _ in heard:
            self._give(connection, self._hand_over, event)

    def _give(self, connection: Connection, take: Callable[..., bool | None], *of: Any) -> bool | None:
        """Whatever a frame makes go wrong here ends with its own connection: others' frames are judged all the same."""
        try:
            return take(connection, *of)
        except LogError:  # this node's own trouble: what cannot be put on the record is not judged
            raise
        except Exception:
            logger.exception("a frame was more than this node could judge; its connection is dropped")
            connection.drop()
            return None

    def _hand_over(self, connection: Connection, event: Event) -> None:
        self._deliver(event)

    def _look_around(self) -> None:
        """Once a second: how many keys spoke in the last one."""
        second = self._clock.mono() // SECOND
        if second != self._second:
            self._second = second
            self._crowd = len(self._speaking) > 1
            self._speaking.clear()

    def _admit(self, connection: Connection, frame: bytes, parts: Parts, accepted: list[_Accepted]) -> None:
        account = self._account(connection)
        if not account.looking and not account.held:
            self._open(connection, account, frame, parts, accepted, looked=0)
        elif len(account.held) < HELD and account.held_bytes + len(frame) <= HELD_BYTES:
            account.held.append(frame)
            account.held_bytes += len(frame)
            if not account.looking:
                self._give_turns(connection, account)
        else:
            connection.drop()

    def _give_turns(self, connection: Connection, account: Account) -> None:
        """Frames that were held go before what came after them, and otherwise wait like any other."""
        without = list(account.held)[account.turns :]
        account.turns += len(without)
        turns: list[tuple[int, _Item]] = [(len(frame), (connection, b"", self._admit_held)) for frame in without]
        self._turns.push_first(connection.peer or connection.id, turns)
        self._schedule()

    def _admit_held(self, connection: Connection, _: bytes) -> None:
        """The turn of the first frame that is held; while it is looked up for another, there will be another turn."""
        account = self._account(connection)
        account.turns -= 1
        if account.held and not account.looking:
            frame = account.held.popleft()
            account.held_bytes -= len(frame)
            accepted: list[_Accepted] = []
            self._open(connection, account, frame, cut(frame), accepted, looked=0)
            self._finish(accepted)

    def _open(
        self, connection: Connection, account: Account, frame: bytes, parts: Parts, accepted: list[_Accepted], *,
        looked: int,
    ) -> None:  # fmt: skip
        now = self._clock.now()
        if account.over:  # (1)
            self._recorder.rejected(frame, connection=connection.peer, code="backpressure.connection", now=now)
            return
        try:
            event = self._engine.receive(
                parts, route=connection, peer=connection.peer, trust=self._source.trust, policy=self.policy, now=now,
                mono=self._clock.mono(), age=self._source.age(),
            )  # fmt: skip
        except NeedsTrust as needs:
            self._finish(accepted)  # the record is in the order in which they came
            if looked < LOOK_UPS and account.may_look(now):
                account.looking = True
                self._spawn(self._look_up(connection, account, frame, parts, needs, looked))
            else:
                self._recorder.rejected(frame, connection=connection.peer, code="reject.sender_key", now=now)
                self.charge(connection)
            return
        if isinstance(event, Refused):
            self._finish(accepted)
            self._refused(connection, frame, event, now)
        else:
            accepted.append((connection, event, now))

    def _note(self, connection: Connection, event: Good, now: int) -> bool:
        """Put an accepted message on the record, with what it tells beside; whether it is to be delivered."""
        message = event.permitted.message if isinstance(event, Asked) else event.message
        if message is None:
            return True
        header = message.header
        if header.directory_size > self._source.trust.size:
            self._source.hint()  # a hint and no more: it never makes a message good or bad
        self.named(connection, header.directory_size)
        other = None if connection.dialled else self._sightings.heard(header.sender_key, connection, header.seq)
        code = "ok" if other is None else "reject.key_twice"
        self._record(connection, message.envelope, header.sender_key, code, now)
        if other is not None:
            self._alarm(header, connection, other)
            return False
        if message.envelope.note:
            self._witness(connection, message)
        return True

    def _alarm(self, header: Header, *places: Connection) -> None:
        """A key in two hands: neither is heard here any more."""
        who = f"{header.sender}#{header.sender_instance.hex()}"
        _alarms.warning("reject.key_twice: the key of %s speaks on two connections at once; revoke the instance", who)
        for connection in places:
            connection.drop()

    async def _look_up(
        self, connection: Connection, account: Account, frame: bytes, parts: Parts, needs: NeedsTrust, looked: int
    ) -> None:
        """The one wait before verification: bounded in time, and the frames behind it keep their order."""
        try:
            with suppress(AgentBusError):
                await self._source.find(keys=needs.keys)
        finally:
            account.looking = False
            if not self.closed:
                self._give(connection, self._open_again, account, frame, parts, looked + 1)
                if not account.looking:
                    self._give_turns(connection, account)

    def _open_again(self, connection: Connection, account: Account, frame: bytes, parts: Parts, looked: int) -> None:
        accepted: list[_Accepted] = []
        self._open(connection, account, frame, parts, accepted, looked=looked)
        self._finish(accepted)

    def _refused(self, connection: Connection, frame: bytes, event: Refused, now: int) -> None:
        code = event.error.code
        if event.header is None:
            self._recorder.rejected(frame, connection=connection.peer, code=code, now=now)
            if code == "reject.replayed" and self._repeated(connection, frame):
                return
            self.charge(connection, LATE if code in ("reject.expired", "reject.recipient") else 1.0)
            return
        if code in FORGERIES:
            self.charge(connection)
        envelope = decode_frame(frame, LIMITS)
        size = len(frame) - len(envelope.body)
        ours = code.startswith("unavailable.")  # this node's own trouble, and no fault of who asked
        self._record(connection, envelope, event.header.sender_key, code, now)  # whatever verified is on the record
        if not ours and not self._refusals.charge(connection.peer or connection.id, size, self._clock.mono()):
            self._account(connection).over = True
            connection.drop()
            return
        event.error.details.setdefault("by", event.header.recipient)
        body = problems.encode(event.error)
        self._engine.refuse(event, action=event.header.action, body=body, now=now, trust=self._source.trust)
        self._wake()

    def _record(self, connection: Connection, envelope: Envelope, sender_key: bytes, code: str, now: int) -> None:
        """(15) What was judged goes on the record before the loop's next step acts on it."""
        if not self._recorder.pending:
            asyncio.get_running_loop().call_soon(self._recorder.flush_soon)
        self._recorder.received(
            envelope, sender_key, connection=connection.peer, code=code, trust=self._source.trust,
            policy=self.policy.version, now=now,
        )  # fmt: skip
