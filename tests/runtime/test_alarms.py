"""Alarms ring once, in order, unless they were called off; what was called off is not kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentbus.runtime.alarms import KEPT, Alarms


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans())), st.lists(st.integers(0, 60)))
def test_what_is_due_rings_once_and_in_order(made: list[tuple[int, bool]], instants: list[int]) -> None:
    alarms, rung = Alarms(), []
    kept = []
    for n, (due, off) in enumerate(made):
        alarm = alarms.add(due, lambda n=n, due=due: rung.append((due, n)))
        if off:
            alarms.call_off(alarm)
            alarms.call_off(alarm)
        else:
            kept.append((due, n))
    assert len(alarms) == len(kept)
    for now in sorted(instants):
        alarms.ring(now)
        assert rung == sorted(k for k in kept if k[0] <= now)
    assert len(alarms) == len(kept) - len(rung)
    assert alarms.next() == min((due for due, _ in kept[:] if (due, _) not in rung), default=None)


def test_alarms_that_were_called_off_take_no_room() -> None:
    """A node that is sent three thousand messages a second sets as many alarms, and calls nearly all of them off."""
    alarms = Alarms()
    waits = alarms.add(1, lambda: None)
    for n in range(100_000):
        alarms.call_off(alarms.add(60_000_000 + n, lambda: None))
    assert len(alarms._heap) <= KEPT + 2
    assert len(alarms) == 1 and alarms.next() == waits.due
