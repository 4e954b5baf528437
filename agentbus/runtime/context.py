"""What a handler is given beside its request: who asks, for whom, with what, until when. It can only narrow."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Generic

from typing_extensions import TypeVar

from agentbus.delegation.chain import Authority
from agentbus.delegation.decide import require
from agentbus.delegation.messages import Permitted
from agentbus.delegation.scope import Fact
from agentbus.errors import Denied, ProgrammingError
from agentbus.protocol.exchange import Exchange
from agentbus.runtime.caller import Caller, _Plain
from agentbus.runtime.message import adapter
from agentbus.runtime.node import Node
from agentbus.runtime.voices import Voice
from agentbus.wire.header import Kind
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import SECOND

CODES: Final = {
    "denied.nothing_handed_over": "Nothing was handed over with this message, so there is nothing to act with.",
    "usage.no_context": "current_context() is for code that a handler calls.",
}

S = TypeVar("S", default=Any)
R = TypeVar("R")
T = TypeVar("T")

_current: ContextVar[Context[Any]] = ContextVar("agentbus_context")


class Context(Caller, Generic[S]):
    """One request's context, and the verbs for acting on with what was handed over.

    Attributes:
        caller: The authority this request was judged on; it is the sender's, and cannot be used here.
        sender: Who signed the request.
        user: The user at the root of the chain, if there is one.
        state: What the agent's lifespan yielded.
        attempt: Always 1 today: a handler runs once for each message, and jobs, which are tried again, do not exist.
    """

    def __init__(self, node: Node, voice: Voice, permitted: Permitted, exchange: Exchange, state: S) -> None:
        self._node, self._voice, self._exchange = node, voice, exchange
        self._cause = permitted.message.digest
        self._tape = self._record = node.tape(self._cause)
        message = self._record.seen(permitted.message)
        self._handed = message.handover
        self._conversation = message.header.conversation
        self.caller: Authority = message.authority
        self.sender = PrincipalId(message.header.sender)
        self.user = message.authority.user
        self.state = state
        self.attempt = 1
        self._digest, self._until = message.digest, message.header.deadline
        self._random: random.Random | None = None

    @cached_property
    def deadline(self) -> datetime:
        """When the caller stops waiting."""
        return datetime.fromtimestamp(self._until / SECOND, UTC)

    def require_user(self) -> PrincipalId:
        """The user at the root of the chain; behind ``requires_user=True`` there always is one.

        Raises:
            Denied: ``denied.user_required``.
        """
        if self.user is None:
            raise Denied("denied.user_required", f"{self.sender.short} asks for itself; this needs a user's authority")
        return self.user

    @property
    def message_id(self) -> str:
        """The request's message digest, in hex: what receipts, logs and proofs name it by."""
        return self._digest.hex()

    @property
    def logger(self) -> logging.Logger:
        """The agent's own logger, ``agentbus.agent.<name>``."""
        return logging.getLogger(f"agentbus.agent.{self._voice.identity.id.name}")

    @cached_property
    def bus(self) -> Caller:
        """This agent speaking for itself."""
        return _Plain(self._node, self._voice, within=self)

    @property
    def conversation(self) -> str:
        """What everything that one question causes has in common."""
        return (self._conversation or b"").hex()

    @property
    def authority(self) -> Authority:
        """What was handed over: all this handler may use for others.

        Raises:
            Denied: ``denied.nothing_handed_over``.
        """
        if self._handed is None:
            raise Denied(
                "denied.nothing_handed_over",
                f"{self.sender.short} handed nothing over to ask others with: it has to pass delegate=[…]; "
                "a handler that asks for itself uses ctx.bus",
            )
        return self._handed

    def _latest(self) -> int | None:
        return self._until

    def require(self, scope: str, **facts: Fact) -> None:
        """Return when every link, ceiling and right allows ``scope`` given these facts.

        Args:
            scope: Its name; a handler's ``scopes`` do not name it, because facts are known here alone.
            facts: What caveats are about: ``amount=5``. A caveat on a fact that is not given does not hold.

        Raises:
            Denied: ``denied.scope``, ``denied.ceiling``, ``denied.rights``.
        """
        node = self._node
        self._record.require(
            scope, facts, lambda: require(self.caller, scope, facts, trust=node.source.trust, now=node.clock.now())
        )

    async def step(self, name: str, call: Callable[[], Awaitable[R]], *, type: type[R], given: Any = None) -> R:
        """Call something outside and put its result on the record; a replay takes the recorded result instead.

        Args:
            name: What is called; the k-th call of one name is the k-th step of that name.
            call: Called once.
            type: The result's type, for the record: what is returned has gone through its JSON.
            given: What the result depends on, as JSON values; a replay notices when another version gives another.

        Raises:
            ProgrammingError: ``usage.step``.
        """
        return await self._record.call(name, call, adapter(type), given)

    def steps(
        self, name: str, call: Callable[[], AsyncIterator[T]], *, type: type[T], given: Any = None
    ) -> AsyncIterator[T]:
        """As :meth:`step`, for what yields: each item is put on the record before it is used.

        Args:
            name: What is called; the k-th call of one name is the k-th step of that name.
            call: Called once.
            type: Each item's type, for the record.
            given: What the items depend on, as JSON values.

        Returns:
            The items, as they come.

        Raises:
            ProgrammingError: ``usage.step``, where the first item is awaited.
        """
        return self._record.items(name, call, adapter(type), given)

    def now(self) -> datetime:
        """The time; recorded, so that a replay sees the same."""
        return datetime.fromtimestamp(self._record.now() / SECOND, UTC)

    def random(self) -> random.Random:
        """Randomness from a recorded seed; not for secrets."""
        if self._random is None:
            self._random = random.Random(self._record.seed(lambda: self._node._entropy(16)))
        return self._random

    def progress(self, note: str = "") -> None:
        """Tell the caller that work goes on: feeds its idle timeout, never its deadline.

        Args:
            note: For the record, at most 1024 bytes of it.
        """
        self._node.answer(Kind.PROGRESS, self._voice, self._exchange, action="progress", body=note.encode()[:1024])

    def _own(self) -> Caller:
        return self.bus


def current_context() -> Context[Any]:
    """The context of the handler that is running: for a tool deep inside somebody's framework.

    Raises:
        ProgrammingError: ``usage.no_context``.
    """
    found = _current.get(None)
    if found is None:
        raise ProgrammingError("usage.no_context", CODES["usage.no_context"])
    return found
