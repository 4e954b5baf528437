"""Running an agent's handlers: each in a task of its own as soon as it waits, under its request's deadline, with a
context that narrows.

Step 16: whether the chain still holds is looked at once more right before a handler starts, at each item of a stream,
and whenever the directory's log grows while a handler runs.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Final

from agentbus.delegation.chain import verify_chain
from agentbus.delegation.decide import Policy, Rule, decide, no_handler
from agentbus.delegation.messages import Permitted
from agentbus.delegation.trust import NeedsTrust
from agentbus.errors import AgentBusError, Cancelled, HandlerFailed, HandlerMissing, Rejected, ReplyInvalid
from agentbus.log.entry import Outcome
from agentbus.protocol.events import Asked, Ended, Steered
from agentbus.protocol.exchange import Exchange
from agentbus.runtime import problems
from agentbus.runtime.agent import Agent, Handler
from agentbus.runtime.alarms import Alarm
from agentbus.runtime.caller import _Plain
from agentbus.runtime.context import Context, _current
from agentbus.runtime.eager import Row
from agentbus.runtime.message import decode_request, encode_answer
from agentbus.runtime.node import Node
from agentbus.runtime.redaction import BUILT_IN
from agentbus.runtime.slots import Slots
from agentbus.runtime.voices import Voice
from agentbus.wire.header import Kind

CODES: Final = {
    "handler.failed": "The handler raised something that is no Problem; the agent's own log has the traceback.",
    "cancelled": "The caller cancelled, or the agent stopped.",
}


@dataclass(eq=False, slots=True)
class _Running:
    permitted: Permitted
    exchange: Exchange
    task: asyncio.Task[Any] | None = None  # from when it began
    credit: asyncio.Event | None = None  # of a stream
    verdict: AgentBusError | None = None
    alarm: Alarm | None = None
    why: str = ""  # how its handler ended
    told: bool = False  # a frame says so

    @property
    def outcome(self) -> Outcome:
        """Returned, raised, or stopped by something else than itself."""
        if self.verdict is not None or not self.why:
            return Outcome.CANCELLED
        return Outcome.RESULT if self.why == "returned" else Outcome.ERROR


class Service:
    """One agent's handlers, served by one voice of a node."""

    def __init__(self, agent: Agent[Any], node: Node, voice: Voice) -> None:
        self.agent, self.node, self.voice = agent, node, voice
        self._running: dict[bytes, _Running] = {}
        self._row: Row[_Running] = Row(self._run, node.spawn)
        self.handlers = {**agent.handlers, **BUILT_IN}
        self._slots = {action: Slots(h.concurrency) for action, h in self.handlers.items()}
        self._stack = AsyncExitStack()
        self._state: Any = None
        self._draining = False

    @property
    def erasure(self) -> str:
        """Who may have bodies erased that this agent sent or received."""
        return self.agent.erasure

    async def open(self) -> None:
        """Enter the agent's lifespan, then take requests."""
        if self.agent.lifespan is not None:
            self._state = await self._stack.enter_async_context(self.agent.lifespan(_Plain(self.node, self.voice)))
        self.voice.handlers = self

    async def aclose(self, drain: float = 0.0) -> None:
        """Take nothing new, give what runs ``drain`` seconds, cancel the rest, leave the lifespan."""
        self._draining = True
        async with AsyncExitStack() as rest:  # from the last to the first, whatever goes wrong meanwhile
            rest.callback(self._take_nothing)
            rest.push_async_callback(self._stack.aclose)
            rest.push_async_callback(self._cancel_all)
            for _ in range(len(self._row) + 1 if drain > 0 else 0):
                await asyncio.sleep(0)  # in each step at least one of those that were accepted begins
            tasks = {running.task for running in self._running.values() if running.task is not None}
            if tasks and drain > 0:
                await asyncio.wait(tasks, timeout=drain)

    async def _cancel_all(self) -> None:
        tasks = {running.task for running in self._running.values() if running.task is not None}
        for running in list(self._running.values()):
            running.verdict = Cancelled("cancelled", f"{self.agent.name} is stopping", retryable=True)
            self._stop(running)
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # whoever was waiting is told, before there is nobody here who could sign it

    def _take_nothing(self) -> None:
        self.voice.handlers = None  # last: until then whoever asks is told that this agent is stopping

    # ── what the node tells ──────────────────────────────────────────────────────────────────────────────────────

    def start(self, asked: Asked) -> None:
        """A permitted message: run its handler."""
        exchange = asked.exchange
        if self._draining:
            self._fail(exchange, Cancelled("cancelled", f"{self.agent.name} is stopping; ask again", retryable=True))
            return
        running = self._running[exchange.digest] = _Running(asked.permitted, exchange)
        self._row.add(running)

    def _stop(self, running: _Running) -> None:
        """Cancel its handler; one that has not begun does not begin."""
        if running.task is not None:
            running.task.cancel()
        else:
            self._row.remove(running)
            self._finished(running)

    def _finished(self, running: _Running) -> None:
        """However its handler ended, even before it began: nobody is left without an answer, and nothing is kept."""
        self._running.pop(running.exchange.digest, None)
        if running.alarm is not None:
            self.node.alarms.call_off(running.alarm)
        if not running.told:
            why = running.verdict.code if running.verdict else running.why
            self.node.tape(running.exchange.digest).ended(why or running.exchange.state, running.outcome)
        if not running.exchange.done:
            stopped = HandlerFailed("handler.failed", f"{self.voice.identity.id.short} stopped before it answered")
            self._fail(running.exchange, running.verdict or stopped)

    def steered(self, event: Steered) -> None:
        """The caller cancelled or gave credit."""
        running = self._running.get(event.exchange.digest)
        if running is None:
            return
        if event.message.header.kind == Kind.CANCEL:
            self._stop(running)
        elif running.credit is not None:
            running.credit.set()

    def ended(self, event: Ended) -> None:
        """The deadline passed, or the caller is gone: nobody waits for the rest."""
        running = self._running.get(event.exchange.digest)
        if running is not None:
            self._stop(running)

    def task_of(self, digest: bytes) -> asyncio.Task[Any] | None:
        """The task in which the handler of a message runs, while it does."""
        running = self._running.get(digest)
        return running.task if running is not None else None

    def recheck(self) -> None:
        """The directory's log grew: a handler whose chain no longer holds is stopped, and its caller told why."""
        for running in list(self._running.values()):
            try:
                self._still_holds(running.permitted)
            except AgentBusError as error:
                running.verdict = error
                self._stop(running)

    # ── one message ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self, running: _Running, task: asyncio.Task[Any]) -> None:
        running.task = task
        try:
            await self._handle(running)
        finally:
            self._finished(running)

    async def _handle(self, running: _Running) -> None:
        permitted, exchange = running.permitted, running.exchange
        header = permitted.message.header
        try:
            handler = self._handler(header.action, exchange.kind)
            if exchange.ack == "sent":
                self.node.conclude(exchange)  # its sender waits for nothing
            elif exchange.kind is Kind.SEND:
                self._receipt(exchange, "delivered")
            if exchange.done:  # its deadline still counts, though nobody waits
                running.alarm = self.node.alarm(exchange.until, partial(self._stop, running))
            slots = self._slots[header.action]
            if not slots.take():
                await slots.wait(header.sender)
                self.node.tape(exchange.digest).started()  # else it starts where it was received
            try:
                request = decode_request(handler.model, permitted.message.body)
                self._hold(running)
                context: Context[Any] = Context(self.node, self.voice, permitted, exchange, self._state)
                token = _current.set(context)
                try:
                    running.told = await self._call(handler, request, context, running)
                    running.why = "returned"
                finally:
                    _current.reset(token)
            finally:
                slots.give()
        except asyncio.CancelledError:
            pass  # _finished tells the caller why, where it still waits
        except AgentBusError as error:
            running.told, running.why = self._fail(exchange, error) and not running.verdict, error.code
        except Exception:
            logger = self.voice.identity.id
            Context(self.node, self.voice, permitted, exchange, None).logger.exception(
                "%s: the handler of %s raised", logger.short, header.action
            )
            failed = HandlerFailed("handler.failed", f"{logger.short} failed on {header.action}")
            running.told, running.why = self._fail(exchange, failed), failed.code

    async def _call(self, handler: Handler, request: Any, context: Any, running: _Running) -> bool:
        """Whether a frame says that the handler ended."""
        exchange, action = running.exchange, running.permitted.message.header.action
        if handler.streams:
            return await self._stream(handler, request, context, running)
        result = await handler.function(request, context)
        if exchange.kind is Kind.REQUEST:
            body = self._encoded(handler, result, context, action)
            return self.node.answer(Kind.REPLY, self.voice, exchange, action=action, body=body)
        told = self._receipt(exchange, "handled")
        if exchange.ack == "checkpointed":
            await asyncio.to_thread(self.node.recorder.log.checkpoint)
            self._receipt(exchange, "checkpointed")
        return told

    async def _stream(self, handler: Handler, request: Any, context: Any, running: _Running) -> bool:
        exchange, action = running.exchange, running.permitted.message.header.action
        credit = running.credit = asyncio.Event()
        items = handler.function(request, context)
        try:
            async for item in items:
                self._hold(running)  # at every item
                body = self._encoded(handler, item, context, action)
                while exchange.next_index >= exchange.allowed:
                    credit.clear()
                    await credit.wait()
                index = exchange.next_index
                if not self.node.answer(Kind.ITEM, self.voice, exchange, action=action, body=body, stream_index=index):
                    return False
                await asyncio.sleep(0)  # an item may leave before the next is made
            count = exchange.next_index
            return self.node.answer(Kind.END, self.voice, exchange, action=action, body=b"", stream_index=count)
        finally:
            await items.aclose()

    def _encoded(self, handler: Handler, value: Any, context: Any, action: str) -> bytes:
        """A reply or item; its author hears where it is served that it is not what was declared."""
        try:
            return encode_answer(handler.answer, value)
        except ReplyInvalid as error:
            text = f"{self.voice.identity.id.short}, asked for {action}: {error.message}"
            context.logger.error("%s", text)
            raise ReplyInvalid("reply.invalid", text) from error

    def _handler(self, action: str, kind: Kind) -> Handler:
        handler = self.handlers.get(action)
        if handler is None:
            raise HandlerMissing("handler.missing", no_handler(self.agent.name, action, self.handlers))
        if handler.streams != (kind is Kind.STREAM):
            verb = "stream() or --stream" if handler.streams else "request() or send(), not --stream,"
            raise HandlerMissing("handler.missing", f"{self.agent.name} answers {action!r} to {verb} only")
        if kind is Kind.REQUEST and handler.answer is None:
            raise HandlerMissing("handler.missing", f"{self.agent.name} takes {action!r} by send only: it has no reply")
        return handler

    def _hold(self, running: _Running) -> None:
        """(16) Go on, or stop for a reason that is not the handler's."""
        try:
            self._still_holds(running.permitted)
        except AgentBusError as error:
            running.verdict = error
            raise

    def _still_holds(self, permitted: Permitted) -> None:
        """The chain and the sender's key, against what is known of revocations now."""
        trust = self.node.source.trust
        message = permitted.message
        if self.node.clock.now() >= message.authority.expires_at:
            raise Rejected("reject.grant_expired", "the authority behind this request ended meanwhile")
        if trust.size == permitted.directory_size and trust.revocation_seq == permitted.revocation_seq:
            return
        now = self.node.clock.now()
        mine = trust.refuses_principal(self.voice.identity.id, self.voice.instance.epoch)
        if mine is not None:
            raise Rejected(mine, f"{self.agent.name} itself was revoked, suspended or retired")
        try:
            verify_chain(message.authority.data, trust=trust, now=now, cache=self.node.memory)
        except NeedsTrust:
            raise Rejected("reject.revoked", "an issuer's instance in the chain has ended") from None
        code = trust.refuses(message.sender, now)
        if code is not None:
            raise Rejected(code, f"{message.header.sender}: its key, instance or principal counts no more")
        decide(message, trust=trust, policy=self.node.policy, now=now, age=0)  # ceilings, rights and targets of now

    def _receipt(self, exchange: Exchange, level: str) -> bool:
        return self.node.answer(Kind.RECEIPT, self.voice, exchange, action=level, body=b"")

    def _fail(self, exchange: Exchange, error: AgentBusError) -> bool:
        error.details.setdefault("by", self.voice.identity.id)
        return self.node.answer(Kind.ERROR, self.voice, exchange, action="error", body=problems.encode(error))


def policy_of(services: list[Service]) -> Policy:
    """What the served handlers require, as one value; its version names these rules and no others."""
    rules: dict[tuple[str, str], Rule] = {
        (service.voice.identity.id, action): handler.rule
        for service in services
        for action, handler in service.handlers.items()
    }
    said = "\n".join(sorted(f"{who} {action} {rule}" for (who, action), rule in rules.items()))
    return Policy(f"handlers-{sha256(said.encode()).hexdigest()[:16]}", rules)
