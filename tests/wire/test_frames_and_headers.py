"""Frames, proofs and headers: one form, every bound, and nothing but Malformed for whatever comes."""

from __future__ import annotations

import contextlib
import random
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.errors import Malformed
from agentbus.wire.codec import pack
from agentbus.wire.frame import Envelope, Proof, decode_frame, decode_proof, encode_frame, encode_proof
from agentbus.wire.header import ANSWERING, INDEXED, OPENING, STEERING, Header, Kind, decode_header, encode_header
from agentbus.wire.limits import LIMITS

HEADER = Header(
    1,
    Kind.REQUEST,
    b"m" * 16,
    b"c" * 16,
    "spiffe://local.test/agent/carol",
    b"i" * 16,
    b"k" * 32,
    1,
    "spiffe://local.test/agent/dave",
    b"j" * 16,
    1,
    None,
    None,
    None,
    None,
    "quote",
    1_000,
    2_000,
    "quote.v1",
    2,
    b"b" * 32,
    b"d" * 32,
    None,
    5,
    0,
    None,
    None,
    0,
    [],
)
POSITION = {name: at for at, name in enumerate(Header._fields)}
ENVELOPE = Envelope(encode_header(HEADER), b"p" * 68, b"chain", b"", b"note", b"s" * 32, b"hi")
FRAME = encode_frame(ENVELOPE)


def refuse_header(data: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        decode_header(data, LIMITS)
    return caught.value.code


def with_(**changes: Any) -> bytes:
    row = list(HEADER)
    for name, value in changes.items():
        row[POSITION[name]] = value
    return bytes(pack(row))


def of_kind(kind: Kind) -> Header:
    """A header that fits its kind."""
    return HEADER._replace(
        kind=kind,
        in_reply_to=None if kind in OPENING else b"r" * 32,
        stream_index=0 if kind in INDEXED else None,
        topic="news" if kind == Kind.EVENT else None,
    )


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_frame_comes_back() -> None:
    assert decode_frame(FRAME, LIMITS) == ENVELOPE
    assert encode_frame(decode_frame(FRAME, LIMITS)) == FRAME


def test_every_truncation_and_every_tail_is_refused() -> None:
    for end in range(len(FRAME)):
        with pytest.raises(Malformed):
            decode_frame(FRAME[:end], LIMITS)
    for tail in (b"\x00", b"hi", FRAME):
        with pytest.raises(Malformed):
            decode_frame(FRAME + tail, LIMITS)


def test_no_byte_of_the_length_table_can_change_alone() -> None:
    for at in range(29):
        for value in range(256):
            if value == FRAME[at]:
                continue
            with pytest.raises(Malformed) as caught:
                decode_frame(FRAME[:at] + bytes([value]) + FRAME[at + 1 :], LIMITS)
            assert caught.value.code == "malformed.frame"


def test_lengths_that_wrap_around_are_refused() -> None:
    lengths = list(map(len, ENVELOPE))
    lengths[0] += 1 << 31
    lengths[6] += 1 << 31
    with pytest.raises(Malformed):
        decode_frame(struct.pack(">B7I", 1, *lengths) + b"".join(ENVELOPE), LIMITS)


def test_lengths_moved_between_sections_never_raise_anything_else() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        lengths = list(map(len, ENVELOPE))
        a, b = rng.sample(range(7), 2)
        moved = rng.randrange(lengths[a] + 1)
        lengths[a] -= moved
        lengths[b] += moved
        try:
            found = decode_frame(struct.pack(">B7I", 1, *lengths) + b"".join(ENVELOPE), LIMITS)
        except Malformed:
            continue
        assert len(found.salt) == 32 and b"".join(found) == b"".join(ENVELOPE)


@pytest.mark.parametrize(
    ("section", "bound"),
    [
        ("header", LIMITS.header),
        ("proof", 260),
        ("chain", LIMITS.chain),
        ("handover", LIMITS.link),
        ("note", LIMITS.note),
    ],
)
def test_each_section_has_its_bound(section: str, bound: int) -> None:
    decode_frame(encode_frame(ENVELOPE._replace(**{section: b"x" * bound})), LIMITS)
    with pytest.raises(Malformed):
        decode_frame(encode_frame(ENVELOPE._replace(**{section: b"x" * (bound + 1)})), LIMITS)


@pytest.mark.parametrize("salt", [b"", b"s" * 31, b"s" * 33])
def test_a_salt_has_32_bytes(salt: bytes) -> None:
    with pytest.raises(Malformed):
        decode_frame(encode_frame(ENVELOPE._replace(salt=salt)), LIMITS)


def test_a_frame_has_its_bound() -> None:
    room = LIMITS.frame - len(FRAME) + 2
    decode_frame(encode_frame(ENVELOPE._replace(body=bytes(room))), LIMITS)
    with pytest.raises(Malformed):
        decode_frame(encode_frame(ENVELOPE._replace(body=bytes(room + 1))), LIMITS)
    with pytest.raises(Malformed):
        decode_frame(FRAME, replace(LIMITS, frame=len(FRAME) - 1))


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.binary(max_size=200).map(lambda tail: FRAME[:29] + tail)))
def test_arbitrary_frames_raise_malformed_alone(data: bytes) -> None:
    for read in (decode_frame, decode_proof, decode_header):
        with contextlib.suppress(Malformed):
            read(data, LIMITS)


