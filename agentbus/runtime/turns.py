"""Step 1: whose frame is next. Every key that may connect has its own queue, and they take turns by what they cost.

Rule 1: a queue belongs to the CURVE key at the other end, never to whom a frame claims to be from: nothing of it has
been verified yet. A key that opens many connections still has one queue.
Rule 2: whoever floods waits behind its own frames; everybody else is served as if it were one more peer.
Rule 3: queues are bounded in frames and bytes. What does not fit is refused, and charged to that key's connection.
Rule 4: frames of one connection keep their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Final, Generic, TypeVar

CODES: Final = {
    "backpressure.connection": "One peer has more waiting, asked for or refused here than one may have; slow down.",
}

FRAMES: Final = 4096  # of one key; four times what an honest node lets be under way to one peer
BYTES: Final = 32 * 1024 * 1024  # of one key
QUANTUM: Final = 8 * 1024  # bytes' worth of work in one turn: a dozen small frames, or one large one
FLOOD: Final = 512  # frames of one key that wait: more than an honest node has under way to one peer as a rule
FEW: Final = 1  # frame of such a key that is judged in one step, while others speak
SOME: Final = 16  # frames of any other key, while others speak: 5 ms at most that everybody waits for
FIXED: Final = 512  # bytes' worth that every frame costs, whatever its length

T = TypeVar("T")


class _Queue(Generic[T]):
    __slots__ = ("bytes", "credit", "items")

    def __init__(self) -> None:
        self.items: deque[tuple[int, T]] = deque()
        self.bytes = 0
        self.credit = 0


class Turns(Generic[T]):
    """Deficit round robin (Shreedhar and Varghese, 1995) over keys.

    Args:
        frames: How many items of one key may wait.
        size: How many bytes of one key may wait.
    """

    def __init__(self, *, frames: int = FRAMES, size: int = BYTES) -> None:
        self._frames, self._size = frames, size
        self._queues: dict[Hashable, _Queue[T]] = {}
        self._order: deque[Hashable] = deque()
        self.waiting = 0

    def push_first(self, key: Hashable, items: Sequence[tuple[int, T]]) -> None:
        """Let items, each with its size, wait before everything of ``key`` that waits: they have waited, in a bound of
        their own."""
        if not items:
            return
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
            self._order.append(key)
        queue.items.extendleft(reversed(items))
        queue.bytes += sum(size for size, _ in items)
        self.waiting += len(items)

    def push(self, key: Hashable, item: T, size: int) -> bool:
        """Let ``item`` of ``size`` bytes wait for ``key``'s turn.

        Returns:
            False: this key has as much waiting as it may; nothing was kept.
        """
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
            self._order.append(key)
        elif len(queue.items) >= self._frames or queue.bytes + size > self._size:
            return False
        queue.items.append((size, item))
        queue.bytes += size
        self.waiting += 1
        return True

    def step(self, most: int, *, crowd: bool = False) -> list[T]:
        """What is judged in one step of the loop, in turn.

        Args:
            most: How many at most.
            crowd: Whether several keys speak: then a key whose queue is long has only a few of its frames judged in one
                step, because every other key waits for the end of the step.
        """
        order = self._order
        taken: list[T] = []
        given: dict[Hashable, int] = {}
        passed = 0  # keys in a row that had all they may have in this step
        while order and len(taken) < most and passed < len(order):
            key = order[0]
            queue = self._queues[key]
            if crowd and given.get(key, 0) >= (FEW if len(queue.items) > FLOOD else SOME):
                order.rotate(-1)
                passed += 1
                continue
            size, item = queue.items[0]
            if queue.credit < size + FIXED:  # its turn is over, or begins
                queue.credit += QUANTUM
                order.rotate(-1)
                passed = 0  # it came nearer to its turn: a large frame may need several rounds
                continue
            queue.items.popleft()
            queue.bytes -= size
            queue.credit -= size + FIXED
            self.waiting -= 1
            given[key] = given.get(key, 0) + 1
            passed = 0
            if not queue.items:
                del self._queues[key]
                order.popleft()
            taken.append(item)
        return taken
