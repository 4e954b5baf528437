"""Chains drawn for people: what each link narrowed, and nothing a terminal would obey."""

from __future__ import annotations

import re

from agentbus import AtMost, Authority, Scope
from agentbus.delegation.scope import scopes
from agentbus.testing.draw import HOUR, NOON, World, chain_bytes, draw_chain, draw_world
from agentbus.wire.limits import SECOND


def drawn(world: World, drawing: str, **more: object) -> list[str]:
    links = draw_chain(drawing, world=world, **more)  # type: ignore[arg-type]
    return Authority.from_bytes(chain_bytes(links)).tree().splitlines()


def test_each_link_is_drawn_with_what_it_narrowed() -> None:
    world = draw_world()
    changes = {
        1: {"scopes": scopes(["docs:read", Scope("pay", amount=AtMost(5))]), "expires": NOON + 60 * SECOND},
        2: {"targets": (world.id("bob"), world.id("erin")), "purpose": "summarise", "conversation": b"c" * 16,
            "scopes": scopes(["docs:read"]), "expires": NOON + 60 * SECOND, "pinned_key": b"k" * 32},
    }  # fmt: skip
    assert drawn(world, "alice -[docs:*,pay,quote]-> carol -[docs:read]-> dave -[docs:read]-> frank", changes=changes) \
        == [
            "user/alice (user root)",
            "└─ carol: docs:*, pay, quote, depth 2",
            "      to everyone, until 2026-01-01 13:00:00 UTC",
            "   └─ dave: docs:read, pay[amount≤5], depth 1",
            "         without quote",
            "         docs:read, of docs:*",
            "         pay[amount≤5], of pay",
            "         only until 2026-01-01 12:01:00 UTC",
            "      └─ frank: docs:read, depth 0",
            "            without pay[amount≤5]",
            "            only to bob, erin",
            "            only in one conversation",
            "            only under one identity key of its holder",
            "            for summarise",
        ]  # fmt: skip


def test_an_empty_link_is_drawn_as_nothing() -> None:
    lines = drawn(draw_world(), "alice -[]-> carol", targets=[])
    assert lines[1:] == ["└─ carol: nothing, depth 0", "      to nobody, until 2026-01-01 13:00:00 UTC"]


def test_many_targets_are_counted() -> None:
    world = draw_world(*"abcdefgh", "carol")
    assert "to a, b, c, d, e, f and 2 more" in "\n".join(drawn(world, "alice -[]-> carol", targets=[*"abcdefgh"]))


def test_what_an_issuer_wrote_moves_no_cursor() -> None:
    world = draw_world()
    evil = scopes([Scope("pay", to=AtMost(HOUR))])
    object.__setattr__(evil[0].caveats[0], "fact", "\x1b[2J\x07\u202e")
    lines = drawn(world, "alice -[pay]-> carol", changes={0: {"scopes": evil, "purpose": "\x1b]0;owned\x07\r\n"}})
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e]", "".join(lines))
