"""The tape of a replay: what was recorded goes in, and what the handler does otherwise is noted.

Rule 1: nothing is called, sent or invented. What the record does not have is a divergence, and stops the handler where
it asked for it.
Rule 2: the k-th result of a name is the k-th recorded; a message that the handler sends is the one with the same bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from agentbus.delegation.chain import Authority
from agentbus.delegation.messages import VerifiedMessage
from agentbus.errors import AgentBusError, HandlerFailed, ProgrammingError
from agentbus.log.entry import Outcome, Step, StepKind
from agentbus.log.replay import Asked, Frame, Recorded
from agentbus.protocol.engine import WINDOW
from agentbus.protocol.events import Answered
from agentbus.protocol.exchange import MOVES, Exchange
from agentbus.protocol.opening import Party
from agentbus.replay.compare import excerpt
from agentbus.replay.order import Order
from agentbus.replay.report import Divergence
from agentbus.runtime.faults import decode_fault
from agentbus.runtime.tape import Question, Seen, Send, Waiting, argument_digest
from agentbus.wire.header import Header, Kind
from agentbus.wire.ids import PrincipalId, name_id

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the handler was shown of its message."""

    header: Header
    digest: bytes
    authority: Authority
    handover: Authority | None


@dataclass(frozen=True, slots=True)
class _Heard:
    """What is read of an answer: it was verified with its log, and stands for a verified message."""

    header: Header
    body: bytes


