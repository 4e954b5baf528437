"""A network that loses, repeats, delays and parts, and whose every decision comes from one seed."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from agentbus.transport import memory


@dataclass
class Faults:
    """What happens to frames. All of it is decided by ``chance``, in the order in which frames are offered."""

    chance: random.Random
    drop: float = 0.0
    twice: float = 0.0
    late: float = 0.0  # how many frames are held back, and so overtaken
    longest: float = 2.0  # seconds that one is held back
    apart: set[frozenset[bytes]] = field(default_factory=set)  # pairs of CURVE keys that do not hear each other
    lost: int = 0
    repeated: int = 0
    delayed: int = 0

    def fate(self, one: bytes, other: bytes) -> list[float]:
        """The delays after which a frame arrives: none, one or two of them."""
        if frozenset((one, other)) in self.apart or self.chance.random() < self.drop:
            self.lost += 1
            return []
        delays = [0.001 + self.chance.random() * 0.004]
        if self.chance.random() < self.late:
            self.delayed += 1
            delays[0] += self.chance.random() * self.longest
        if self.chance.random() < self.twice:
            self.repeated += 1
            delays.append(delays[0] + self.chance.random() * self.longest)
        return delays


class FaultyHub(memory.MemoryHub):
    """A hub whose frames meet with faults."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.faults = faults


class FaultyHalf(memory._Half):
    """One side of a connection through the faulty network: what it offers arrives when, and if, it arrives."""

    def offer(self, frame: bytes) -> bool:
        hub, other = self.owner._hub, self.other
        if not isinstance(hub, FaultyHub) or other is None or self.gone or other.gone:
            return super().offer(frame)
        for delay in hub.faults.fate(self.owner.key, other.owner.key):
            asyncio.get_running_loop().call_later(delay, self._arrive, frame)
        return True

    def _arrive(self, frame: bytes) -> None:
        if not self.gone and self.other is not None and not self.other.gone:
            super().offer(frame)
