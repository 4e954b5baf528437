"""One spelling for each value and each id; anything else is refused, not repaired."""

from __future__ import annotations

import contextlib
import struct

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.errors import Malformed
from agentbus.wire.codec import pack, unpack, unpack_array
from agentbus.wire.ids import (
    b64,
    check_scope_name,
    everyone,
    is_everyone,
    name_id,
    parse_id,
    unb64,
)
from agentbus.wire.sync import decode_sync, encode_sync

VALUES = st.recursive(
    st.one_of(
        st.integers(-(1 << 63), (1 << 64) - 1), st.booleans(), st.none(), st.binary(max_size=40), st.text(max_size=40)
    ),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


def refuse(data: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        unpack_array(data)
    with pytest.raises(Malformed):
        unpack(data)
    return caught.value.code


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, max_size=8))
def test_a_value_comes_back_and_has_one_spelling(value: list[object]) -> None:
    data = pack(value)
    assert unpack_array(data) == unpack(data) == value
    assert pack(unpack(data)) == data


NOT_CANONICAL = {
    "1 as uint8": b"\x91\xcc\x01",
    "1 as uint16": b"\x91\xcd\x00\x01",
    "1 as uint32": b"\x91\xce\x00\x00\x00\x01",
    "1 as uint64": b"\x91\xcf" + bytes(7) + b"\x01",
    "1 as int8": b"\x91\xd0\x01",
    "-1 as int8": b"\x91\xd0\xff",
    "-1 as int64": b"\x91\xd3" + b"\xff" * 8,
    "200 as int16": b"\x91\xd1\x00\xc8",
    "array16 of one": b"\xdc\x00\x01\x01",
    "array32 of one": b"\xdd\x00\x00\x00\x01\x01",
    "str8 of one": b"\x91\xd9\x01a",
    "str16 of one": b"\x91\xda\x00\x01a",
    "bin16 of one": b"\x91\xc5\x00\x01a",
    "bin32 of one": b"\x91\xc6\x00\x00\x00\x01a",
    "nested": b"\x91\xdc\x00\x00",
}


@pytest.mark.parametrize("data", NOT_CANONICAL.values(), ids=list(NOT_CANONICAL))
def test_a_second_spelling_is_refused(data: bytes) -> None:
    assert refuse(data) == "malformed.not_canonical"


NOT_PLAIN = {
    "empty": b"",
    "map": b"\x91\x80",
    "map of one": b"\x91\x81\xa1a\x01",
    "map with duplicate keys": b"\x91\x82\xa1a\x01\xa1a\x02",
    "map with an array as key": b"\x91\x81\x90\x01",
    "float64": b"\x91\xcb" + struct.pack(">d", 1.5),
    "float32": b"\x91\xca" + struct.pack(">f", 1.5),
    "nan": b"\x91\xcb" + struct.pack(">d", float("nan")),
    "ext of nothing": b"\x91\xc7\x00\x05",
    "ext": b"\x91\xd4\x05a",
    "timestamp": b"\x91\xd6\xff" + bytes(4),
    "timestamp 96": b"\x91\xc7\x0c\xff" + bytes(12),
    "never used byte": b"\x91\xc1",
    "two values": b"\x90\x90",
    "array without its item": b"\x92\x01",
    "array of four billion": b"\xdd\xff\xff\xff\xff",
    "bytes of four billion": b"\x91\xc6\xff\xff\xff\xff",
    "no UTF-8": b"\x91\xa1\xff",
    "surrogate": b"\x91\xa3\xed\xa0\x80",
    "overlong UTF-8": b"\x91\xa2\xc0\x80",
    "deep": b"\x91" * 18 + b"\xc0",
    "deeper than Python's stack, not than msgpack's": b"\x91" * 990 + b"\xc0",
    "very deep": b"\x91" * 60_000 + b"\xc0",
}


@pytest.mark.parametrize("data", NOT_PLAIN.values(), ids=list(NOT_PLAIN))
def test_what_has_no_place_in_a_statement_is_refused(data: bytes) -> None:
    assert refuse(data) in ("malformed.codec", "malformed.not_canonical")


@pytest.mark.parametrize("data", [b"\xc0", b"\x01", b"\xa1a", b"\xc4\x01a", b"\xc3"])
def test_a_scalar_is_no_statement(data: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        unpack_array(data)
    assert caught.value.code == "malformed.codec"


def test_a_fixed_length_is_exact() -> None:
    for count in (0, 1, 3):
        with pytest.raises(Malformed):
            unpack_array(pack([0] * count), 2)


def test_a_failed_encoding_leaves_nothing_behind() -> None:
    """The packer is shared: half a value of one caller must not lead the bytes of the next."""
    for bad in ([1, 2, object()], [1 << 70], ["a", {1, 2}]):
        with pytest.raises((TypeError, OverflowError, ValueError)):
            pack(bad)
        assert pack([1]) == b"\x91\x01"


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_malformed_alone(data: bytes) -> None:
    for read in (unpack, unpack_array, decode_sync):
        with contextlib.suppress(Malformed):
            read(data)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.one_of(st.integers(-9, 9), st.floats(), st.text(max_size=3), st.binary(max_size=3), st.none()),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=2), inner, max_size=3)),
        max_leaves=12,
    )
)
def test_whatever_msgpack_can_say_is_plain_or_malformed(value: object) -> None:
    try:
        found = unpack(msgpack.packb(value))
    except Malformed:
        return
    assert "{" not in repr(found).replace("'{'", "") or isinstance(found, str | list | bytes)
    assert pack(found) == msgpack.packb(value)


# ── ids ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

