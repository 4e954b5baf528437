"""Where a handler's nondeterministic results come from: live they are taken and put on the record.

A replay puts another tape in this one's place, which plays the record back. Nothing else differs: the handler, its
context and the service that runs it are the same.

Rule 1: what a handler is given is what the record gives back: a result is read from its recorded form even live.
Rule 2: an entry waits for the flush that precedes every frame, so whatever depends on it stands behind it in the log.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from agentbus.delegation.chain import Authority
from agentbus.errors import AgentBusError, ProgrammingError
from agentbus.log.entry import Outcome, StepKind
from agentbus.protocol.events import Answered
from agentbus.protocol.exchange import Exchange
from agentbus.runtime.clock import Clock
from agentbus.runtime.faults import encode_fault
from agentbus.runtime.record import Recorder
from agentbus.wire.header import Header, Kind

CODES: Final = {
    "usage.step": "A step has a name of 1 to 128 characters, a result of the type it names, and JSON for `given`.",
}

T = TypeVar("T")


class Seen(Protocol):
    """What a handler is shown of the message it handles."""

    @property
    def header(self) -> Header: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def authority(self) -> Authority: ...
    @property
    def handover(self) -> Authority | None: ...


class Waiting(Protocol):
    """Who waits for what answers a message."""

    def answered(self, event: Answered) -> None: ...
    def failed(self, error: AgentBusError) -> None: ...


class Question(NamedTuple):
    """A message that a handler sends."""

    kind: Kind
    to: str  # as it was written
    action: str
    body: bytes
    ack: str

    @property
    def digest(self) -> bytes:
        """What names it where it was never sent, and so has no message digest."""
        return hashlib.sha256(f"{int(self.kind)} {self.to}\n".encode() + self.body).digest()


Send = Callable[[Waiting], Awaitable[Exchange]]
"""Really sends the question, for whoever waits."""


class Tape(Protocol):
    """The results that one handler takes, in the order it takes them."""

    def seen(self, message: Seen) -> Seen:
        """What the handler is shown of its message."""
        ...

    def now(self) -> int:
        """The time, in microseconds."""
        ...

    def seed(self, make: Callable[[], bytes]) -> bytes:
        """The seed of the handler's randomness."""
        ...

    def require(self, scope: str, facts: Any, judge: Callable[[], None]) -> None:
        """Return, or raise, as ``judge`` does."""
        ...

    def delegated(self, given: Any, make: Callable[[], Authority]) -> Authority:
        """The authority that ``make`` makes."""
        ...

    async def call(self, name: str, call: Callable[[], Awaitable[T]], of: TypeAdapter[T], given: Any) -> T:
        """The result of ``call``."""
        ...

    def items(
        self, name: str, call: Callable[[], AsyncIterator[T]], of: TypeAdapter[T], given: Any
    ) -> AsyncIterator[T]:
        """The items that ``call`` yields."""
        ...

    async def ask(self, question: Question, waiter: Waiting, send: Send) -> Exchange:
        """Open the exchange of a message of the handler's own; ``waiter`` hears what comes of it."""
        ...

    def started(self) -> None:
        """The handler had waited for a place, and begins."""
        ...

    def ended(self, why: str, outcome: Outcome) -> None:
        """The handler ended, and no frame says so."""
        ...


def argument_digest(given: Any) -> bytes | None:
    """The digest of what a step depends on; None for None.

    Raises:
        ProgrammingError: ``usage.step``.
    """
    if given is None:
        return None
    try:
        return hashlib.sha256(to_json(given)).digest()
    except PydanticSerializationError as error:
        raise ProgrammingError("usage.step", f"given={type(given).__name__}: {error}") from error


class _Noted:
    """Passes an answer on; ``digest`` is the message's, once it is known."""

    __slots__ = ("_lost", "_waiter", "digest")

    def __init__(self, waiter: Waiting, lost: Callable[[bytes, AgentBusError], None]) -> None:
        self._waiter, self._lost = waiter, lost
        self.digest: bytes | None = None

    def answered(self, event: Answered) -> None:
        self._waiter.answered(event)

    def failed(self, error: AgentBusError) -> None:
        """No frame says so, so the record does."""
        if self.digest is not None:
            self._lost(self.digest, error)
        self._waiter.failed(error)


