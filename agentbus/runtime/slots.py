"""So many handlers of one kind at once, and whose turn is next.

Rule 1: who waits, waits in the line of its sender, and the lines take turns: whoever asks for a thousand things waits
behind itself.
Rule 2: a line is bounded. What does not fit is refused with an error that says so, and that is retryable.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Final

from agentbus.errors import Backpressure

CODES: Final = {
    "backpressure.handler": "The agent has as many messages of this sender waiting as it lets wait; try later.",
}

LINE: Final = 2048  # messages of one sender that wait for a slot; as many as an honest node has under way to one peer


class Slots:
    """A counting lock with a line for each sender.

    Args:
        limit: How many may hold a slot at once.
        line: How many of one sender may wait.
    """

    def __init__(self, limit: int, *, line: int = LINE) -> None:
        self._free = limit
        self._line = line
        self._lines: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    def take(self) -> bool:
        """Take a slot if one is free; True when it was."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    async def wait(self, sender: Hashable) -> None:
        """Take a slot in ``sender``'s turn.

        Raises:
            Backpressure: ``backpressure.handler``: its line is full.
        """
        line = self._lines.setdefault(sender, deque())
        if len(line) >= self._line:
            raise Backpressure("backpressure.handler", f"{len(line)} messages of this sender wait already; try later")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # it had come to its turn just then
            elif turn in line:  # else it was passed over between the cancel and now
                line.remove(turn)
                if not line and self._lines.get(sender) is line:
                    del self._lines[sender]
            raise

    def give(self) -> None:
        """Give a slot back: to the first of the line whose turn it is, if anybody waits."""
        while self._lines:
            sender, line = self._lines.popitem(last=False)
            turn = line.popleft()
            if line:
                self._lines[sender] = line  # to the end: the next slot is another's
            if not turn.done():  # else it was cancelled in this step, and its task has not run since
                turn.set_result(None)
                return
        self._free += 1