# ── proofs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_proof_comes_back() -> None:
    proof = Proof(b"s" * 64, 64, 63, (b"a" * 32, b"b" * 32))
    assert decode_proof(encode_proof(proof), LIMITS) == proof


@pytest.mark.parametrize(("n", "position"), [(0, 0), (1, 1), (64, 64), (65, 0), (65535, 1), (2, 65535)])
def test_a_batch_has_1_to_64_headers_and_a_position_in_it(n: int, position: int) -> None:
    with pytest.raises(Malformed) as caught:
        decode_proof(encode_proof(Proof(b"s" * 64, n, position, ())), LIMITS)
    assert caught.value.code == "malformed.proof"


def test_every_other_length_of_a_proof_is_refused() -> None:
    data = encode_proof(Proof(b"s" * 64, 3, 1, (b"a" * 32, b"b" * 32)))
    for end in range(len(data)):
        if end in (68, 100):
            continue
        with pytest.raises(Malformed):
            decode_proof(data[:end], LIMITS)


# ── headers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", list(Kind))
def test_a_header_of_each_kind_comes_back(kind: Kind) -> None:
    header = of_kind(kind)
    data = encode_header(header)
    assert decode_header(data, LIMITS) == header
    assert encode_header(decode_header(data, LIMITS)) == data


def test_each_kind_asks_answers_or_steers() -> None:
    assert set(Kind) == OPENING | ANSWERING | STEERING
    assert not OPENING & ANSWERING and not OPENING & STEERING and not ANSWERING & STEERING


@pytest.mark.parametrize("kind", list(Kind))
def test_positions_that_do_not_fit_the_kind_are_refused(kind: Kind) -> None:
    good = of_kind(kind)
    bad = [
        good._replace(in_reply_to=b"r" * 32 if good.in_reply_to is None else None),
        good._replace(stream_index=0 if good.stream_index is None else None),
        good._replace(topic="news" if good.topic is None else None),
        good._replace(seq=0),
        good._replace(peer_seq=0),
        good._replace(flags=2),
        good._replace(flags=3),
    ]
    if kind not in OPENING:
        bad.append(good._replace(handover_digest=b"h" * 32))
    if kind not in (Kind.JOB, Kind.EVENT):
        bad.append(good._replace(recipient_instance=None))
    for header in bad:
        assert refuse_header(encode_header(header)) == "malformed.kind"


@pytest.mark.parametrize("kind", [0, 14, 255, 1 << 40])
def test_a_kind_that_does_not_exist_is_refused(kind: int) -> None:
    assert refuse_header(with_(kind=kind)) == "malformed.kind"


@pytest.mark.parametrize("version", [0, 2, 1 << 40])
def test_another_version_is_refused(version: int) -> None:
    assert refuse_header(with_(version=version)) == "malformed.version"


@pytest.mark.parametrize("name", Header._fields)
def test_each_position_has_its_type(name: str) -> None:
    nil = name in (
        "recipient_instance",
        "topic",
        "stream_index",
        "in_reply_to",
        "cause",
        "handover_digest",
        "checkpoint_digest",
        "traceparent",
    )
    right = {
        int: 5,
        str: "spiffe://local.test/agent/erin",
        bytes: b"x" * 32,
        list: [],
        bool: True,
        dict: {},
        float: 1.0,
    }
    kinds = {
        type(getattr(HEADER, name)),
        type(getattr(of_kind(Kind.EVENT), name)),
        type(getattr(of_kind(Kind.END), name)),
    }
    if nil:
        kinds |= {type(None)}
    if name in ("cause", "handover_digest", "checkpoint_digest"):
        kinds |= {bytes}
    if name == "traceparent":
        kinds |= {str}
    kinds = {int if k is Kind else k for k in kinds}
    for kind, value in right.items():
        if kind not in kinds:
            assert refuse_header(with_(**{name: value})) == "malformed.header", (name, kind)
    if not nil:
        assert refuse_header(with_(**{name: None})) == "malformed.header"


