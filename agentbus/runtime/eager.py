"""Handlers that do not wait need no task of their own: one task runs them in a row.

Rule 1: a handler has a context of its own, whatever it sets in there: the next one in the same task does not see it.
Rule 2: from its first wait on a handler has its task for itself, so to cancel the task is to cancel the handler alone.
Rule 3: all that are added in one step of the loop begin in the next, or, where one before them waits, in the one after
that: nobody is begun one by one, a step each, behind those that wait.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Row(Generic[T]):
    """Runs coroutines in as few tasks as they need.

    Args:
        run: Makes the coroutine of a thing; it is told the task it runs in.
        spawn: Starts a task.
    """

    def __init__(
        self,
        run: Callable[[T, asyncio.Task[Any]], Coroutine[Any, Any, None]],
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        self._run, self._spawn = run, spawn
        self._waiting: deque[T] = deque()
        self._coming = 0  # tasks that have not begun

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, thing: T) -> None:
        """Begin in the next step of the loop, after those that were added before."""
        self._waiting.append(thing)
        if not self._coming:
            self._another()

    def remove(self, thing: T) -> None:
        """It does not begin; harmless where it did, or never waited here."""
        if thing in self._waiting:
            self._waiting.remove(thing)

    def _another(self) -> None:
        self._coming += 1
        self._spawn(self._work())

    def _alone(self) -> None:
        """Those behind the handler that runs now share its task no more, and who waits is seldom alone: each gets a
        task of its own. The price is one that finds nothing left to do."""
        while self._coming < len(self._waiting):
            self._another()

    async def _work(self) -> None:
        self._coming -= 1
        task = asyncio.current_task()
        assert task is not None
        try:
            while self._waiting:
                waited = await _within(copy_context(), self._run(self._waiting.popleft(), task), self._alone)
                if waited or task.cancelling():
                    return
        finally:
            self._alone()  # an error, or a cancel of its own: those behind it begin all the same


@types.coroutine
def _within(context: Context, work: Coroutine[Any, Any, None], alone: Callable[[], None]) -> Generator[Any, Any, bool]:
    """Drive a coroutine inside ``context``; whether it waited. ``alone`` is called before its first wait."""
    waited = False
    step, value = work.send, None
    while True:
        try:
            wanted = context.run(step, value)
        except StopIteration:
            return waited
        if not waited:
            waited = True
            alone()
        try:
            value = yield wanted
            step = work.send
        except BaseException as error:  # a cancel, or the end of the task: the coroutine's own business
            step, value = work.throw, error
