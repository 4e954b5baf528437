"""What holds of every chain: a further link never allows more, and links of honest chains make no others."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.delegation.chain import Authority, verify_chain
from agentbus.delegation.decide import require
from agentbus.delegation.grant import Link, target_within
from agentbus.delegation.scope import AtMost, OneOf, Prefix, Scope, scopes
from agentbus.errors import AgentBusError, Malformed, Rejected
from agentbus.testing.draw import HOUR, NOON, World, chain_bytes, draw_chain, draw_world
from agentbus.wire.ids import everyone

WORLD = draw_world("bob", "carol", "dave", "erin", ceiling=("pay", "docs:*"))
AGENTS = ("bob", "carol", "dave", "erin")

CAVEATS = st.fixed_dictionaries(
    {},
    optional={
        "amount": st.integers(0, 4).map(AtMost),
        "to": st.lists(st.sampled_from("abc"), max_size=3).map(lambda v: OneOf(*v)),
        "path": st.sampled_from(["", "/", "/x", "/x/y"]).map(Prefix),
    },
)
ONE = st.builds(lambda name, c: Scope(name, **c), st.sampled_from(["pay", "docs:*", "docs:read", "docs:x:*"]), CAVEATS)
SCOPES = st.just([Scope("pay"), Scope("docs:*")]) | st.lists(ONE, max_size=3) | ONE.map(lambda one: [one])
FACTS = st.fixed_dictionaries(
    {},
    optional={
        "amount": st.integers(0, 5) | st.just("4"),
        "to": st.sampled_from("abcd"),
        "path": st.sampled_from(["", "/", "/x", "/x/y/z", "x"]),
    },
)
TARGETS = st.none() | st.just(list(AGENTS)) | st.lists(st.sampled_from(AGENTS), max_size=3)
LINK = st.fixed_dictionaries(
    {"scopes": SCOPES, "targets": TARGETS, "expires": st.integers(1, 3), "depth": st.integers(1, 4)}
)


def fields(of: dict[str, Any]) -> dict[str, Any]:
    aim = of["targets"]
    targets = (everyone(WORLD.domain),) if aim is None else tuple(sorted({WORLD.id(t) for t in aim}))
    granted = scopes({str(s): s for s in of["scopes"]}.values())
    return {"scopes": granted, "targets": targets, "expires": NOON + of["expires"] * HOUR // 3, "depth": of["depth"]}


def narrowing(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same links, each made to keep some rules by itself, so that many of them are honest."""
    found: list[dict[str, Any]] = []
    for step in map(fields, steps):
        if found:
            above = found[-1]
            step["expires"] = min(step["expires"], above["expires"])
            step["depth"] = min(step["depth"], above["depth"] - 1) if above["depth"] else 0
        found.append(step)
    return found


def chain(world: World, names: list[str], steps: list[dict[str, Any]]) -> tuple[Link, ...]:
    drawing = "alice" + "".join(f" -[]-> {name}" for name in names)
    return draw_chain(drawing, world=world, changes=dict(enumerate(steps)))


def allowed(links: tuple[Link, ...], to: str, scope: str, facts: dict[str, Any], now: int) -> bool:
    """Whether a request under this chain may reach a handler of ``to`` that requires ``scope`` given ``facts``."""
    try:
        authority = verify_chain(chain_bytes(links), trust=WORLD.trust, now=now)
        require(authority, scope, facts, trust=WORLD.trust, now=now)
    except (Rejected, AgentBusError):
        return False
    return all(target_within(link.grant.targets, WORLD.id(to), WORLD.domain) for link in links)


@settings(max_examples=300, deadline=None)
@given(
    names=st.permutations(AGENTS),
    steps=st.lists(LINK, min_size=2, max_size=4),
    scope=st.sampled_from(["pay", "docs:read", "docs:x:y"]),
    facts=FACTS,
    to=st.sampled_from(AGENTS),
    later=st.sampled_from([0, 0, 0, 1, 2, 3]),
)
def test_a_longer_chain_never_allows_more(
    names: list[str], steps: list[dict[str, Any]], scope: str, facts: dict[str, Any], to: str, later: int
) -> None:
    """allow(chain + link) ⇒ allow(chain): for scopes with caveats, facts, targets, time and depth together."""
    links = chain(WORLD, names[: len(steps)], narrowing(steps))
    now = NOON + later * HOUR // 3
    verdicts = [allowed(links[:count], to, scope, facts, now) for count in range(1, len(links) + 1)]
    assert verdicts == sorted(verdicts, reverse=True)


def honest(world: World) -> list[tuple[Link, ...]]:
    """Every chain of this office: they share users, agents, roots and prefixes, as chains of one office do."""
    ways = ["carol", "carol dave", "carol dave erin", "dave carol", "dave carol erin", "erin", "carol erin dave", "bob"]
    found = []
    for way in ways:
        names = way.split()
        wide = "".join(f" -[{'pay,docs:*' if n < 2 else 'docs:read'}]-> {name}" for n, name in enumerate(names))
        found.append(draw_chain(f"alice{wide}", world=world, depth=4))
        narrow = "".join(f" -[docs:read]-> {name}" for name in names)
        found.append(draw_chain(f"alice{narrow}", world=world, depth=4, targets=["bob", "dave"]))
    return found


HONEST = honest(WORLD)
PREFIXES = {chain_bytes(links[:count]) for links in HONEST for count in range(1, len(links) + 1)}
POOL = sorted({link.digest: link for links in HONEST for link in links}.values(), key=lambda link: link.digest)


def accepted(data: bytes) -> Authority | None:
    try:
        return verify_chain(data, trust=WORLD.trust, now=NOON)
    except (Malformed, Rejected):
        return None


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(POOL), min_size=1, max_size=4))
def test_links_of_honest_chains_make_no_other_chain(links: list[Link]) -> None:
    """Splice, graft, reorder, repeat, drop: whatever is accepted is a beginning of what somebody honestly made."""
    data = chain_bytes(links)
    assert (accepted(data) is not None) == (data in PREFIXES)


def test_no_two_honest_chains_recombine() -> None:
    """Every head of every chain before every tail of every other: all refused, but those that are the chains."""
    count = 0
    for one in HONEST:
        for other in HONEST:
            for cut in range(len(one) + 1):
                for start in range(len(other) + 1):
                    made = (*one[:cut], *other[start:])
                    if made:
                        count += 1
                        data = chain_bytes(made)
                        assert (accepted(data) is not None) == (data in PREFIXES)
    assert count > 1000


def test_a_beginning_of_a_chain_is_the_authority_of_the_one_it_ends_at() -> None:
    """So stripping a link gives nothing to whoever strips it: it ends at the one it was taken from."""
    for data in PREFIXES:
        authority = accepted(data)
        assert authority is not None and authority.holder == authority.links[-1].grant.audience