@pytest.mark.parametrize("name", [n for n in Header._fields if isinstance(getattr(HEADER, n), int)])
def test_no_number_is_negative_or_above_63_bits(name: str) -> None:
    for value in (-1, -(1 << 63), 1 << 63, (1 << 64) - 1):
        assert refuse_header(with_(**{name: value})) in ("malformed.header", "malformed.version")


@pytest.mark.parametrize("name", [n for n in Header._fields if isinstance(getattr(HEADER, n), bytes)])
def test_each_digest_and_id_has_its_length(name: str) -> None:
    good = getattr(HEADER, name)
    for value in (b"", good[:-1], good + b"x"):
        assert refuse_header(with_(**{name: value})) == "malformed.header"


@pytest.mark.parametrize("name", ["action", "body_type", "traceparent"])
def test_each_text_has_its_bound(name: str) -> None:
    decode_header(with_(**{name: "x" * 256}), LIMITS)
    for value in ("", "x" * 257):
        assert refuse_header(with_(**{name: value})) == "malformed.header"


@pytest.mark.parametrize("name", ["sender", "recipient"])
@pytest.mark.parametrize("who", ["", "carol", "spiffe://local.test/group/all", "spiffe://local.test/agent/Carol"])
def test_sender_and_recipient_are_ids(name: str, who: str) -> None:
    assert refuse_header(with_(**{name: who})) == "malformed.id"


@pytest.mark.parametrize(
    "extensions",
    [
        [[1, True, b""]],
        [[1, False]],
        [[1, False, b"", 0]],
        [[True, False, b""]],
        [["1", False, b""]],
        [[1, 0, b""]],
        [[1, False, "x"]],
        [[1, False, None]],
        [1],
        [[2, False, b""], [1, False, b""]],
        [[1, False, b""]] * 2,
        [[-1, False, b""]],
        [[n, False, b""] for n in range(9)],
        [[1, False, [b""]]],
        [[]],
    ],
)
def test_extensions_have_one_form_and_unknown_critical_ones_are_refused(extensions: list[Any]) -> None:
    assert refuse_header(with_(extensions=extensions)) == "malformed.extension"


def test_known_not_critical_extensions_are_carried() -> None:
    extensions = [[n, False, b"x"] for n in range(8)]
    assert decode_header(with_(extensions=extensions), LIMITS).extensions == extensions


def test_a_header_has_29_positions_and_its_bound() -> None:
    row = list(HEADER)
    for bad in (row[:-1], [*row, 0], []):
        assert refuse_header(pack(bad)) == "malformed.header"
    assert refuse_header(pack(dict(enumerate(row)))) == "malformed.header"
    assert refuse_header(with_(extensions=[[1, False, bytes(4096)]])) == "malformed.header"


def test_a_second_spelling_of_a_header_is_refused() -> None:
    data = encode_header(HEADER)
    assert data[:3] == b"\xdc\x00\x1d"
    spelled = {
        "array32": b"\xdd\x00\x00\x00\x1d" + data[3:],
        "version as uint8": data[:3] + b"\xcc\x01" + data[4:],
        "id as bin16": data.replace(b"\xc4\x10" + b"m" * 16, b"\xc5\x00\x10" + b"m" * 16),
        "action as str8": data.replace(b"\xa5quote", b"\xd9\x05quote", 1),
        "trailing": data + b"\xc0",
    }
    for name, bad in spelled.items():
        assert bad != data, name
        assert refuse_header(bad) == "malformed.header", name


def test_every_flipped_bit_reads_canonically_or_is_malformed() -> None:
    data = encode_header(HEADER)
    for at in range(len(data)):
        for bit in range(8):
            bad = data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
            try:
                found = decode_header(bad, LIMITS)
            except Malformed:
                continue
            assert encode_header(found) == bad
    for end in range(len(data)):
        refuse_header(data[:end])


def test_random_positions_of_a_header_raise_malformed_alone() -> None:
    rng = random.Random(29)
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        1,
        1 << 63,
        "",
        "x",
        b"",
        b"x" * 16,
        b"x" * 32,
        [],
        [[]],
        [[1, False, b""]],
        {},
        1.5,
    ]
    for _ in range(4000):
        row = list(HEADER)
        for _ in range(rng.randrange(1, 4)):
            row[rng.randrange(29)] = rng.choice(values)
        data = pack(row)
        with contextlib.suppress(Malformed):
            assert encode_header(decode_header(data, LIMITS)) == data