BAD_IDS = [
    "",
    "carol",
    "spiffe://",
    "spiffe://local.test",
    "spiffe://local.test/",
    "spiffe://local.test/agent/",
    "spiffe://local.test/agent/Carol",
    "spiffe://Local.test/agent/carol",
    "SPIFFE://local.test/agent/carol",
    "spiffe://local.test/agent/carol/",
    "spiffe://local.test/agent/carol/x",
    "spiffe://local.test//agent/carol",
    "spiffe://local.test/agent/carol\n",
    "\nspiffe://local.test/agent/carol",
    "spiffe://local.test/agent/carol ",
    "spiffe://local.test/agent/car%6fl",
    "spiffe://local.test/group/all",
    "spiffe://local.test/admin/carol",
    "spiffe://local.test/agent/-carol",
    "spiffe://local.test/agent/carol-",
    "spiffe://local.test/agent/..",
    "spiffe://local..test/agent/carol",
    "spiffe://.local/agent/carol",
    "spiffe://user@local.test/agent/carol",
    "spiffe://local.test:80/agent/carol",
    "spiffe://local.test/agent/carol?x",
    "spiffe://local.test/agent/carol#x",
    "spiffe://local.test/agent/c\u0430rol",
    "spiffe://local.test/agent/\u0663",
    "spiffe://local.test/agent/\uff41",
    "spiffe://local.test/agent/" + "a" * 65,
    "spiffe://" + "a." * 130 + "a/agent/b",
    "spiffe://local.test/agent/a\x00",
    "https://local.test/agent/carol",
    "spiffe://local.test/agent",
    "spiffe:///agent/carol",
]


@pytest.mark.parametrize("text", BAD_IDS)
def test_what_merely_looks_like_an_id_is_refused(text: str) -> None:
    for _ in range(2):  # a cache must not learn it
        with pytest.raises(Malformed) as caught:
            parse_id(text)
        assert caught.value.code == "malformed.id"


def test_an_id_has_its_parts() -> None:
    who = parse_id("spiffe://local.test/user/alice.b_c-d")
    assert (who.domain, who.kind, who.name, who.short) == ("local.test", "user", "alice.b_c-d", "user/alice.b_c-d")
    assert name_id("carol", "local.test") == parse_id("spiffe://local.test/agent/carol")
    assert name_id("carol", "local.test").short == "carol"
    assert name_id("user/alice", "local.test").kind == "user"


@pytest.mark.parametrize(
    "name", ["", "Carol", "group/all", "a/b/c", "/carol", "user/", "carol\n", "all/x", "spiffe:/x"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(Malformed):
        name_id(name, "local.test")


def test_everyone_is_a_target_and_no_principal() -> None:
    group = everyone("local.test")
    assert is_everyone(group) and not is_everyone(group + "/x") and not is_everyone(group + "\n")
    with pytest.raises(Malformed):
        parse_id(group)


BAD_SCOPES = [
    "",
    "*",
    ":*",
    "docs:",
    ":docs",
    "docs::read",
    "docs:*:x",
    "docs:*x",
    "do*s",
    "Docs",
    "docs read",
    "docs:*:*",
    "docs\n",
    "docs:\u0440ead",
    "a" * 257,
    "docs*",
    "docs:**",
    "docs/read",
]


@pytest.mark.parametrize("name", BAD_SCOPES)
def test_what_is_no_scope_is_refused(name: str) -> None:
    with pytest.raises(Malformed) as caught:
        check_scope_name(name)
    assert caught.value.code == "malformed.scope"


@given(st.binary(max_size=60))
def test_base64_comes_back(raw: bytes) -> None:
    assert unb64(b64(raw)) == raw
    assert unb64(b64(raw), len(raw)) == raw


@pytest.mark.parametrize("text", ["A", "AA==", "AB", "A A", "AA\n", "+/", "AAA=", "Ą", "AA.A", "A" * 5])
def test_base64_has_one_spelling(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        unb64(text)
    assert caught.value.code == "malformed.base64"


def test_base64_of_another_length_is_refused() -> None:
    with pytest.raises(Malformed):
        unb64(b64(b"x" * 31), 32)


# ── frames of the directory's synchronisation ────────────────────────────────────────────────────────────────────────


def test_a_sync_frame_comes_back() -> None:
    assert decode_sync(encode_sync("head", 3, b"note", [b"entry"], [])) == ("head", 3, [b"note", [b"entry"], []])
    assert decode_sync(encode_sync("enrol", 1, "x", b"", b"", 1, b""))[0] == "enrol"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x02",
        b"\x02" + pack([]),
        b"\x02" + pack(["poll"]),
        b"\x02" + pack(["poll", True, 1, b"", b""]),
        b"\x02" + pack(["poll", 1, True, b"", b""]),
        b"\x02" + pack(["poll", 1]),
        b"\x02" + pack(["poll", 1, 1, b"", b"", 1]),
        b"\x02" + pack(["nothing", 1]),
        b"\x02" + pack([["poll"], 1, 1, b""]),
        b"\x02" + pack(["find", 1, [[b"x"]], []]),
        b"\x02" + pack(["find", 1, [1], []]),
        b"\x03" + pack(["poll", 1, 1, b""]),
        b"\x02" + pack(["enrol", 1, "x", b"", b"", 1, b""]),
        b"\x02" + pack(["find", 1, [b""] * 4097, []]),
        b"\x02\x80",
    ],
)
def test_a_sync_frame_has_the_shape_of_its_operation(frame: bytes) -> None:
    with pytest.raises(Malformed):
        decode_sync(frame)


@pytest.mark.parametrize("tag", [0, 1, 4, 255])
def test_a_sync_frame_begins_with_its_own_byte(tag: int) -> None:
    """An envelope's tag, or none that exists, is no synchronisation."""
    with pytest.raises(Malformed):
        decode_sync(bytes([tag]) + pack(["poll", 1, 1, b""]))
