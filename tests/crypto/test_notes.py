"""C2SP signed notes and checkpoints: one form, one origin, one key."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.crypto.keys import SigningKey, VerifyKey
from agentbus.crypto.note import Checkpoint, note_key_id, open_checkpoint, open_note, parse_checkpoint, sign_note
from agentbus.errors import AgentBusError, BadSignature, Malformed

KEY, OTHER = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
ORIGIN = "agentbus.local.test/directory"
POINT = Checkpoint(ORIGIN, 7, b"\x05" * 32, ("instant 1", "revocations 0"))
NOTE = sign_note(POINT.text, ORIGIN, KEY)


def test_a_checkpoint_comes_back() -> None:
    assert open_checkpoint(NOTE, ORIGIN, KEY.public) == POINT
    assert parse_checkpoint(POINT.text) == POINT
    assert open_note(NOTE, ORIGIN, KEY.public) == POINT.text


def test_the_published_example_of_signed_note_opens() -> None:
    """golang.org/x/mod/sumdb/note, the example of its documentation."""
    raw = b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    note = f"{text}\n{line}\n".encode()
    assert open_note(note, "PeterNeumann", VerifyKey(raw[1:])) == text


def test_every_flipped_bit_is_noticed() -> None:
    for at in range(len(NOTE)):
        for bit in range(8):
            bad = bytearray(NOTE)
            bad[at] ^= 1 << bit
            with pytest.raises((BadSignature, Malformed)):
                open_checkpoint(bytes(bad), ORIGIN, KEY.public)


def test_every_truncation_is_noticed() -> None:
    for end in range(len(NOTE)):
        with pytest.raises((BadSignature, Malformed)):
            open_checkpoint(NOTE[:end], ORIGIN, KEY.public)


def test_a_note_of_another_key_or_name_is_not_signed() -> None:
    for name, key in ((ORIGIN, OTHER.public), (ORIGIN + "2", KEY.public)):
        with pytest.raises(BadSignature) as caught:
            open_note(NOTE, name, key)
        assert caught.value.code == "note.not_signed"


def test_a_key_hint_alone_convinces_nobody() -> None:
    """The four bytes are the right key's, the signature another's."""
    blob = b64encode(note_key_id(ORIGIN, KEY.public) + OTHER.sign(POINT.text.encode())).decode()
    with pytest.raises(BadSignature) as caught:
        open_note(f"{POINT.text}\n— {ORIGIN} {blob}\n".encode(), ORIGIN, KEY.public)
    assert caught.value.code == "key.bad_signature"


def test_an_origin_signs_no_checkpoint_of_another_log() -> None:
    """One key, two logs: the text must name the origin that is asked for."""
    foreign = sign_note(POINT._replace(origin="agentbus.other.test/directory").text, ORIGIN, KEY)
    with pytest.raises(Malformed) as caught:
        open_checkpoint(foreign, ORIGIN, KEY.public)
    assert caught.value.code == "malformed.note"


def test_other_signatures_beside_ours_do_no_harm() -> None:
    line = sign_note(POINT.text, "witness.example", OTHER).decode().rpartition("\n\n")[2]
    text, _, mine = NOTE.decode().rpartition("\n\n")
    for order in (line + mine, mine + line):
        assert open_checkpoint(f"{text}\n\n{order}".encode(), ORIGIN, KEY.public) == POINT


def test_a_second_text_cannot_be_put_before_the_signed_one() -> None:
    with pytest.raises((BadSignature, Malformed)):
        open_note(POINT.text.encode() + b"\n" + NOTE, ORIGIN, KEY.public)


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n07\nAAAA\n",
        f"{ORIGIN}\n-1\nAAAA\n",
        f"{ORIGIN}\n+1\nAAAA\n",
        f"{ORIGIN}\n1_0\nAAAA\n",
        f"{ORIGIN}\n٣\n{b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n 1\n{b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n1\n{b64encode(bytes(31)).decode()}\n",
        f"{ORIGIN}\n1\n{b64encode(bytes(33)).decode()}\n",
        f"{ORIGIN}\n1\n{b64encode(bytes(32)).decode()[:-2]}B=\n",
        f"{ORIGIN}\n1\n{b64encode(bytes(32)).decode()}",
        f"{ORIGIN}\n1\n{b64encode(bytes(32)).decode()}\n\n",
        f"\n1\n{b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n{'9' * 20}\n{b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n1\n",
        "",
        "\n\n\n",
        f"{ORIGIN}\n{'9' * 5000}\n{b64encode(bytes(32)).decode()}\n",
    ],
)
def test_a_checkpoint_has_one_spelling(text: str) -> None:
    """Also: five thousand digits are no reason for an undocumented ValueError."""
    with pytest.raises(Malformed) as caught:
        parse_checkpoint(text)
    assert caught.value.code == "malformed.note"


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\n",
        b"\n\n",
        b"text\n\n",
        b"\xff\n\n\xe2\x80\x94 a AAAA\n",
        b"text\n\n- a AAAA\n",
        b"a\r\n\n\xe2\x80\x94 a AA==\n",
        b"text\n\n\xe2\x80\x94 a ****\n",
        b"text\n\n\xe2\x80\x94 a b AAAA\n",
        b"text\n\n\xe2\x80\x94 a AAAA",
        b"t\x00\n\n\xe2\x80\x94 a AAAA\n",
    ],
)
def test_what_is_no_note_is_malformed(bad: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        open_note(bad, "a", KEY.public)
    assert caught.value.code == "malformed.note"


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda t: t.encode("utf-8", "replace"))))
def test_arbitrary_bytes_raise_only_what_is_documented(data: bytes) -> None:
    with pytest.raises(AgentBusError):
        open_checkpoint(data, ORIGIN, KEY.public)
    with pytest.raises(Malformed):
        parse_checkpoint(data.decode("utf-8", "replace").replace("\n", " "))
