"""Twenty-four thousand mutations of valid chains: none is accepted, and each is refused with a documented error."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from agentbus.crypto.cache import SignatureCache
from agentbus.delegation import chain, grant, scope
from agentbus.delegation.chain import verify_chain
from agentbus.delegation.trust import NeedsTrust
from agentbus.errors import AgentBusError
from agentbus.testing.draw import NOON, chain_bytes, draw_chain, draw_world, standing
from agentbus.wire import codec, ids
from agentbus.wire.codec import pack, unpack

DOCUMENTED = {*chain.CODES, *grant.CODES, *scope.CODES, *codec.CODES, *ids.CODES, "key.bad_signature"}
WORLD = draw_world()
VALID = [
    chain_bytes(links)
    for links in (
        draw_chain("alice -[quote,pay]-> carol", world=WORLD, depth=3),
        draw_chain("alice -[quote,pay]-> carol -[quote]-> dave", world=WORLD, targets=["bob", "erin"]),
        draw_chain("alice -[quote,pay]-> carol -[quote,pay]-> dave -[pay]-> erin", world=WORLD),
        draw_chain("alice -[pay]-> user/alice -[pay]-> carol -[pay]-> dave", world=WORLD, depth=5),
        draw_chain("alice -[docs:*]-> carol -[docs:a:*]-> dave -[docs:a:b]-> erin -[docs:a:b]-> frank", world=WORLD),
        standing(WORLD, "carol"),
        standing(WORLD, "dave"),
    )
]
ROWS = [unpack(data) for data in VALID]
FIELDS = [unpack(body) for rows in ROWS for body, _ in rows]
ODD: list[Any] = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    1 << 62,
    1 << 63,
    "",
    "x",
    b"",
    b"x" * 16,
    b"x" * 32,
    [],
    [[]],
    ["pay"],
]
MUTATIONS = 4_000


def judge(data: bytes, cache: SignatureCache | None = None) -> str:
    """The code the chain is refused with; "" when it is accepted. Anything undocumented goes through."""
    try:
        verify_chain(data, trust=WORLD.trust, now=NOON, cache=cache)
    except NeedsTrust:
        return "needs trust"
    except AgentBusError as error:
        return error.code
    return ""


def flip(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(VALID))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(rng: random.Random) -> bytes:
    data = rng.choice(VALID)
    a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return rng.choice((data[:a], data[:a] + data[b:], data[:b] + data[a:], data[:a] + rng.randbytes(3) + data[a:]))


def set_field(rng: random.Random) -> bytes:
    """One field of one link takes another value, in canonical form and under the old signature."""
    rows = [list(row) for row in rng.choice(ROWS)]
    row = rng.choice(rows)
    fields = unpack(row[0])
    at = rng.randrange(22)
    fields[at] = rng.choice((rng.choice(ODD), rng.choice(FIELDS)[at], rng.choice(FIELDS)[rng.randrange(22)]))
    if isinstance(fields[at], int) and rng.random() < 0.5:
        fields[at] = max(0, int(fields[at]) + rng.choice((-1, 1, 1_000_000)))
    row[0] = pack(fields)
    return bytes(pack(rows))


def deep_field(rng: random.Random) -> bytes:
    """A scope, target or bit deep inside a body changes."""
    rows = [list(row) for row in rng.choice(ROWS)]
    row = rng.choice(rows)
    fields = unpack(row[0])
    match rng.randrange(4):
        case 0:
            fields[14] = sorted([*fields[14], [rng.choice(("admin", "docs:*", "pay", "quote", "zzz")), []]])
        case 1:
            fields[14] = fields[14][:-1]
        case 2:
            fields[15] = sorted([*fields[15], WORLD.id(rng.choice(("frank", "bob", "user/alice")))])
        case _:
            body = bytearray(row[0])
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
            row[0] = bytes(body)
            return bytes(pack(rows))
    row[0] = pack(fields)
    return bytes(pack(rows))


def permute(rng: random.Random) -> bytes:
    """Links are shuffled, repeated, dropped from the front or middle, or taken from other chains."""
    rows = list(rng.choice(ROWS))
    match rng.randrange(4):
        case 0:
            rng.shuffle(rows)
        case 1:
            rows.insert(rng.randrange(len(rows) + 1), rng.choice(rng.choice(ROWS)))
        case 2 if len(rows) > 1:
            rows.pop(rng.randrange(len(rows) - 1))
        case _:
            rows[rng.randrange(len(rows))] = rng.choice(rng.choice(ROWS))
    return bytes(pack(rows))


def swap_signature(rng: random.Random) -> bytes:
    rows = [list(row) for row in rng.choice(ROWS)]
    row = rng.choice(rows)
    row[1] = rng.choice(
        (rng.choice(rng.choice(ROWS))[1], rng.randbytes(64), row[1][32:] + row[1][:32], row[1][:-1] + b"\x10")
    )
    return bytes(pack(rows))


def test_the_unmutated_chains_are_accepted() -> None:
    assert [judge(data) for data in VALID] == [""] * len(VALID)


def test_no_mutation_of_a_chain_is_accepted() -> None:
    """Except the identical bytes, and a valid chain's own prefix, which is its earlier holder's chain."""
    rng, cache = random.Random(20260101), SignatureCache()
    good = {bytes(pack(rows[:n])) for rows in ROWS for n in range(1, len(rows) + 1)}
    for data in VALID:
        judge(data, cache)  # a warm cache must not help
    codes: Counter[str] = Counter()
    same = 0
    for mutate in (flip, cut, set_field, deep_field, permute, swap_signature):
        for _ in range(MUTATIONS):
            data = mutate(rng)
            if data in good:
                same += 1
                continue
            code = judge(data, cache)
            assert code != "", (mutate.__name__, data.hex())
            assert code == "needs trust" or code in DOCUMENTED, code
            codes[code] += 1
    assert sum(codes.values()) >= 20_000, (sum(codes.values()), same)
    for expected in ("reject.grant_signature", "reject.chain_broken", "reject.grant_widens", "reject.targets_widen"):
        assert codes[expected] > 20, codes