class Recording:
    """The live :class:`Tape`.

    Args:
        recorder: The node's hand on its log.
        digest: Of the message that is handled.
        clock: The node's.
    """

    __slots__ = ("_clock", "_counts", "_digest", "_recorder")

    def __init__(self, recorder: Recorder, digest: bytes, clock: Clock) -> None:
        self._recorder, self._digest, self._clock = recorder, digest, clock
        self._counts: dict[tuple[StepKind, str], int] = {}

    def seen(self, message: Seen) -> Seen:
        return message

    def now(self) -> int:
        now = self._clock.now()
        self._write(StepKind.NOW, "now", now=now)
        return now

    def seed(self, make: Callable[[], bytes]) -> bytes:
        seed = make()
        self._write(StepKind.SEED, "random", result=seed)
        return seed

    def require(self, scope: str, facts: Any, judge: Callable[[], None]) -> None:
        given = argument_digest(facts or None)
        try:
            judge()
        except AgentBusError as error:
            self._fault(StepKind.REQUIRE, scope, error, given=given)
            raise
        self._write(StepKind.REQUIRE, scope, given=given)

    def delegated(self, given: Any, make: Callable[[], Authority]) -> Authority:
        digest = argument_digest(given)
        try:
            made = make()
        except AgentBusError as error:
            self._fault(StepKind.DELEGATE, "delegate", error, given=digest)
            raise
        self._write(StepKind.DELEGATE, "delegate", given=digest, result=made.to_bytes())
        return made

    async def call(self, name: str, call: Callable[[], Awaitable[T]], of: TypeAdapter[T], given: Any) -> T:
        digest, began = argument_digest(given), self._clock.now()
        number = self._count(StepKind.CALL, check_name(name))
        try:
            recorded, value = recorded_form(name, of, await call())
        except BaseException as error:
            self._fault(StepKind.CALL, name, error, given=digest, number=number, began=began)
            raise
        self._write(StepKind.CALL, name, given=digest, number=number, began=began, result=recorded)
        return value

    async def items(
        self, name: str, call: Callable[[], AsyncIterator[T]], of: TypeAdapter[T], given: Any
    ) -> AsyncIterator[T]:
        digest = argument_digest(given)
        number = self._count(StepKind.ITEM, check_name(name))
        source = call()
        try:
            while True:
                began = self._clock.now()
                try:
                    recorded, value = recorded_form(name, of, await anext(source))
                except StopAsyncIteration:
                    outcome = Outcome.EXHAUSTED
                    self._write(StepKind.ITEM, name, given=digest, number=number, began=began, outcome=outcome)
                    return
                except BaseException as error:
                    self._fault(StepKind.ITEM, name, error, given=digest, number=number, began=began)
                    raise
                self._write(StepKind.ITEM, name, given=digest, number=number, began=began, result=recorded)
                yield value
        finally:
            await close_source(source)

    async def ask(self, question: Question, waiter: Waiting, send: Send) -> Exchange:
        noted = _Noted(waiter, self._lost)
        try:
            exchange = await send(noted)
        except AgentBusError as error:
            self._fault(StepKind.UNASKED, question.action, error, given=question.digest)
            raise
        noted.digest = exchange.digest
        return exchange

    def _lost(self, digest: bytes, error: AgentBusError) -> None:
        self._fault(StepKind.LOST, "lost", error, given=digest)

    def started(self) -> None:
        self._write(StepKind.START, "start")

    def ended(self, why: str, outcome: Outcome) -> None:
        self._write(StepKind.END, why, outcome=outcome)

    def _count(self, step: StepKind, name: str) -> int:
        number = self._counts[step, name] = self._counts.get((step, name), 0) + 1
        return number

    def _fault(self, step: StepKind, name: str, error: BaseException, **parts: Any) -> None:
        if isinstance(error, Exception):
            self._write(step, name, outcome=Outcome.ERROR, result=encode_fault(error), **parts)
        else:  # cancelled, or the process is ending
            self._write(step, name, outcome=Outcome.CANCELLED, **parts)

    def _write(
        self,
        step: StepKind,
        name: str,
        *,
        given: bytes | None = None,
        number: int | None = None,
        began: int | None = None,
        now: int | None = None,
        outcome: Outcome = Outcome.RESULT,
        result: bytes | None = None,
    ) -> None:
        now = self._clock.now() if now is None else now
        if not self._recorder.pending:
            asyncio.get_running_loop().call_soon(self._recorder.flush_soon)
        self._recorder.step(
            self._digest, step, name, given=given, number=number or self._count(step, name),
            began=now if began is None else began, now=now, outcome=outcome, result=result,
        )  # fmt: skip


async def close_source(source: AsyncIterator[Any]) -> None:
    """End what a handler left early, where it can be ended: it may hold a connection."""
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()


def check_name(name: str) -> str:
    """A step's name.

    Raises:
        ProgrammingError: ``usage.step``.
    """
    if not isinstance(name, str) or not 0 < len(name) <= 128:
        raise ProgrammingError("usage.step", f"{name!r} is no name of a step: 1 to 128 characters")
    return name


def recorded_form(name: str, of: TypeAdapter[T], value: Any) -> tuple[bytes, T]:
    """A result as it stands on the record, and as it is read from there."""
    try:
        recorded = of.dump_json(of.validate_python(value))
        return recorded, of.validate_json(recorded)
    except (ValidationError, PydanticSerializationError) as error:
        raise ProgrammingError("usage.step", f"step {name!r} gave something else than the type it names") from error
