"""The tape of a live replay: what the handler calls is called again; only what others answered is played back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter

from agentbus.delegation.chain import Authority
from agentbus.log.replay import Asked
from agentbus.replay.player import Player
from agentbus.runtime.clock import SystemClock
from agentbus.runtime.tape import Question, close_source, recorded_form

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
        source = call()
        try:
            async for value in source:
                yield recorded_form(name, of, value)[1]
        finally:
            await close_source(source)

    def _match(self, question: Question) -> Asked | None:
        return super()._match(question) or next(iter(self._alike(question)), None)

    def _positions(self) -> list[int]:
        return [
            position
            for asked in self.recorded.asked
            for position in (*(a.position for a in asked.answers), *([asked.lost.position] if asked.lost else []))
        ]