class Player:
    """One recorded message as a :class:`~agentbus.runtime.tape.Tape`.

    Args:
        recorded: The message and what its handler took.
        facts: What it is shown.
        box: The content of a box of the log; every one that ``recorded`` names is there.
        strict: Whether what was recorded and is not asked for any more is a divergence, too.
        interrupt: Stops the handler.
    """

    def __init__(
        self,
        recorded: Recorded,
        facts: Facts,
        box: Callable[[bytes], bytes],
        *,
        strict: bool,
        interrupt: Callable[[], None],
        asap: bool = False,
    ) -> None:
        self.recorded, self._facts, self._box = recorded, facts, box
        self._strict, self._interrupt = strict, interrupt
        self.divergences: list[Divergence] = []
        self.left: Divergence | None = None  # what was taken then, and not asked for now
        self.stopped = False
        self.end: tuple[str, Outcome] | None = None
        self._yielded = 0
        self._items = sum(answer.kind is Kind.ITEM for answer in recorded.answers)
        self._due_to_stop = False
        self._steps: dict[tuple[int, str], list[Step]] = {}
        self._taken: Counter[tuple[int, str]] = Counter()
        for step in recorded.steps:
            self._steps.setdefault((step.step, step.name), []).append(step)
        self._asked = list(recorded.asked)
        self._open: dict[bytes, tuple[Asked, Exchange]] = {}
        self._now = recorded.frame.instant
        self._order = Order(self._positions(), asap=asap)

    def _positions(self) -> list[int]:
        """Of everything that is handed over in its turn."""
        found = [s.position for steps in self._steps.values() for s in steps if _delivered(s)]
        for asked in self.recorded.asked:
            found += [answer.position for answer in asked.answers]
            found += [asked.lost.position] if asked.lost is not None else []
        if self.recorded.interrupted and self.recorded.ended is not None:
            found.append(self.recorded.ended.position)
        return found

    # ── the tape ─────────────────────────────────────────────────────────────────────────────────────────────────

    def seen(self, message: Seen) -> Seen:
        ended = self.recorded.ended
        if self.recorded.interrupted and ended is not None:
            self._order.ask(ended.position, ended.instant - self.recorded.frame.instant, self._stop_in_turn)
        return self._facts

    def now(self) -> int:
        step = self._take(StepKind.NOW, "now", None)
        if step is not None:
            self._now = step.instant
        elif self._strict:
            self._beyond("ctx.now()", "another time")
        return self._now

    def seed(self, make: Callable[[], bytes]) -> bytes:
        step = self._take(StepKind.SEED, "random", None)
        if step is not None:
            return self._result(step)
        if self._strict:
            self._beyond("ctx.random()", "another seed")
        return hashlib.sha256(b"replay" + self.recorded.digest).digest()[:16]

    def require(self, scope: str, facts: Any, judge: Callable[[], None]) -> None:
        step = self._take(StepKind.REQUIRE, scope, argument_digest(facts or None), facts)
        if step is None:
            if self._strict:
                self._beyond(f"ctx.require({scope!r})", "another judgement")
            judge()
        elif step.outcome == Outcome.ERROR:
            raise decode_fault(self._result(step))

    def delegated(self, given: Any, make: Callable[[], Authority]) -> Authority:
        step = self._take(StepKind.DELEGATE, "delegate", argument_digest(given), given)
        if step is None:
            self._beyond("ctx.delegate()", excerpt(to_json(given)))
            return make()
        if step.outcome == Outcome.ERROR:
            raise decode_fault(self._result(step))
        return Authority.from_bytes(self._result(step))

    async def call(self, name: str, call: Callable[[], Awaitable[T]], of: TypeAdapter[T], given: Any) -> T:
        step = self._take(StepKind.CALL, name, argument_digest(given), given)
        if step is None:
            await self._never(f"step {name!r}", "one more call of it")
        return self._value(step, await self._due(step), of)

    async def items(
        self, name: str, call: Callable[[], AsyncIterator[T]], of: TypeAdapter[T], given: Any
    ) -> AsyncIterator[T]:
        digest, number = argument_digest(given), self._count(StepKind.ITEM, name)
        while True:
            step = self._find(StepKind.ITEM, name, number)
            if step is None:
                await self._never(f"steps {name!r}", "one more item of it")
            self._check_given(step, digest, given)
            data = await self._due(step)
            if step.outcome == Outcome.EXHAUSTED:
                return
            yield self._value(step, data, of)

    def started(self) -> None:
        return None

    def ended(self, why: str, outcome: Outcome) -> None:
        self.end = (why, outcome)

    # ── messages of the handler's ────────────────────────────────────────────────────────────────────────────────

    async def ask(self, question: Question, waiter: Waiting, send: Send) -> Exchange:
        """Answer a message of the handler's from the record. It is not sent."""
        asked, ack = self._match(question), question.ack
        failed = self._peek(StepKind.UNASKED, question.action, question.digest)
        if failed is not None and (asked is None or failed.position < asked.frame.position):
            self._steps[StepKind.UNASKED, question.action].remove(failed)
            raise decode_fault(self._result(failed))
        if asked is None:
            await self._unmatched(question)
        self._asked.remove(asked)
        header = asked.frame.header
        party = Party(header.recipient, header.recipient_instance or b"", header.sender_instance)
        exchange = Exchange(
            asked.digest,
            "caller",
            question.kind,
            party,
            header.deadline,
            header.deadline,  # no clock ends it: what comes of it is on the record
            header.conversation,
            None,
            ack=ack,
            allowed=WINDOW,
        )
        self._open[asked.digest] = (asked, exchange)
        for answer in asked.answers:
            self._expect(answer, asked, exchange, waiter)
        if asked.lost is not None:
            lost = asked.lost
            latency = lost.instant - asked.frame.instant
            self._order.ask(lost.position, latency, lambda: self._fail(lost, exchange, waiter))
        return exchange

    def knows(self, exchange: Exchange) -> bool:
        """Whether an exchange is one that :meth:`ask` made."""
        return exchange.digest in self._open

    def cancelled(self, exchange: Exchange) -> None:
        """The handler waits for no answer to this any more."""
        asked, _ = self._open[exchange.digest]
        self._order.drop(answer.position for answer in asked.answers)

    def _match(self, question: Question) -> Asked | None:
        """The recorded message of the same kind, type and bytes to the same agent."""
        return next((a for a in self._alike(question) if self._body(a.frame) == question.body), None)

    def _alike(self, question: Question) -> list[Asked]:
        """Those of the same kind and type to the same agent, not asked for yet."""
        with suppress(AgentBusError):
            domain = PrincipalId(self.recorded.frame.header.recipient).domain
            wanted = (question.kind, name_id(question.to, domain), question.action)
            headers = ((asked, asked.frame.header) for asked in self._asked)
            return [asked for asked, h in headers if (h.kind, h.recipient, h.action) == wanted]
        return []  # to no name at all

    async def _unmatched(self, question: Question) -> NoReturn:
        alike = self._alike(question)
        what = f"{question.kind.name.lower()} {question.action} to {question.to}"
        if alike:
            self._diverge(Divergence(what, excerpt(self._body(alike[0].frame)), excerpt(question.body)))
        await self._never(what, excerpt(question.body))

    def _expect(self, answer: Frame, asked: Asked, exchange: Exchange, waiter: Waiting) -> None:
        def deliver() -> None:
            kind = answer.kind
            final = kind is Kind.RECEIPT and answer.header.action == exchange.ack
            exchange.move("final receipt" if final else MOVES[kind])
            heard = cast(VerifiedMessage, _Heard(answer.header, self._body(answer)))
            waiter.answered(Answered(exchange, heard, exchange.done))

        self._order.ask(answer.position, answer.instant - asked.frame.instant, deliver)

    def _fail(self, lost: Step, exchange: Exchange, waiter: Waiting) -> None:
        exchange.move("lose")
        error = decode_fault(self._result(lost))
        unread = HandlerFailed("handler.failed", f"failed then by {type(error).__name__}")
        waiter.failed(error if isinstance(error, AgentBusError) else unread)

    # ── what the handler gave ────────────────────────────────────────────────────────────────────────────────────

    def may_yield(self) -> bool:
        """Whether a further item may be sent: not beyond the place where the handler was stopped then."""
        self._yielded += 1
        if self._due_to_stop:
            asyncio.get_running_loop().call_soon(self._stop_in_turn)
        return not (self.recorded.interrupted and self._yielded > self._items)

    def _stop_in_turn(self) -> None:
        """The handler was stopped here, once it had yielded so many items."""
        self._due_to_stop = True
        if self._yielded >= self._items:
            self._stop()

    def refused(self, what: str) -> None:
        """The handler wanted to leave this process, which no handler did that takes everything through its context."""
        self._diverge(Divergence("egress", None, what))

    def close(self) -> None:
        """The handler is over: note what it took then and did not ask for now."""
        self._order.close()
        if self.divergences or self.stopped or self.recorded.interrupted:
            return
        left: list[tuple[int, str]] = [(a.frame.position, self._described(a)) for a in self._asked]
        if self._strict:
            left += [(s.position, _named(s)) for steps in self._steps.values() for s in steps]
        if left:
            self.left = Divergence(min(left)[1], "that it is asked for", None)

    def _described(self, asked: Asked) -> str:
        header = asked.frame.header
        return f"{Kind(header.kind).name.lower()} {header.action} to {PrincipalId(header.recipient).short}"

    # ── below ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, kind: StepKind, name: str, digest: bytes | None, given: Any = None) -> Step | None:
        """The recorded result of the next call of this kind and name."""
        step = self._find(kind, name, self._count(kind, name))
        if step is not None:
            self._check_given(step, digest, given)
        return step

    def _count(self, kind: StepKind, name: str) -> int:
        self._taken[kind, name] += 1
        return self._taken[kind, name]

    def _find(self, kind: StepKind, name: str, number: int) -> Step | None:
        """Calls are numbered as they begin, and stand in the log as they end."""
        steps = self._steps.get((kind, name), [])
        step = next((step for step in steps if step.number == number), None)
        if step is not None:
            steps.remove(step)
        return step

    def _peek(self, kind: StepKind, name: str, given: bytes) -> Step | None:
        return next((step for step in self._steps.get((kind, name), ()) if step.given == given), None)

    def _check_given(self, step: Step, digest: bytes | None, given: Any) -> None:
        if step.given != digest:
            then = "nothing" if step.given is None else f"a value of digest {step.given.hex()[:16]}"
            now = "nothing" if digest is None else excerpt(to_json(given))
            self._diverge(Divergence(f"{_named(step)}, what it is given", then, now))

    async def _due(self, step: Step) -> bytes:
        """The recorded result, when its turn comes; never, where the handler was stopped meanwhile."""
        turn = asyncio.Event()
        if _delivered(step):
            self._order.ask(step.position, step.instant - step.began, turn.set)
        await turn.wait()
        if step.outcome == Outcome.ERROR:
            raise decode_fault(self._result(step))
        return self._result(step) if step.result is not None else b""

    def _value(self, step: Step, data: bytes, of: TypeAdapter[T]) -> T:
        try:
            return of.validate_json(data)
        except ValidationError as error:
            self._diverge(Divergence(f"{_named(step)}, its type", excerpt(data), "a type that this does not fit"))
            raise ProgrammingError("usage.step", f"the recorded result of {step.name!r} is of another type") from error

    def _result(self, step: Step) -> bytes:
        assert step.result is not None
        return self._box(step.result)

    def _body(self, frame: Frame) -> bytes:
        assert frame.body is not None
        return self._box(frame.body)[32:]

    def _diverge(self, divergence: Divergence) -> None:
        self.divergences.append(divergence)

    def _beyond(self, what: str, got: str) -> None:
        """The record has no more of this: the handler was stopped before, or does something else now."""
        if not (self.recorded.interrupted and self._exhausted()):
            self._diverge(Divergence(what, None, got))
        self._stop()

    def _exhausted(self) -> bool:
        return not self._asked and not any(self._steps.values())

    async def _never(self, what: str, got: str) -> NoReturn:
        self._beyond(what, got)
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a future that nobody sets was set")

    def _stop(self) -> None:
        self.stopped = True
        self._interrupt()


def _delivered(step: Step) -> bool:
    return step.step in (StepKind.CALL, StepKind.ITEM) and step.outcome != Outcome.CANCELLED


def _named(step: Step) -> str:
    kind = StepKind(step.step)
    names = {
        StepKind.CALL: "step",
        StepKind.ITEM: "steps",
        StepKind.REQUIRE: "ctx.require",
        StepKind.UNASKED: "message",
    }
    return f"{names.get(kind, 'ctx.' + kind.name.lower())} {step.name!r} ({step.number})"
