"""The one relation, ``within``: what is missing or unknown is not within, and nothing can be widened by spelling."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.delegation.scope import (
    AtMost,
    Before,
    Caveat,
    OneOf,
    Prefix,
    Scope,
    all_within,
    allows,
    covers,
    decode_scopes,
    encode_scopes,
    scope,
    scopes,
    within,
)
from agentbus.errors import Malformed, ProgrammingError

NAMES = st.sampled_from(["a", "a:*", "a:b", "a:b:*", "a:b:c", "a:bb", "ab", "ab:*", "b:*"])
CAVEATS = st.sampled_from(
    [
        AtMost(1),
        AtMost(5),
        AtMost(-3),
        OneOf("x"),
        OneOf("x", "y"),
        OneOf(),
        Prefix(""),
        Prefix("x"),
        Prefix("xy"),
        Before(datetime(2026, 1, 1, tzinfo=UTC)),
        Before(datetime(2027, 1, 1, tzinfo=UTC)),
    ]
)
SCOPES = st.builds(
    lambda name, caveats: Scope(name, **caveats),
    NAMES,
    st.dictionaries(st.sampled_from(["f", "g", "at"]), CAVEATS, max_size=3),
)
FACTS = st.dictionaries(
    st.sampled_from(["f", "g", "at"]),
    st.one_of(st.integers(-5, 8), st.sampled_from(["", "x", "y", "xy", "xyz"]), st.floats(), st.booleans()),
)
NARROW = settings(max_examples=400, deadline=None)


@NARROW
@given(SCOPES)
def test_every_scope_is_within_itself(of: Scope) -> None:
    assert within(of, of)
    assert all_within([of], [of])


@NARROW
@given(SCOPES, SCOPES, SCOPES)
def test_within_is_transitive(a: Scope, b: Scope, c: Scope) -> None:
    if within(a, b) and within(b, c):
        assert within(a, c)


@NARROW
@given(SCOPES, SCOPES)
def test_two_scopes_within_each_other_are_one(a: Scope, b: Scope) -> None:
    """But for the two ways to write "never": they are within each other only when equal, too."""
    if within(a, b) and within(b, a):
        assert a == b


@NARROW
@given(SCOPES, SCOPES, NAMES, FACTS)
def test_what_the_narrower_allows_the_wider_allows(a: Scope, b: Scope, name: str, facts: dict[str, Any]) -> None:
    if within(a, b) and allows([a], name, facts):
        assert allows([b], name, facts)


@NARROW
@given(st.lists(SCOPES, max_size=4), st.lists(SCOPES, max_size=4), NAMES, FACTS)
def test_a_list_within_a_list_allows_no_more(
    children: list[Scope], parents: list[Scope], name: str, facts: dict[str, Any]
) -> None:
    if all_within(children, parents) and allows(children, name, facts):
        assert allows(parents, name, facts)


@NARROW
@given(st.lists(SCOPES, max_size=5))
def test_scopes_come_back_from_the_wire(some: list[Scope]) -> None:
    made = scopes(some)
    assert decode_scopes(encode_scopes(made)) == made


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        ("a:*", "a"),
        ("a:*", "ab"),
        ("a:*", "ab:c"),
        ("a", "a:b"),
        ("a:b", "a:*"),
        ("a:b:*", "a:*"),
        ("a", "A"),
        ("a:*", "a:"),
        ("a:b", "a:bc"),
        ("a.b:*", "a:b"),
        ("a:b", "a:*"),
    ],
)
def test_a_neighbouring_name_is_not_covered(parent: str, child: str) -> None:
    assert not covers(parent, child)


def test_of_nothing_only_nothing_is_within() -> None:
    assert all_within([], [])
    assert not all_within([Scope("a")], [])
    assert not allows([], "a", {})


HOLDS: list[tuple[Any, dict[str, Any], bool]] = [
    (AtMost(5), {}, False),
    (AtMost(5), {"f": 5}, True),
    (AtMost(5), {"f": 6}, False),
    (AtMost(5), {"f": 5.5}, False),
    (AtMost(5), {"f": True}, False),
    (AtMost(5), {"f": "5"}, False),
    (AtMost(5), {"f": None}, False),
    (AtMost(5), {"f": float("nan")}, False),
    (AtMost(5), {"f": float("inf")}, False),
    (AtMost(-3), {"f": -2}, False),
    (AtMost(-3), {"f": -4}, True),
    (AtMost(0), {"f": False}, False),
    (OneOf("x"), {}, False),
    (OneOf("x"), {"f": "x"}, True),
    (OneOf("x"), {"f": "X"}, False),
    (OneOf("x"), {"f": ["x"]}, False),
    (OneOf(), {"f": ""}, False),
    (OneOf("xy"), {"f": "x"}, False),
    (OneOf("\u00e9"), {"f": "e\u0301"}, False),
    (Prefix("/a/"), {}, False),
    (Prefix("/a/"), {"f": "/a"}, False),
    (Prefix("/a/"), {"f": "/a/b"}, True),
    (Prefix(""), {"f": 5}, False),
    (Prefix(""), {"f": "anything"}, True),
    (Before(datetime(2026, 1, 1, tzinfo=UTC)), {"f": 1_767_225_600_000_000}, False),
    (Before(datetime(2026, 1, 1, tzinfo=UTC)), {"f": 1_767_225_599_999_999}, True),
    (Before(datetime(2026, 1, 1, tzinfo=UTC)), {}, False),
    (Before(datetime(2026, 1, 1, tzinfo=UTC)), {"f": True}, False),
]


@pytest.mark.parametrize(("caveat", "facts", "expected"), HOLDS)
def test_a_caveat_holds_only_for_a_fact_of_its_type(caveat: Any, facts: dict[str, Any], expected: bool) -> None:
    assert allows([Scope("a", f=caveat)], "a", facts) is expected


def test_an_unknown_operator_never_holds_and_is_within_nothing() -> None:
    """Not even itself: whoever does not know what it says, cannot pass it on."""
    (of,) = decode_scopes([["a", [["f", "matches", ".*"]]]])
    assert not allows([of], "a", {"f": "x"})
    assert not within(of, of)
    assert within(of, Scope("a"))


def test_a_bound_of_another_type_never_holds() -> None:
    for op, value in (("le", "z"), ("before", "z"), ("prefix", 5)):
        (of,) = decode_scopes([["a", [["f", op, value]]]])
        assert not allows([of], "a", {"f": "a"}) and not allows([of], "a", {"f": 1})
        assert not within(Scope("a", f=AtMost(1)), of) and not within(of, of)


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        (Scope("a"), Scope("a", f=AtMost(5))),
        (Scope("a", f=AtMost(6)), Scope("a", f=AtMost(5))),
        (Scope("a", g=AtMost(5)), Scope("a", f=AtMost(5))),
        (Scope("a", f=Before(datetime(1970, 1, 1, tzinfo=UTC))), Scope("a", f=AtMost(5))),
        (Scope("a", f=OneOf("x", "z")), Scope("a", f=OneOf("x", "y"))),
        (Scope("a", f=OneOf("xy")), Scope("a", f=Prefix("x"))),
        (Scope("a", f=Prefix("x")), Scope("a", f=Prefix("xy"))),
        (Scope("a", f=AtMost(1)), Scope("a", f=AtMost(5), g=AtMost(5))),
        (Scope("a:*", f=AtMost(1)), Scope("a:b", f=AtMost(5))),
    ],
)
def test_a_caveat_cannot_be_dropped_loosened_or_swapped(child: Scope, parent: Scope) -> None:
    assert not within(child, parent)


BAD: list[Any] = [
    None,
    "a",
    [["a"]],
    [["a", [], []]],
    [[1, []]],
    [["a", None]],
    ["a"],
    [["A", []]],
    [["b", []], ["a", []]],
    [["a", []], ["a", []]],
    [["a", [["f", "le"]]]],
    [["a", [["f", "le", True]]]],
    [["a", [["f", "le", None]]]],
    [["a", [["f", "le", b"x"]]]],
    [["a", [["f", "le", ["x"]]]]],
    [["a", [["f", "in", "x"]]]],
    [["a", [["f", "in", [1]]]]],
    [["a", [["f", "in", ["y", "x"]]]]],
    [["a", [["f", "in", ["x", "x"]]]]],
    [["a", [["", "le", 1]]]],
    [["a", [["f", "", 1]]]],
    [["a", [["f" * 65, "le", 1]]]],
    [["a", [["f", "l" * 17, 1]]]],
    [["a", [["f", "prefix", "x" * 257]]]],
    [["a", [["g", "le", 1], ["f", "le", 1]]]],
    [["a", [["f", "le", 1], ["f", "le", 2]]]],
    [["a", [[f"f{n:02}", "le", 1] for n in range(17)]]],
    [[f"a{n:03}", []] for n in range(65)],
    [["a", [["f", "le", 1]]], ["a", [["f", "le", "x"]]]],
    [["a", [["f", "in", [f"{n:03}" for n in range(65)]]]]],
    [["a", [[1, "le", 1]]]],
]


@pytest.mark.parametrize("wire", BAD, ids=range(len(BAD)))
def test_a_second_spelling_of_scopes_is_refused(wire: Any) -> None:
    with pytest.raises(Malformed) as caught:
        decode_scopes(wire)
    assert caught.value.code in ("malformed.scopes", "malformed.scope")


@pytest.mark.parametrize("bad", [5, "x", None, AtMost(True), AtMost(1.5), Before(datetime(2026, 1, 1))])  # type: ignore[arg-type]
def test_what_is_no_caveat_is_a_usage_error(bad: Any) -> None:
    """A time without a zone, a bool, a float: found before anything is signed."""
    with pytest.raises(ProgrammingError) as caught:
        Scope("a", f=bad)
    assert caught.value.code == "usage.scope"


def test_one_text_is_not_a_list_of_scopes() -> None:
    with pytest.raises(ProgrammingError) as caught:
        scopes("pay")
    assert caught.value.code == "usage.scope"


def test_a_caveat_shows_in_a_scopes_text() -> None:
    assert str(Scope("pay", amount=AtMost(5), to=OneOf("a", "b"))) == "pay[amount≤5, to∈{a,b}]"
    assert Caveat("f", "le", 1).holds({"f": 1})


@given(
    st.recursive(
        st.one_of(
            st.integers(-2, 2),
            st.sampled_from(["a", "f", "le", "in", "a:*"]),
            st.none(),
            st.booleans(),
            st.binary(max_size=2),
        ),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=12,
    )
)
@NARROW
def test_arbitrary_scopes_raise_malformed_alone(wire: Any) -> None:
    try:
        found = decode_scopes(wire)
    except Malformed:
        return
    assert encode_scopes(found) == wire


TEXTS = st.from_regex(r"[a-z0-9./ -]*[a-z0-9]", fullmatch=True).map(str.strip)
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
SHOWN = st.one_of(
    st.integers(-(10**12), 10**12).map(AtMost),
    st.lists(TEXTS, max_size=3).map(lambda values: OneOf(*values)),
    st.from_regex(r"/[a-z0-9/.]{0,10}", fullmatch=True).map(Prefix),
    INSTANTS.map(Before),
)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), SHOWN, max_size=4))
def test_a_scope_is_read_as_it_is_shown(caveats: dict[str, Any]) -> None:
    made = Scope("pay:send", **caveats)
    assert scope(str(made)) == made


@pytest.mark.parametrize(
    "text",
    ["pay[]", "pay[amount]", "pay[amount<=]", "pay[amount<=1.5]", "pay[amount<=1,amount<=2]", "pay[to∈a]",
     "pay[at<noon]", "pay[path^{a}]", "pay[amount<=5,]x]", "pay[=5]", "pay[amount>5]", "[amount<=5]",
     "pay[at<2026-01-01T00:00]"],
)  # fmt: skip
def test_a_scope_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises((ProgrammingError, Malformed)) as caught:
        scope(text)
    assert caught.value.code in ("usage.scope", "malformed.scope")
    if caught.value.code == "usage.scope":
        assert re.search("fact<=NUMBER|each fact and operator once|with a time zone", caught.value.message)


def test_a_scopes_text_with_caveats_stands_alone() -> None:
    with pytest.raises(ProgrammingError) as caught:
        Scope("pay[amount<=5]")
    assert "without Scope" in caught.value.message
