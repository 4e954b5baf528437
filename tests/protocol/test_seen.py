"""The replay window: what it remembers for how long, whatever the clock on the wall shows."""

from __future__ import annotations

from agentbus.protocol.seen import ReplayWindow
from agentbus.testing.draw import NOON
from agentbus.wire.header import Header, Kind
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS, SECOND

CAROL, DAVE = PrincipalId("spiffe://local.test/agent/carol"), PrincipalId("spiffe://local.test/agent/dave")
MINUTE = 60 * SECOND


def header(number: int, *, issued: int = NOON, instance: bytes = b"i" * 16) -> Header:
    return Header(
        1, Kind.REQUEST, b"m" * 16, b"c" * 16, CAROL, instance, b"k" * 32, number, DAVE, b"r" * 16, number, None, None,
        None, None, "Ask", issued, issued + MINUTE, "application/json", 2, b"b" * 32, b"d" * 32, None, 1, 0, None, None,
        0, [],
    )  # fmt: skip


def test_what_expired_long_ago_is_forgotten_and_is_not_new_when_the_clock_is_set_back() -> None:
    window = ReplayWindow()
    window.add(header(1), now=NOON, mono=0)
    window.forget(MINUTE + LIMITS.lifetime)
    assert len(window._pairs) == 1
    window.forget(2 * MINUTE + LIMITS.lifetime)
    assert window._pairs == {}
    assert window.seen(header(1))
    assert window.seen(header(1, instance=b"o" * 16))  # refused for its age, had the clock not been set
    assert not window.seen(header(1, issued=NOON + 1))


def test_memory_is_bounded_by_who_spoke_lately() -> None:
    window = ReplayWindow()
    for minute in range(120):
        window.forget(minute * MINUTE)
        for n in range(10):
            instance = bytes([minute, n]) * 8
            window.add(header(1, issued=NOON + minute * MINUTE, instance=instance), now=NOON, mono=minute * MINUTE)
    assert len(window._pairs) < 10 * 10 * 14
