"""Scopes and their one relation: :func:`within`.

Rule 1: nothing here decides what a scope means, only whether one is within another.
Rule 2: the lattice is small and decidable: segments, a single trailing ``*``, four kinds of caveat; no regex.
Rule 3: what is missing or unknown is *not* within: an unknown operator, a missing fact, an empty grant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agentbus.errors import Malformed, ProgrammingError
from agentbus.wire.ids import check_scope_name
from agentbus.wire.limits import LIMITS

CODES: Final = {
    "malformed.scopes": "Scopes are an ascending list of [name, ascending list of [fact, op, value]] within bounds.",
    "usage.scope": "A caveat is AtMost(int), OneOf(str, …), Prefix(str) or Before(datetime with a time zone).",
}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Fact = str | int | float
Wire = list[Any]


@dataclass(frozen=True, slots=True)
class Caveat:
    """One narrowing of a scope: the fact it looks at, the operator and the bound."""

    fact: str
    op: str
    value: int | str | tuple[str, ...]

    def holds(self, facts: Mapping[str, Fact]) -> bool:
        """Whether the facts satisfy it; a missing fact, or one of another type, does not."""
        fact = facts.get(self.fact)
        value = self.value
        if self.op in ("le", "before"):
            number = isinstance(fact, int | float) and not isinstance(fact, bool) and isinstance(value, int)
            return number and (fact <= value if self.op == "le" else fact < value)  # type: ignore[operator]
        if self.op == "in":
            return isinstance(fact, str) and isinstance(value, tuple) and fact in value
        if self.op == "prefix":
            return isinstance(fact, str) and isinstance(value, str) and fact.startswith(value)
        return False

    def within(self, other: Caveat) -> bool:
        """Whether everything that satisfies this satisfies ``other``."""
        if (self.fact, self.op) != (other.fact, other.op):
            return False
        mine, theirs = self.value, other.value
        if self.op in ("le", "before"):
            return isinstance(mine, int) and isinstance(theirs, int) and mine <= theirs
        if self.op == "in":
            return isinstance(mine, tuple) and isinstance(theirs, tuple) and set(mine) <= set(theirs)
        if self.op == "prefix":
            return isinstance(mine, str) and isinstance(theirs, str) and mine.startswith(theirs)
        return False


@dataclass(frozen=True, slots=True)
class AtMost:
    """A number no greater than this. Integers only: count cents, not euros."""

    bound: int


@dataclass(frozen=True, slots=True, init=False)
class OneOf:
    """One of these texts."""

    values: tuple[str, ...]

    def __init__(self, *values: str) -> None:
        object.__setattr__(self, "values", tuple(sorted(set(values))))


@dataclass(frozen=True, slots=True)
class Prefix:
    """A text that begins so. Compare normalised paths: ``/x/../y`` begins with ``/x/`` as well."""

    text: str


@dataclass(frozen=True, slots=True)
class Before:
    """An instant before this one."""

    instant: datetime


@dataclass(frozen=True, slots=True, init=False)
class Scope:
    """A permission's name, and the caveats that narrow it.

    ``Scope("pay:send", amount=AtMost(100), to=OneOf("shop"))``. Without caveats a plain ``"pay:send"`` is the same.

    Args:
        name: ``docs:read``, or ``docs:*`` for everything below ``docs``.
        caveats: One caveat for each fact.

    Raises:
        Malformed: ``malformed.scope``.
        ProgrammingError: ``usage.scope``.
    """

    name: str
    caveats: tuple[Caveat, ...]

    def __init__(self, name: str, **caveats: AtMost | OneOf | Prefix | Before) -> None:
        if "[" in name:
            raise ProgrammingError(
                "usage.scope",
                f"{name!r}: such a text stands alone, without Scope(…); or Scope('pay', amount=AtMost(5))",
            )
        object.__setattr__(self, "name", check_scope_name(name))
        object.__setattr__(self, "caveats", tuple(sorted(map(_caveat, caveats.items()), key=_caveat_order)))

    def __str__(self) -> str:
        signs = {"le": "≤", "in": "∈", "prefix": "^", "before": "<"}
        shown = ", ".join(f"{c.fact}{signs.get(c.op, c.op)}{_shown(c.value)}" for c in self.caveats)
        return f"{self.name}[{shown}]" if shown else self.name


def scope(of: str | Scope) -> Scope:
    """``of`` as a Scope: itself, a name, or what a scope with caveats is shown as.

    Raises:
        Malformed: ``malformed.scope``. ProgrammingError: ``usage.scope``.
    """
    if isinstance(of, Scope):
        return of
    return _parse(of) if isinstance(of, str) and of.endswith("]") else Scope(of)


def scopes(of: Iterable[str | Scope]) -> tuple[Scope, ...]:
    """Scopes in the one order they have on the wire, without repetitions."""
    if isinstance(of, str):
        raise ProgrammingError("usage.scope", f"scopes are a list of names, not the one text {of!r}; write [{of!r}]")
    return tuple(sorted(set(map(scope, of)), key=encode_scope))


def covers(parent: str, child: str) -> bool:
    """Whether the name ``child`` is ``parent`` or lies below it."""
    return child == parent or (parent.endswith(":*") and child.startswith(parent[:-1]) and len(child) >= len(parent))


def within(child: Scope, parent: Scope) -> bool:
    """Whether everything ``child`` allows, ``parent`` allows: the one relation all attenuation is built of."""
    return covers(parent.name, child.name) and all(any(c.within(p) for c in child.caveats) for p in parent.caveats)


def all_within(children: Iterable[Scope], parents: Sequence[Scope]) -> bool:
    """Whether each of ``children`` is within one of ``parents``. Of no parents, only no children are."""
    return all(any(within(child, parent) for parent in parents) for child in children)


def allows(granted: Iterable[Scope], name: str, facts: Mapping[str, Fact]) -> bool:
    """Whether one of ``granted`` covers ``name`` and has all its caveats satisfied by ``facts``."""
    return any(covers(g.name, name) and all(c.holds(facts) for c in g.caveats) for g in granted)


def encode_scope(of: Scope) -> Wire:
    """``[name, [[fact, op, value], …]]``."""
    return [of.name, [[c.fact, c.op, list(c.value) if isinstance(c.value, tuple) else c.value] for c in of.caveats]]


def encode_scopes(of: Iterable[Scope]) -> list[Wire]:
    """The ascending list that stands in a grant."""
    return [encode_scope(s) for s in of]


def decode_scopes(wire: Any) -> tuple[Scope, ...]:
    """Read scopes: ascending, bounded, well-typed. An unknown operator is kept, and never holds.

    Raises:
        Malformed: ``malformed.scopes``, ``malformed.scope``.
    """
    if type(wire) is not list or len(wire) > LIMITS.scopes:
        raise Malformed("malformed.scopes", f"a list of at most {LIMITS.scopes} scopes")
    found = tuple(_decode_scope(item) for item in wire)
    try:
        ascending = all(a < b for a, b in zip(wire, wire[1:], strict=False))
    except TypeError as error:
        raise Malformed("malformed.scopes", "scopes of one name differ in the type of a value") from error
    if not ascending:
        raise Malformed("malformed.scopes", "scopes ascend, without repetition")
    return found


def _decode_scope(wire: Any) -> Scope:
    if type(wire) is not list or len(wire) != 2 or type(wire[0]) is not str or type(wire[1]) is not list:
        raise Malformed("malformed.scopes", "a scope is [name, caveats]")
    if len(wire[1]) > LIMITS.caveats:
        raise Malformed("malformed.scopes", f"at most {LIMITS.caveats} caveats")
    made = Scope(wire[0])
    caveats = tuple(_decode_caveat(item) for item in wire[1])
    order = [_caveat_order(c) for c in caveats]
    if any(a >= b for a, b in zip(order, order[1:], strict=False)):
        raise Malformed("malformed.scopes", "caveats ascend by fact and operator")
    object.__setattr__(made, "caveats", caveats)
    return made


def _decode_caveat(wire: Any) -> Caveat:
    if type(wire) is not list or len(wire) != 3 or type(wire[0]) is not str or type(wire[1]) is not str:
        raise Malformed("malformed.scopes", "a caveat is [fact, op, value]")
    fact, op, value = wire
    if not 0 < len(fact) <= 64 or not 0 < len(op) <= 16:
        raise Malformed("malformed.scopes", "a fact or operator is empty or too long")
    if op == "in":
        if type(value) is not list or len(value) > LIMITS.scopes or any(type(v) is not str for v in value):
            raise Malformed("malformed.scopes", "∈ takes a list of texts")
        if any(a >= b for a, b in zip(value, value[1:], strict=False)):
            raise Malformed("malformed.scopes", "the texts of ∈ ascend")
        return Caveat(fact, op, tuple(value))
    if type(value) not in (int, str) or (type(value) is str and len(value) > LIMITS.text):
        raise Malformed("malformed.scopes", "a caveat's value is an integer or a text")
    return Caveat(fact, op, value)


def _caveat(item: tuple[str, AtMost | OneOf | Prefix | Before]) -> Caveat:
    fact, of = item
    if isinstance(of, AtMost) and type(of.bound) is int:
        return Caveat(fact, "le", of.bound)
    if isinstance(of, OneOf):
        return Caveat(fact, "in", of.values)
    if isinstance(of, Prefix):
        return Caveat(fact, "prefix", of.text)
    if isinstance(of, Before) and of.instant.tzinfo is not None:
        return Caveat(fact, "before", (of.instant - _EPOCH) // timedelta(microseconds=1))
    raise ProgrammingError("usage.scope", f"{fact}={of!r}: {CODES['usage.scope']}")


_WRITTEN: Final = "a caveat is fact<=NUMBER, fact∈{a,b}, fact^PREFIX or at<INSTANT with its offset; commas between them"
_SHOWN: Final = re.compile(r"\s*([^\s≤<∈^=,{}]{1,64})\s*(≤|<=|<|∈|\^)\s*(\{[^{}]*\}|[^{},]+?)\s*(?:,|$)")


def _parse(text: str) -> Scope:
    """``pay:send[amount<=100, to∈{a,b}, path^/x/, at<2026-01-01T00:00Z]``: what :meth:`Scope.__str__` shows."""
    name, _, rest = text[:-1].partition("[")
    made, caveats, at = Scope(name), [], 0
    while at < len(rest):
        found = _SHOWN.match(rest, at)
        if found is None:
            raise ProgrammingError("usage.scope", f"{text!r}: cannot be read from {rest[at:]!r}; {_WRITTEN}")
        fact, op, value = found.groups()
        caveats.append(_caveat((fact, _bound(op, value, text))))
        at = found.end()
    order = [_caveat_order(c) for c in sorted(caveats, key=_caveat_order)]
    if not caveats or len(set(order)) != len(order):
        raise ProgrammingError("usage.scope", f"{text!r}: one caveat or more, each fact and operator once")
    object.__setattr__(made, "caveats", tuple(sorted(caveats, key=_caveat_order)))
    return made


def _bound(op: str, value: str, text: str) -> AtMost | OneOf | Prefix | Before:
    try:
        if op in ("≤", "<="):
            return AtMost(int(value))
        if op == "∈" and value.startswith("{"):
            return OneOf(*(item.strip() for item in value[1:-1].split(",") if item.strip()))
        if op == "^" and not value.startswith("{"):
            return Prefix(value)
        if op == "<":
            number = value.isascii() and value.isdigit()
            return Before(_EPOCH + timedelta(microseconds=int(value)) if number else datetime.fromisoformat(value))
    except (ValueError, OverflowError) as error:
        raise ProgrammingError("usage.scope", f"{text!r}: {error}; {_WRITTEN}") from error
    raise ProgrammingError("usage.scope", f"{text!r}: {_WRITTEN}")


def _caveat_order(caveat: Caveat) -> tuple[str, str]:
    return (caveat.fact, caveat.op)


def _shown(value: int | str | tuple[str, ...]) -> str:
    return "{" + ",".join(value) + "}" if isinstance(value, tuple) else str(value)
