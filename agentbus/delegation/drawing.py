"""A chain drawn for people: a line for each link, and below it what it narrowed.

Purposes, facts and values are whatever an issuer wrote: nothing of it reaches a terminal but printable characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from agentbus.delegation.grant import Grant, Link
from agentbus.delegation.scope import Scope, within
from agentbus.wire.ids import everyone, parse_id

SHOWN: Final = 6  # targets named in a line; a root may name hundreds


def tree(links: Sequence[Link]) -> str:
    """The chain as a tree: who gave whom what, and what each link took away."""
    first = links[0].grant
    lines = [f"{first.issuer.short} ({first.root_kind} root)"]
    above: Grant | None = None
    for link in links:
        of, indent = link.grant, "   " * link.grant.n
        lines.append(f"{indent}└─ {of.audience.short}: {_scopes(of.scopes)}, depth {of.depth}")
        lines += [f"{indent}      {note}" for note in (narrowed(above, of) if above else _bounds(of))]
        above = of
    return "\n".join("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) for line in lines)


def narrowed(parent: Grant, child: Grant) -> list[str]:
    """What ``child`` gives less than ``parent``, a line for each."""
    found = []
    lost = [scope for scope in parent.scopes if not any(within(s, scope) for s in child.scopes)]
    if lost:
        found.append(f"without {_scopes(lost)}")
    for scope in child.scopes:
        if scope not in parent.scopes:
            found.append(f"{scope}, of {_scopes([p for p in parent.scopes if within(scope, p)])}")
    if child.targets != parent.targets:
        found.append(f"only to {_targets(child)}")
    if child.expires != parent.expires:
        found.append(f"only until {moment(child.expires)}")
    if child.conversation is not None and parent.conversation is None:
        found.append("only in one conversation")
    return found + _own(child)


def _bounds(root: Grant) -> list[str]:
    found = [f"to {_targets(root)}, until {moment(root.expires)}"]
    if root.conversation is not None:
        found.append("only in one conversation")
    return found + _own(root)


def _own(grant: Grant) -> list[str]:
    pinned = ["only under one identity key of its holder"] if grant.pinned_key is not None else []
    return [*pinned, *([f"for {grant.purpose}"] if grant.purpose else [])]


def _scopes(of: Sequence[Scope]) -> str:
    return ", ".join(map(str, of)) or "nothing"


def _targets(of: Grant) -> str:
    if of.targets == (everyone(of.subject.domain),):
        return "everyone"
    names = [parse_id(t).short for t in of.targets[:SHOWN]]
    more = f" and {len(of.targets) - SHOWN} more" if len(of.targets) > SHOWN else ""
    return (", ".join(names) or "nobody") + more


def moment(instant: int) -> str:
    """An instant (microseconds) as people read it; a number of microseconds where no calendar has it."""
    try:
        return f"{datetime.fromtimestamp(instant / 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):  # whoever signs a grant chooses it
        return f"{instant} µs"
