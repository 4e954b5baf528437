"""Published edge cases, weak keys, and one purpose for each signature."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from agentbus.crypto.cache import SignatureCache
from agentbus.crypto.keys import CurveKey, SigningKey, VerifyKey, thumbprint
from agentbus.crypto.signing import Purpose, pae, sign, verify
from agentbus.errors import BadSignature, InvalidKey

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "published"
KEY = SigningKey(b"\x07" * 32)


def vectors(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def accepts(key: str, message: str, signature: str) -> bool:
    try:
        VerifyKey(bytes.fromhex(key)).verify(bytes.fromhex(message), bytes.fromhex(signature))
    except (InvalidKey, BadSignature):
        return False
    return True


def test_every_edge_signature_of_speccheck_is_refused() -> None:
    cases = vectors("ed25519-speccheck.json")
    assert len(cases) == 12
    taken = [at for at, case in enumerate(cases) if accepts(case["pub_key"], case["message"], case["signature"])]
    assert taken == []


def test_speccheck_3_is_refused_by_the_check_on_its_key() -> None:
    """libsodium alone accepts it: a mixed-order key."""
    case = vectors("ed25519-speccheck.json")[3]
    with pytest.raises(InvalidKey) as caught:
        VerifyKey(bytes.fromhex(case["pub_key"]))
    assert caught.value.code == "key.weak"


def test_wycheproof_is_judged_as_labelled() -> None:
    groups = vectors("ed25519-wycheproof.json")["testGroups"]
    wrong, count = [], 0
    for group in groups:
        for case in group["tests"]:
            count += 1
            taken = accepts(group["publicKey"]["pk"], case["msg"], case["sig"])
            if taken != (case["result"] == "valid"):
                wrong.append(case["tcId"])
    assert (count, wrong) == (151, [])


WEAK = {
    "identity": (1).to_bytes(32, "little"),
    "zero, order 4": bytes(32),
    "order 2": ((1 << 255) - 20).to_bytes(32, "little"),
    "order 8": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    "order 8, sign bit": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    "not canonical, p": ((1 << 255) - 19).to_bytes(32, "little"),
    "not canonical, p + 1": ((1 << 255) - 18).to_bytes(32, "little"),
    "all ones": b"\xff" * 32,
    "off the curve": (2).to_bytes(32, "little"),
}


@pytest.mark.parametrize("raw", WEAK.values(), ids=list(WEAK))
def test_a_weak_key_cannot_become_an_object(raw: bytes) -> None:
    with pytest.raises(InvalidKey) as caught:
        VerifyKey(raw)
    assert caught.value.code == "key.weak"


@pytest.mark.parametrize("raw", [b"", b"k" * 31, b"k" * 33, "k" * 32, None, bytearray(32), 32])
@pytest.mark.parametrize("kind", [VerifyKey, SigningKey, CurveKey])
def test_what_is_not_32_bytes_is_no_key(kind: Any, raw: Any) -> None:
    with pytest.raises(InvalidKey) as caught:
        kind(raw)
    assert caught.value.code == "key.length"


@pytest.mark.parametrize("signature", [b"", b"s" * 63, b"s" * 65, bytes(64), None, "s" * 64])
def test_what_is_not_64_good_bytes_is_no_signature(signature: Any) -> None:
    with pytest.raises(BadSignature) as caught:
        KEY.public.verify(b"body", signature)
    assert caught.value.code == "key.bad_signature"


def test_a_malleated_signature_is_refused() -> None:
    """S + L verifies under libraries that do not demand the one S."""
    order = (1 << 252) + 27742317777372353535851937790883648493
    good = KEY.sign(b"body")
    s = int.from_bytes(good[32:], "little") + order
    with pytest.raises(BadSignature):
        KEY.public.verify(b"body", good[:32] + s.to_bytes(32, "little"))


def test_no_signature_is_accepted_for_another_purpose() -> None:
    body = b"the same bytes"
    made = {purpose: sign(KEY, purpose, body) for purpose in Purpose}
    cache = SignatureCache()
    for mine, theirs in product(Purpose, Purpose):
        if mine is theirs:
            verify(KEY.public, mine, body, made[mine])
            cache.verify(KEY.public, mine, body, made[mine])
            cache.verify(KEY.public, mine, body, made[mine])
            continue
        for check in (verify, cache.verify):
            with pytest.raises(BadSignature):
                check(KEY.public, theirs, body, made[mine])


def test_a_raw_signature_is_good_for_no_purpose() -> None:
    for purpose in Purpose:
        with pytest.raises(BadSignature):
            verify(KEY.public, purpose, b"body", KEY.sign(b"body"))


def test_pae_is_dsse_v1_and_unambiguous() -> None:
    assert pae(Purpose.GRANT, b"hi") == b"DSSEv1 32 application/vnd.agentbus.grant.v1 2 hi".replace(
        b" 32 ", b" %d " % len(Purpose.GRANT.value)
    )
    assert len({pae(p, b) for p in Purpose for b in (b"", b" ", b"1 ", b"DSSEv1")}) == 4 * len(Purpose)
    assert len({p.value for p in Purpose}) == len(Purpose)


def test_a_cached_signature_is_no_other_keys() -> None:
    cache, other = SignatureCache(), SigningKey(b"\x08" * 32)
    made = sign(KEY, Purpose.BATCH, b"x")
    cache.verify(KEY.public, Purpose.BATCH, b"x", made)
    for key, body, signature in (
        (other.public, b"x", made),
        (KEY.public, b"y", made),
        (KEY.public, b"x", made[:-1] + b"\x00"),
        (KEY.public, b"x", b""),
    ):
        with pytest.raises(BadSignature):
            cache.verify(key, Purpose.BATCH, body, signature)
        with pytest.raises(BadSignature):  # a refusal is not remembered as anything
            cache.verify(key, Purpose.BATCH, body, signature)


def test_bytes_moved_between_body_and_signature_do_not_hit_the_cache() -> None:
    cache = SignatureCache()
    made = sign(KEY, Purpose.BATCH, b"body")
    cache.verify(KEY.public, Purpose.BATCH, b"body", made)
    whole = made + pae(Purpose.BATCH, b"body")
    with pytest.raises(BadSignature):
        cache.verify(KEY.public, Purpose.BATCH, whole[64:], whole[:64])


def test_a_flood_under_one_key_forgets_only_its_own() -> None:
    cache = SignatureCache(keys=3, per_key=2)
    keys = [SigningKey(bytes([n]) * 32) for n in range(1, 6)]
    first = sign(keys[0], Purpose.BATCH, b"x")
    cache.verify(keys[0].public, Purpose.BATCH, b"x", first)
    for key in keys[1:]:  # the first key is used between all the others, so it is never the least recent
        cache.verify(key.public, Purpose.BATCH, b"x", sign(key, Purpose.BATCH, b"x"))
        cache.verify(keys[0].public, Purpose.BATCH, b"x", first)
    assert keys[0].public.raw in cache._seen
    assert len(cache._seen) == 3
    for n in range(5):
        cache.verify(keys[1].public, Purpose.BATCH, bytes([n]), sign(keys[1], Purpose.BATCH, bytes([n])))
    assert max(len(mine) for mine in cache._seen.values()) == 2


def test_a_flood_under_many_keys_forgets_only_its_own() -> None:
    """One agent has as many instance keys as it publishes: what they hold together is bounded, and theirs to lose."""
    cache = SignatureCache(per_key=32, entries=128)
    made = [sign(KEY, Purpose.BATCH, bytes([n])) for n in range(8)]
    for n, signature in enumerate(made):
        cache.verify(KEY.public, Purpose.BATCH, bytes([n]), signature)
    honest = list(cache._seen[KEY.public.raw])
    for k in range(1, 13):
        flooder = SigningKey(bytes([64 + k]) * 32)
        for n in range(40):
            body = bytes([n]) * 16_000
            cache.verify(flooder.public, Purpose.GRANT, body, sign(flooder, Purpose.GRANT, body))
        held = sum(len(mine) for mine in cache._seen.values())
        assert held == cache._count <= 128
    assert list(cache._seen[KEY.public.raw]) == honest
    assert {len(what) for mine in cache._seen.values() for what in mine} == {32}, "digests, whatever was signed"


def test_no_private_key_shows_in_its_repr() -> None:
    assert KEY.seed.hex() not in repr(KEY)
    assert "BwcHBwcH" not in repr(KEY)
    assert CurveKey(b"\x07" * 32).secret.hex() not in repr(CurveKey(b"\x07" * 32))


def test_the_key_id_is_the_rfc_7638_thumbprint() -> None:
    """RFC 8037, appendix A.3."""
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert thumbprint(raw).hex() == VerifyKey(raw).id.hex()
    from agentbus.wire.ids import b64

    assert b64(thumbprint(raw)) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
