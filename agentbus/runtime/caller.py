"""One set of verbs, three speakers: a bus speaks for itself, a context for whoever asked, a session for a user."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeVar, cast

from pydantic import BaseModel

from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import encode_chain, encode_link
from agentbus.delegation.scope import Scope
from agentbus.delegation.statements import Instance
from agentbus.errors import AgentBusError, DeadlineExceeded, ProgrammingError, StreamBroken
from agentbus.protocol.engine import WINDOW
from agentbus.protocol.events import Answered
from agentbus.protocol.exchange import Exchange
from agentbus.runtime import problems
from agentbus.runtime.discovery import AgentCard, Discover, card_of
from agentbus.runtime.links import conversation_id, extend, lifetime
from agentbus.runtime.message import Request, StreamRequest, answer_type, decode_answer, encode_body, type_of
from agentbus.runtime.node import Node
from agentbus.runtime.tape import Question, Tape, Waiting
from agentbus.runtime.voices import Voice
from agentbus.wire.header import Kind
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS, SECOND

if TYPE_CHECKING:
    from agentbus.runtime.exchange import AccessToken

CODES: Final = {
    "usage.timeout": "A timeout is more than 0 and at most 600 seconds.",
    "usage.stream": "Open a stream with `async with bus.stream(...) as items:`.",
    "deadline.idle": "The stream sent nothing for longer than its idle timeout.",
}

R = TypeVar("R")
T = TypeVar("T")
Ack = Literal["sent", "delivered", "handled", "checkpointed"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the recipient signed about a message it was sent."""

    level: str
    message: str  # the message digest in hex
    at: datetime


