"""Who may connect, and what strangers who knock cost the directory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from agentbus.runtime.admission import ASK_EVERY, Admission
from agentbus.runtime.trust_cache import TrustSource
from agentbus.testing import ManualClock
from agentbus.testing.draw import draw_world
from agentbus.wire.limits import SECOND


class Source:
    """A trust source that counts how often the directory is asked."""

    def __init__(self, trust: Any) -> None:
        self.trust, self.asked = trust, 0
        self.next: Any = None

    async def refresh(self) -> None:
        self.asked += 1
        self.trust = self.next or self.trust


async def test_strangers_do_not_have_the_directory_asked_for_each_of_them() -> None:
    world, clock = draw_world("carol"), ManualClock()
    source = Source(world.trust)
    gate = Admission(cast(TrustSource, source), clock)
    for number in range(200):
        assert not await gate.admit(number.to_bytes(32, "big"))
    assert source.asked == 1
    clock.advance(ASK_EVERY / SECOND)
    assert not await gate.admit(b"s" * 32) and source.asked == 2
    assert await gate.admit(world["carol"].curve.public) and source.asked == 2  # who is known is never asked about


async def test_whoever_enrolled_a_moment_ago_is_asked_about() -> None:
    world = draw_world("carol")
    source = Source(SimpleNamespace(curve_keys={}, admits=lambda key: False))
    source.next = world.trust
    gate = Admission(cast(TrustSource, source), ManualClock())
    assert await gate.admit(world["carol"].curve.public) and source.asked == 1


async def test_a_guest_is_admitted_by_the_directory_itself() -> None:
    world = draw_world("carol")
    source = Source(world.trust)
    gate = Admission(cast(TrustSource, source), ManualClock(), lambda key: key == b"token" * 6)
    assert await gate.admit(b"token" * 6) and not await gate.admit(b"other" * 6)
