"""The tape of a live replay: what the handler calls is called again; only what others answered is played back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter

from agentbus.delegation.chain import Authority
from agentbus.log.replay import Asked
from agentbus.replay.player import Player
from agentbus.runtime.clock import SystemClock
from agentbus.runtime.tape import recorded_form
from agentbus.wire.header import Kind
from agentbus.wire.ids import PrincipalId

T = TypeVar("T")


class LivePlayer(Player):
    """Calls, time and randomness are real.

    A message to another agent is never sent: it gets the recorded answer to the same bytes where there is one, else to
    the next message of that type to that agent.
    """

    def now(self) -> int:
        return SystemClock().now()

    def seed(self, make: Callable[[], bytes]) -> bytes:
        return make()

    def require(self, scope: str, facts: Any, judge: Callable[[], None]) -> None:
        judge()

    def delegated(self, given: Any, make: Callable[[], Authority]) -> Authority:
        return make()

    async def call(self, name: str, call: Callable[[], Awaitable[T]], of: TypeAdapter[T], given: Any) -> T:
        return recorded_form(name, of, await call())[1]

    async def items(
        self, name: str, call: Callable[[], AsyncIterator[T]], of: TypeAdapter[T], given: Any
    ) -> AsyncIterator[T]:
        async for value in call():
            yield recorded_form(name, of, value)[1]

    def _match(self, kind: Kind, who: PrincipalId, action: str, body: bytes) -> Asked | None:
        exact = super()._match(kind, who, action, body)
        if exact is not None:
            return exact
        for asked in self._asked:
            header = asked.frame.header
            if (header.kind, header.recipient, header.action) == (kind, who, action):
                return asked
        return None

    def _positions(self) -> list[int]:
        return [
            position
            for asked in self.recorded.asked
            for position in (*(a.position for a in asked.answers), *([asked.lost.position] if asked.lost else []))
        ]