class _Once:
    """Waits for the one answer to a request, or for the final receipt of a send."""

    def __init__(self, to: str) -> None:
        self.to = to
        self.future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()

    def answered(self, event: Answered) -> None:
        if self.future.done():
            return
        kind = event.message.header.kind
        if kind == Kind.ERROR:
            self.future.set_exception(problems.decode(event.message.body, self.to))
        elif event.final:
            self.future.set_result(event)

    def failed(self, error: AgentBusError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Caller:
    """The verbs. Authority is always explicit: what is not in ``delegate`` does not flow on."""

    _node: Node
    _voice: Voice
    _conversation: bytes | None = None
    _cause: bytes | None = None
    _tape: Tape | None = None  # of the handler that speaks

    @property
    def authority(self) -> Authority:
        """The authority this caller speaks under."""
        raise NotImplementedError

    def _latest(self) -> int | None:
        """An instant no call of this caller may outlive."""
        return None

    async def request(
        self, to: str, message: Request[R], *, timeout: float = 60, delegate: Sequence[str | Scope] = ()
    ) -> R:
        """Ask, and wait for the one typed reply.

        Args:
            to: An agent's short name (``planner``) or full id.
            message: Names its reply by its type.
            timeout: Seconds until :class:`DeadlineExceeded`; the recipient sees the same deadline.
            delegate: Scopes the recipient may use next, on this caller's behalf, until the deadline.

        Raises:
            AgentNotFound, AgentGone, HandlerMissing, HandlerFailed, RequestInvalid, ReplyInvalid, DeadlineExceeded,
            Backpressure, Denied, Rejected, Unavailable, Problem. ProgrammingError: ``usage.*``.
        """
        if not isinstance(message, Request):
            todo = (
                "send it instead"
                if isinstance(message, BaseModel)
                else "ask with an instance of one, or with Raw(type, {…})"
            )
            raise ProgrammingError("usage.no_reply_type", f"{type(message).__name__} is no Request[Reply]; {todo}")
        event = await self._once(Kind.REQUEST, to, message, timeout, delegate)
        return cast(R, decode_answer(answer_type(type(message)), event.message.body))

    async def send(
        self,
        to: str,
        message: BaseModel,
        *,
        ack: Ack = "delivered",
        timeout: float = 60,
        delegate: Sequence[str | Scope] = (),
    ) -> Receipt:
        """Send, and wait for the recipient's signed receipt of the level asked for.

        Args:
            to: An agent's short name or full id.
            message: Any model that the recipient has a handler for.
            ack: ``sent`` (handed to the transport), ``delivered`` (verified, permitted, logged there), ``handled``
                (its handler returned), ``checkpointed`` (under a signed checkpoint of its log).
            timeout: Seconds until :class:`DeadlineExceeded`, unless the receipt came.
            delegate: Scopes the recipient may use next, on this caller's behalf, until the deadline.

        Returns:
            What the recipient signed; for ``sent`` only that it was handed over here.

        Raises:
            AgentNotFound, AgentGone, HandlerMissing, HandlerFailed, RequestInvalid, DeadlineExceeded, Backpressure,
            Denied, Rejected, Unavailable, Problem. ProgrammingError: ``usage.*``.
        """
        if ack == "sent":
            return await self._post(to, message, timeout, delegate)
        event = await self._once(Kind.SEND, to, message, timeout, delegate, ack=ack)
        instant = datetime.fromtimestamp(event.message.header.issued_at / SECOND, UTC)
        return Receipt(event.message.header.action, event.exchange.digest.hex(), instant)

    def stream(
        self,
        to: str,
        message: StreamRequest[T],
        *,
        timeout: float = 600,
        idle: float = 60,
        delegate: Sequence[str | Scope] = (),
    ) -> Stream[T]:
        """A stream of typed items: ``async with caller.stream(...) as items: async for item in items: ...``.

        Args:
            to: An agent's short name or full id.
            message: Names its items by its type.
            timeout: Seconds for the whole stream.
            idle: Seconds without an item or progress.
            delegate: Scopes the recipient may use next, on this caller's behalf, until the deadline.

        Returns:
            The stream; nothing is asked before its block is entered.

        Raises:
            AgentNotFound, AgentGone, HandlerMissing, HandlerFailed, RequestInvalid, ReplyInvalid, DeadlineExceeded,
            Backpressure, Denied, Rejected, Unavailable, Problem, where the block is entered or an item awaited.
            ProgrammingError: ``usage.*``.
        """
        return Stream(self, to, message, timeout, idle, delegate)

    async def delegate(
        self,
        to: str,
        scopes: Sequence[str | Scope],
        *,
        targets: Sequence[str] = (),
        expires_in: float = 600,
        depth: int = 0,
        purpose: str = "",
        conversation: str | None = None,
        pin: bool = False,
    ) -> Authority:
        """A longer-lived authority for ``to``: one more link on this caller's own chain.

        Args:
            to: Who may use it: a short name or full id.
            scopes: What for; each within what this caller holds.
            targets: Whom it may ask; none given: whom this caller may ask.
            expires_in: Seconds; it ends no later than what this caller holds.
            depth: How many more links may follow.
            purpose: A code of at most 64 characters that stands in it.
            conversation: The only conversation it counts in (:attr:`Session.conversation`).
            pin: Bind it to the identity key that ``to`` has now.

        Returns:
            The chain with the new link, for ``to`` and nobody else.

        Raises:
            Denied: ``denied.no_depth``, ``denied.not_held``. ProgrammingError: ``usage.expires``, ``usage.grant``.
        """
        node = self._node
        given = [to, [str(s) for s in scopes], list(targets), expires_in, depth, purpose, conversation, pin]

        def make() -> Authority:
            held, now = self.authority, node.clock.now()
            link = extend(
                held, self._voice, node.name_id(to), scopes, trust=node.source.trust, now=now,
                expires=now + lifetime(expires_in), link_id=node._entropy(16),
                targets=[node.name_id(t) for t in targets], depth=depth, purpose=purpose, pin=pin,
                conversation=conversation_id(conversation),
            )  # fmt: skip
            return Authority.from_bytes(encode_chain((*held.links, link)))

        return make() if self._tape is None else self._tape.delegated(given, make)

    async def token_for(self, audience: str, scopes: Sequence[str | Scope]) -> AccessToken:
        """An access token for ``audience``, which outsiders verify: a JWT whose ``act`` names who acts for whom.

        Args:
            audience: An enrolled agent or service that is among the targets of this caller's authority.
            scopes: What it is for; of these, those that this caller's whole chain allows are granted.

        Raises:
            Denied: ``denied.exchange_*``, ``denied.scope``, ``denied.ceiling``, ``denied.rights``.
        """
        from agentbus.runtime.exchange import token_for

        return await token_for(self, self.authority, audience, scopes)

    async def discover(
        self,
        *,
        message: str | None = None,
        scope: str | None = None,
        tag: str | None = None,
        text: str | None = None,
        schemas: bool = False,
    ) -> list[AgentCard]:
        """Active agents that fit everything that is given. What they say of themselves is their claim.

        Args:
            message: A message type they answer.
            scope: A scope they require; ``docs:*`` finds whatever requires one below ``docs``.
            tag: A tag that the operator gave them.
            text: Words that all stand somewhere in the name, purpose, tags, description or message types.
            schemas: With the JSON Schemas of their messages.

        Returns:
            A card for each; none where nothing fits.

        Raises:
            Denied: ``denied.target``: this caller may not talk to the directory. Unavailable: It is out of reach.
        """
        asked = Discover(message=message, scope=scope, tag=tag, text=text, schemas=schemas)
        return [card_of(found) for found in (await self._own().request("service/directory", asked)).agents]

    async def revoke(self, what: Authority | str, *, reason: str) -> None:
        """Revoke an authority this caller issued or is the subject of, or (for its owner) an agent, for good.

        Args:
            what: The authority, or an agent's name.
            reason: A short code or sentence; it stands in the directory's log for ever.

        Raises:
            DirectoryRefused: ``directory.not_owner``, ``directory.unknown``. Unavailable: It is out of reach.
        """
        from agentbus.runtime.admin import Revoke

        if isinstance(what, Authority):
            request = Revoke(kind="grant", id=what.id, reason=reason, chain=what.to_bytes().hex())
        else:
            request = Revoke(kind="principal", id=self._node.name_id(what), reason=reason)
        await self._own().request("service/directory", request)
        await self._node.source.refresh()

    def _own(self) -> Caller:
        """This caller's principal speaking for itself, as it must to the directory."""
        return _Plain(self._node, self._voice)

    # ── below the verbs ──────────────────────────────────────────────────────────────────────────────────────────

    def _deadline(self, timeout: float) -> int:
        if not 0 < timeout <= LIMITS.lifetime / SECOND:
            raise ProgrammingError("usage.timeout", f"timeout={timeout!r}: more than 0 and at most 600 seconds")
        deadline = self._node.clock.now() + int(timeout * SECOND)
        latest = self._latest()
        return deadline if latest is None else min(deadline, latest)

    def _handover(self, delegate: Sequence[str | Scope], deadline: int) -> Callable[[Instance], bytes] | None:
        if isinstance(delegate, str):
            raise ProgrammingError("usage.scope", f"delegate is a list: delegate=[{delegate!r}]")
        if not delegate:
            return None
        node = self._node

        def make(to: Instance) -> bytes:
            link = extend(
                self.authority, self._voice, to.principal, delegate, trust=node.source.trust, now=node.clock.now(),
                expires=deadline, link_id=node._entropy(16),
            )  # fmt: skip
            return encode_link(link)

        return make

    async def _begin(
        self, kind: Kind, to: str, message: BaseModel, waiter: Waiting, deadline: int, delegate: Any, ack: str
    ) -> Exchange:
        """Open an exchange; a handler's goes through its tape, since what comes of it is not determined here."""
        if self._tape is None:
            return await self._open(kind, to, message, waiter, deadline, delegate, ack)
        question = Question(kind, to, type_of(message), encode_body(message), ack)
        return await self._tape.ask(
            question, waiter, lambda waiter: self._open(kind, to, message, waiter, deadline, delegate, ack)
        )

    async def _open(
        self, kind: Kind, to: str, message: BaseModel, waiter: Waiting, deadline: int, delegate: Any, ack: str
    ) -> Exchange:
        node = self._node
        who = node.name_id(to)
        instance = node.finder.known(who)
        if instance is None:
            left, began = deadline - node.clock.now(), node.clock.mono()
            instance = await self._find(who, left)
            deadline = min(deadline, node.clock.now() + left - (node.clock.mono() - began))  # the clock may be set
        return node.ask(
            kind, self._voice, instance, waiter, action=type_of(message), body=encode_body(message),
            chain=self.authority, deadline=deadline, handover=self._handover(delegate, deadline),
            conversation=self._conversation, cause=self._cause, ack=ack,
        )  # fmt: skip

    async def _find(self, who: PrincipalId, left: int) -> Instance:
        """Whoever is not known to run may have started a moment ago: the directory is asked."""
        try:
            async with asyncio.timeout(max(0.001, left / SECOND)):
                return await self._node.finder.find(who)
        except TimeoutError as error:
            if isinstance(error, AgentBusError):
                raise
            raise DeadlineExceeded("deadline.exceeded", f"{who.short} was not reached in time") from None

    async def _once(
        self, kind: Kind, to: str, message: BaseModel, timeout: float, delegate: Any, ack: str = "handled"
    ) -> Answered:
        deadline = self._deadline(timeout)
        waiter = _Once(to)
        exchange = await self._begin(kind, to, message, waiter, deadline, delegate, ack)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._cancel(exchange)
            raise
        finally:
            self._node.forget(exchange)

    async def _post(self, to: str, message: BaseModel, timeout: float, delegate: Any) -> Receipt:
        """Send and wait for no answer: only until the transport took it, or did not."""
        waiter = _Once(to)
        exchange = await self._begin(Kind.SEND, to, message, waiter, self._deadline(timeout), delegate, "sent")
        await asyncio.sleep(0)  # the pump was scheduled before this
        self._node.conclude(exchange)
        if waiter.future.done():
            await waiter.future
        at = datetime.fromtimestamp(self._node.clock.now() / SECOND, UTC)
        return Receipt("sent", exchange.digest.hex(), at)

    def _cancel(self, exchange: Exchange) -> None:
        self._node.forget(exchange)
        # Under this instance's own standing grant: what was acted under may be what was revoked a moment ago.
        self._node.answer(Kind.CANCEL, self._voice, exchange, action="cancel", body=b"")


class _Plain(Caller):
    """A principal that speaks under its standing grant; ``within`` a handler, as a consequence of what it handles."""

    def __init__(self, node: Node, voice: Voice, within: Caller | None = None) -> None:
        self._node, self._voice = node, voice
        if within is not None:
            self._conversation, self._cause, self._tape = within._conversation, within._cause, within._tape

    @property
    def authority(self) -> Authority:
        return self._voice.standing


class Session(Caller):
    """One task under one authority: ``bus.acting(authority)``, or a user of a local bus."""

    def __init__(self, node: Node, voice: Voice, authority: Authority) -> None:
        self._node, self._voice, self._authority = node, voice, authority
        self._conversation = authority.conversation or node._entropy(16)

    @property
    def authority(self) -> Authority:
        """What everything asked here is asked under."""
        return self._authority

    @property
    def conversation(self) -> str:
        """What everything asked here, and caused by it, has in common."""
        return (self._conversation or b"").hex()


class Stream(Generic[T], AsyncIterator[T], AbstractAsyncContextManager["Stream[T]"]):
    """The items of one stream. Leaving the block cancels it at once, down the tree."""

    def __init__(
        self, caller: Caller, to: str, message: StreamRequest[T], timeout: float, idle: float, delegate: Any
    ) -> None:
        self._caller, self._to, self._message = caller, to, message
        self._timeout, self._idle, self._delegate = timeout, idle, delegate
        self._item = answer_type(type(message))
        self._exchange: Exchange | None = None
        self._items: deque[bytes] = deque()
        self._taken = 0
        self._over: AgentBusError | Literal[True] | None = None
        self._wake = asyncio.Event()

    async def __aenter__(self) -> Self:
        deadline = self._caller._deadline(self._timeout)
        self._exchange = await self._caller._begin(
            Kind.STREAM, self._to, self._message, self, deadline, self._delegate, "handled"
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._exchange is not None and not self._exchange.done:
            self._caller._cancel(self._exchange)
        self._over = self._over or StreamBroken("stream.broken", "the block was left")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._exchange is None:
            raise ProgrammingError("usage.stream", CODES["usage.stream"])
        while not self._items:
            if self._over is True:
                raise StopAsyncIteration
            if self._over is not None:
                raise self._over
            self._wake.clear()
            try:
                async with asyncio.timeout(self._idle):
                    await self._wake.wait()
            except TimeoutError:
                self._caller._cancel(self._exchange)
                raise DeadlineExceeded("deadline.idle", f"{self._to} sent nothing for {self._idle:g} s") from None
        body = self._items.popleft()
        self._taken += 1
        if self._taken % (WINDOW // 2) == 0:
            self._give_credit()
        return cast(T, decode_answer(self._item, body))

    def _give_credit(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        if not exchange.done:
            exchange.allowed = self._taken + WINDOW
            self._caller._node.answer(
                Kind.CREDIT, self._caller._voice, exchange, action="credit", body=b"", stream_index=exchange.allowed
            )  # fmt: skip

    def answered(self, event: Answered) -> None:
        """The node brought something of this stream."""
        kind = event.message.header.kind
        if kind == Kind.ITEM:
            self._items.append(event.message.body)
        elif kind == Kind.END:
            self._over = True
        elif kind == Kind.ERROR:
            self._over = problems.decode(event.message.body, self._to)
        self._wake.set()

    def failed(self, error: AgentBusError) -> None:
        """The stream ended without its end."""
        self._over = self._over or error
        self._wake.set()
