"""The tables of a node's exchanges: bounded, and shared by all peers so that nobody pushes out another's."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbus.errors import Backpressure
from agentbus.protocol import exchanges as module
from agentbus.protocol.exchange import Exchange, Role
from agentbus.protocol.exchanges import Exchanges
from agentbus.protocol.opening import Party
from agentbus.protocol.shares import Shares
from agentbus.wire.header import Kind

QUIET, FLOOD = "spiffe://local.test/agent/quiet", "spiffe://local.test/agent/flood"
_numbers = count()


def exchange(who: str, role: Role = "callee") -> Exchange:
    digest = next(_numbers).to_bytes(32, "big")
    party = Party(who, b"i" * 16, b"m" * 16)
    return Exchange(digest, role, Kind.REQUEST, party, 1 << 60, 1 << 60, b"c" * 16, None, peer=who.encode())


def answered(exchanges: Exchanges, who: str, size: int) -> Exchange:
    """A request of somebody's that was answered with a frame of so many bytes."""
    one = exchange(who)
    exchanges.open(one)
    assert one.move("reply")
    exchanges.retire(one)
    exchanges.keep(one, bytes(size))
    return one


def repeated(exchanges: Exchanges, one: Exchange) -> bytes | None:
    found = exchanges.repeat(one.digest, route=None, peer=one.peer)
    return found[1] if found is not None else None


def test_large_answers_to_one_peer_push_out_its_own_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 100_000)
    exchanges = Exchanges()
    quiet = [answered(exchanges, QUIET, 100) for _ in range(20)]
    floods = [answered(exchanges, FLOOD, 9_000) for _ in range(200)]
    assert all(repeated(exchanges, one) == bytes(100) for one in quiet)
    assert [n for n, one in enumerate(floods) if repeated(exchanges, one)] == list(range(190, 200))


def test_many_exchanges_of_one_peer_are_forgotten_before_anybody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVER", 100)
    exchanges = Exchanges()
    quiet = [answered(exchanges, QUIET, 10) for _ in range(20)]
    for _ in range(1000):
        answered(exchanges, FLOOD, 10)
    assert all(repeated(exchanges, one) for one in quiet)
    assert 98 <= len(exchanges._over) == len(exchanges._kept) <= 100
    assert exchanges._kept.weight == 10 * len(exchanges._kept)


def test_what_is_over_is_forgotten_after_its_deadline_and_the_timer_asks_for_it() -> None:
    exchanges = Exchanges()
    assert exchanges.next_deadline() is None
    early, late = answered(exchanges, QUIET, 10), answered(exchanges, QUIET, 10)
    early.until, late.until = 1, 10 * module.SWEEP
    exchanges._sweep = 1 + module.SWEEP  # as the first of them would have it
    assert exchanges.next_deadline() == 1 + module.SWEEP
    assert exchanges.expire(1) == [] and repeated(exchanges, early) is not None, "not at each look: once a minute"
    assert exchanges.expire(1 + module.SWEEP) == []
    assert repeated(exchanges, early) is None and repeated(exchanges, late) is not None
    due = exchanges.next_deadline()
    while due is not None:
        assert exchanges.expire(due) == []
        due = exchanges.next_deadline()
    assert len(exchanges._over) == len(exchanges._kept) == 0 and exchanges._kept.weight == 0


def test_one_sender_has_so_many_exchanges_open_and_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SERVED", 10)
    exchanges = Exchanges()
    open_ = [exchange(FLOOD) for _ in range(10)]
    for one in open_:
        exchanges.require_room(sender=FLOOD)
        exchanges.open(one)
    with pytest.raises(Backpressure) as caught:
        exchanges.require_room(sender=FLOOD)
    assert caught.value.code == "backpressure.sender" and caught.value.retryable
    exchanges.require_room(sender=QUIET)
    exchanges.require_room(b"i" * 16)  # what this side asks is its own business
    for one in open_:
        for _ in range(2):  # twice is harmless
            exchanges.end(one, "lose")
    exchanges.require_room(sender=FLOOD)
    assert not exchanges._served


@given(
    st.integers(1, 60),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.integers(0, 20), st.booleans()), max_size=120),
)
def test_shares_do_what_a_plain_model_does(limit: int, moves: list[tuple[str, int, int, bool]]) -> None:
    shares: Shares[int, str] = Shares(limit)
    model: OrderedDict[int, tuple[str, int]] = OrderedDict()
    for holder, key, weight, drop in moves:
        if drop:
            assert shares.pop(key) == (model.pop(key, ("", 0))[0] or None)
            continue
        model.pop(key, None)
        model[key] = (holder, weight)
        gone = shares.put(holder, key, holder, weight)
        assert bool(gone) == (sum(w for _, w in model.values()) > limit)
        last: dict[str, int] = {}
        for other in gone:
            who, weight = model[other]
            last[who] = weight
            assert other == next(k for k, (h, _) in model.items() if h == who)  # its oldest
            del model[other]
        held = {who: sum(w for h, w in model.values() if h == who) for who in "abc"}
        for who, weight in last.items():  # nobody lost its last one while another held more
            assert held[who] + weight >= max(held.values())
        assert shares.weight == sum(w for _, w in model.values()) <= limit
        assert len(shares) == len(model) and all(shares.get(k) == h for k, (h, _) in model.items())
