"""Outside issuers' tokens: libraries that nobody here wrote make them, and every known trick with them is refused."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import warnings
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.errors import SecurityWarning
from joserfc.jwk import OKPKey, RSAKey

from agentbus.authn import jws
from agentbus.authn.foreign import ForeignToken, verify_foreign
from agentbus.authn.jws import MAX_TOKEN, read_compact, read_jwks, verify_compact
from agentbus.delegation.outside import Issuer, IssuerKey
from agentbus.delegation.scope import scopes
from agentbus.errors import AgentBusError, ConfigError, InvalidKey, Malformed, Rejected
from agentbus.wire.ids import PrincipalId, b64, unb64
from agentbus.wire.limits import SECOND
from tests.authn.idp import AUDIENCE, IDP, IdentityProvider, encode

NOW = 1_767_268_800
PROVIDER = IdentityProvider()
APP = PrincipalId("spiffe://local.test/agent/app")


def issuer(**changes: Any) -> Issuer:
    keys = read_jwks(json.dumps(PROVIDER.jwks))
    rule = Issuer(IDP, True, AUDIENCE, keys, scopes(["docs:*"]), (("web", APP),), "sub", "", 4, 0, ())
    return replace(rule, **changes)


def judge(token: str, *, now: int = NOW, **changes: Any) -> ForeignToken:
    return verify_foreign(token, {IDP: issuer(**changes)}, now=now * SECOND)


def refuse(code: str, token: str, **more: Any) -> None:
    with pytest.raises(AgentBusError) as caught:
        judge(token, **more)
    assert caught.value.code == code, caught.value
    assert token not in str(caught.value) and token not in json.dumps(caught.value.details)


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
@pytest.mark.parametrize("maker", ["joserfc", "pyjwt"])
def test_tokens_of_other_libraries_are_read(algorithm: str, maker: str) -> None:
    make = PROVIDER.token if maker == "joserfc" else PROVIDER.by_pyjwt
    token = judge(make(NOW, algorithm, acr="mfa", scope="docs:read mail"))
    assert (token.subject, token.user, token.client, token.acr) == ("alice", "alice", "web", "mfa")
    assert token.expires == (NOW + 900) * SECOND and token.scopes == ("docs:read", "mail")
    assert token.jti.startswith("jti:token-")


def test_both_names_of_one_algorithm_are_taken() -> None:
    """RFC 9864 calls ``EdDSA`` with Ed25519 keys ``Ed25519``."""
    key = PROVIDER.keys["EdDSA"]
    for name in ("EdDSA", "Ed25519"):
        assert judge(encode({"alg": name, "kid": "ed"}, PROVIDER.claims(NOW), key)).user == "alice"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": NOW}, "reject.token_expired"),
        ({"exp": NOW - 1}, "reject.token_expired"),
        ({"exp": None}, "reject.token_claims"),
        ({"exp": "tomorrow"}, "reject.token_claims"),
        ({"exp": True}, "reject.token_claims"),
        ({"exp": 1e300}, "reject.token_claims"),
        ({"exp": -1}, "reject.token_claims"),
        ({"nbf": NOW + 60}, "reject.token_early"),
        ({"iat": NOW + 60}, "reject.token_early"),
        ({"aud": "https://other.example"}, "reject.token_audience"),
        ({"aud": AUDIENCE + "/"}, "reject.token_audience"),
        ({"aud": []}, "reject.token_claims"),
        ({"aud": None}, "reject.token_claims"),
        ({"aud": [AUDIENCE, 7]}, "reject.token_claims"),
        ({"aud": [AUDIENCE, "x"], "client_id": None}, "reject.token_claims"),
        ({"azp": "mobile"}, "reject.token_claims"),
        ({"sub": None}, "reject.token_claims"),
        ({"sub": ""}, "reject.token_claims"),
        ({"sub": 7}, "reject.token_claims"),
        ({"jti": "x" * 251}, "reject.token_claims"),
        ({"acr": ["mfa"]}, "reject.token_claims"),
        ({"scope": ["docs:read"]}, "reject.token_claims"),
        ({"act": "web"}, "reject.token_claims"),
        ({"may_act": {"iss": IDP}}, "reject.token_claims"),
        ({"iss": "https://evil.example"}, "reject.token_issuer"),
        ({"iss": IDP + "/"}, "reject.token_issuer"),
        ({"iss": IDP.upper()}, "reject.token_issuer"),
        ({"iss": None}, "reject.token_issuer"),
        ({"iss": [IDP]}, "reject.token_issuer"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_claims_are_what_they_have_to_be(changes: dict[str, Any], code: str) -> None:
    refuse(code, PROVIDER.token(NOW, **changes))


def test_an_id_token_is_for_the_client_that_its_audience_names() -> None:
    token = PROVIDER.token(NOW, header={"typ": "JWT"}, client_id=None, aud="web")
    assert judge(token, audience="web").client == "web"


def test_without_a_jti_a_token_is_named_by_what_was_signed() -> None:
    one, same = PROVIDER.claims(NOW, jti=None), PROVIDER.claims(NOW, jti=None)
    assert one == same
    first, second = (judge(PROVIDER.token(NOW, "ES256", jti=None)) for _ in range(2))
    assert first.jti == second.jti and first.jti.startswith("sha256:"), "two signatures of one content are one token"


@pytest.mark.parametrize(
    ("claim", "suffix", "claims", "user"),
    [
        ("sub", "", {}, "alice"),
        ("email", "@corp.example", {"email": "bob@corp.example", "email_verified": True}, "bob"),
        ("email", "@corp.example", {"email": "bob@corp.example"}, None),
        ("email", "@corp.example", {"email": "bob@corp.example", "email_verified": "true"}, None),
        ("email", "@corp.example", {"email": "bob@evil.example", "email_verified": True}, None),
        ("email", "@corp.example", {"email": "bob@corp.example.evil", "email_verified": True}, None),
        ("name", "", {"name": ["alice"]}, None),
        ("name", "", {}, None),
    ],
)
def test_one_claim_names_the_user(claim: str, suffix: str, claims: dict[str, Any], user: str | None) -> None:
    token = PROVIDER.token(NOW, **claims)
    if user is None:
        refuse("reject.token_user", token, claim=claim, suffix=suffix)
    else:
        assert judge(token, claim=claim, suffix=suffix).user == user


def test_an_issuer_that_was_ended_counts_no_more() -> None:
    refuse("reject.token_issuer", PROVIDER.token(NOW), active=False)


# ── forgeries ────────────────────────────────────────────────────────────────────────────────────────────────────────


def forge(token: str, header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None) -> str:
    """The token with other parts and its old signature."""
    parts = token.split(".")
    for at, value in ((0, header), (1, claims)):
        if value is not None:
            old = json.loads(unb64(parts[at]))
            parts[at] = b64(json.dumps({**old, **value}).encode())
    return ".".join(parts)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", "HS256", "RS256", "ES256", "PS256", None, 7, ["EdDSA"]]
)
def test_the_key_decides_the_algorithm(algorithm: Any) -> None:
    """CVE-2022-29217 and every other algorithm confusion."""
    refuse("reject.token_algorithm", forge(PROVIDER.token(NOW), header={"alg": algorithm}))


def test_none_without_a_signature() -> None:
    token = forge(PROVIDER.token(NOW), header={"alg": "none"}).rpartition(".")[0] + "."
    refuse("reject.token_algorithm", token)
    refuse("reject.token_signature", PROVIDER.token(NOW).rpartition(".")[0] + ".")


def test_an_hmac_under_the_public_key() -> None:
    """CVE-2024-37568: the RSA public key's own text as an HMAC secret."""
    token = forge(PROVIDER.token(NOW, "RS256"), header={"alg": "HS256"})
    signed = token.rpartition(".")[0]
    for secret in (PROVIDER.keys["RS256"].as_pem(private=False), json.dumps(PROVIDER.jwks["keys"][2]).encode()):
        mac = hmac.digest(secret, signed.encode(), "sha256")
        refuse("reject.token_algorithm", f"{signed}.{b64(mac)}")


@pytest.mark.parametrize("header", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_that_comes_with_the_token_is_not_looked_at(header: str) -> None:
    """CVE-2026-27962: signed by the attacker's key, which the header brings along."""
    mine = OKPKey.generate_key("Ed25519")
    value = {"jwk": mine.as_dict(private=False), "jku": "https://evil.example/jwks", "x5u": "https://evil.example"}
    head = {"alg": "EdDSA", "kid": "ed", header: value.get(header, ["MIIB"])}
    token = encode(head, PROVIDER.claims(NOW), mine)
    refuse("reject.token_signature", token)
    good = PROVIDER.token(NOW, header={header: value.get(header, ["MIIB"])})
    assert judge(good).user == "alice", "ignored, and the issuer's own key verifies"


@pytest.mark.parametrize("kid", ["", "rs", "../../dev/null", "ed\x00", "ED", None, 7, ["ed"], "' OR 1=1"])
def test_a_kid_names_one_of_the_issuers_keys_or_none(kid: Any) -> None:
    token = PROVIDER.token(NOW)
    parts = token.split(".")
    head = json.loads(unb64(parts[0])) | {"kid": kid}
    if kid is None:
        del head["kid"]
    parts[0] = b64(json.dumps(head).encode())
    refuse("reject.token_key", ".".join(parts))


def test_a_kid_may_be_left_out_where_there_is_one_key() -> None:
    keys = tuple(key for key in issuer().keys if key.kid == "ed")
    assert judge(PROVIDER.token(NOW, header={"kid": None}), keys=keys).user == "alice"


@pytest.mark.parametrize("crit", [["exp"], ["b64"], [], "exp", None])
def test_what_is_critical_is_unknown_here(crit: Any) -> None:
    refuse("reject.token_critical", forge(PROVIDER.token(NOW), header={"crit": crit, "b64": False}))


@pytest.mark.parametrize("typ", ["dpop+jwt", "logout+jwt", "AT+JWT", "application/jwt", "", 7, ["JWT"], {"a": 1}])
def test_a_token_of_another_kind_is_of_no_use(typ: Any) -> None:
    refuse("reject.token_type", forge(PROVIDER.token(NOW), header={"typ": typ}))


def test_changed_claims_under_the_old_signature() -> None:
    for algorithm in ("EdDSA", "ES256", "RS256"):
        refuse("reject.token_signature", forge(PROVIDER.token(NOW, algorithm), claims={"sub": "operator"}))


def test_every_bit_of_a_token_counts() -> None:
    token = PROVIDER.token(NOW)
    for at in range(len(token)):
        for other in ("A", "B", "w", "."):
            changed = token[:at] + other + token[at + 1 :]
            if changed != token:
                with pytest.raises(AgentBusError):
                    judge(changed)


def test_a_key_of_one_issuer_signs_nothing_for_another() -> None:
    other = IdentityProvider()
    refuse("reject.token_signature", other.token(NOW))


@pytest.mark.parametrize("raw", [bytes(32), b"\x01" + bytes(31), (1 << 255).to_bytes(33, "little")[:32], b"\xff" * 32])
def test_a_weak_key_verifies_nothing_even_if_it_got_there(raw: bytes) -> None:
    """Under a key of small order, ``cryptography`` accepts a signature of anything."""
    token = PROVIDER.token(NOW).rpartition(".")[0] + "." + b64(b"\x01" + bytes(63))
    refuse("reject.token_signature", token, keys=(IssuerKey("ed", "EdDSA", raw),))
    with pytest.raises(InvalidKey):
        read_jwks(json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": "k"}]}))


def test_only_libsodium_verifies_ed25519(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("another library was asked about an Ed25519 signature")

    monkeypatch.setattr(jws, "_verify_elsewhere", never)
    assert judge(PROVIDER.token(NOW)).user == "alice"
    with pytest.raises(AssertionError):
        judge(PROVIDER.token(NOW, "RS256"))


def test_without_the_extra_ed25519_is_verified_and_others_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = {name: PROVIDER.token(NOW, name) for name in ("EdDSA", "ES256", "RS256")}
    rule = issuer()
    for name in [module for module in sys.modules if module.partition(".")[0] == "joserfc"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert verify_foreign(tokens["EdDSA"], {IDP: rule}, now=NOW * SECOND).user == "alice"
    for name in ("ES256", "RS256"):
        with pytest.raises(ConfigError) as caught:
            verify_foreign(tokens[name], {IDP: rule}, now=NOW * SECOND)
        assert caught.value.code == "config.extra" and "agentbus-signed[server]" in caught.value.message


# ── form ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def part(text: str) -> str:
    return b64(text.encode())


GOOD = PROVIDER.token(NOW)
HEAD, BODY, SIGNATURE = GOOD.split(".")
LAST = "_" if SIGNATURE[-1] != "_" else "-"
HEADERS = ["[]", "", "{", '{"alg":"none","alg":"EdDSA"}']
CLAIMS = [
    '{"iss":"a","iss":"b"}', '{"act":{"sub":"a","sub":"b"}}', '{"exp":NaN}', '{"exp":-Infinity}', "[" * 3000,
    '{"exp":' + "9" * 5000 + "}",
]  # fmt: skip


@pytest.mark.parametrize(
    "token",
    [
        "", ".", "..", "a.b", f"{GOOD}.", f".{GOOD}", f"{GOOD}.{SIGNATURE}", f"{HEAD}.{BODY}", f" {GOOD}", f"{GOOD}\n",
        f"{HEAD}=.{BODY}.{SIGNATURE}", f"{HEAD}.{BODY}.{SIGNATURE}==", f"{HEAD}.{BODY}.{SIGNATURE[:-1]}",
        f"{HEAD}.{BODY}.{SIGNATURE[:-1]}{LAST}", GOOD.replace(".", ".\n", 1), "é" + GOOD, "A" * (MAX_TOKEN + 1),
        json.dumps({"protected": HEAD, "payload": BODY, "signature": SIGNATURE}),
        json.dumps({"payload": BODY, "signatures": [{"protected": HEAD, "signature": SIGNATURE}]}),
        *(f"{part(text)}.{BODY}.{SIGNATURE}" for text in HEADERS),
        *(f"{HEAD}.{part(text)}.{SIGNATURE}" for text in CLAIMS),
        f"{HEAD}.{b64(bytes([0xFF, 0xFE]))}.{SIGNATURE}",
    ],
    ids=range(30),
)  # fmt: skip
def test_a_token_has_one_form(token: str) -> None:
    """JWS JSON against the compact form, duplicate names, second spellings: nothing two readers could read apart."""
    with pytest.raises(AgentBusError) as caught:
        judge(token)
    assert caught.value.code in ("malformed.token", "reject.token_signature"), caught.value


@pytest.mark.parametrize("token", [None, 7, b"a.b.c", ["a", "b", "c"]])
def test_what_is_no_text_is_no_token(token: Any) -> None:
    with pytest.raises(Malformed):
        read_compact(token)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=120).map(lambda raw: ".".join([b64(raw)] * 3)))
def test_arbitrary_texts_raise_what_is_documented(text: str) -> None:
    with pytest.raises((Malformed, Rejected)):
        judge(text)


# ── key sets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_jwks_gives_the_keys_that_can_be_used_and_no_others() -> None:
    keys = PROVIDER.jwks["keys"]
    more = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "hmac"},
        {"kty": "OKP", "crv": "X25519", "x": b64(b"x" * 32), "kid": "x25519"},
        {**keys[0], "kid": "enc", "use": "enc"},
        {**keys[0], "kid": "private", "d": "x"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "k1"},
    ]
    found = read_jwks(json.dumps({"keys": keys + more}))
    assert {key.kid: key.algorithm for key in found} == {"ed": "EdDSA", "ec": "ES256", "rsa": "RS256"}


def test_a_short_rsa_key_is_refused() -> None:
    with pytest.warns(SecurityWarning):
        weak = RSAKey.generate_key(1024, parameters={"kid": "weak"})
    with warnings.catch_warnings(action="ignore"), pytest.raises(InvalidKey) as caught:
        read_jwks(json.dumps({"keys": [weak.as_dict(private=False)]}))
    assert caught.value.code == "key.weak"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": {}}', '{"keys": [7]}', '{"keys": [], "keys": []}'])
def test_what_is_no_jwks_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_jwks(text)


def test_a_digest_of_a_key_is_the_one_that_others_compute() -> None:
    """A token of ours verifies under the kid of RFC 7638."""
    from agentbus.authn.jws import public_jwk, sign_compact
    from agentbus.crypto.keys import SigningKey

    key = SigningKey(b"\x09" * 32)
    token = sign_compact(key, {"typ": "x"}, {"a": 1})
    jwk = public_jwk(key.public)
    assert OKPKey.import_key(jwk).thumbprint() == jwk["kid"] == read_compact(token).header["kid"]
    assert verify_compact(read_compact(token), IssuerKey("", "EdDSA", key.public.raw), types=("x",)) == {"a": 1}
    assert hashlib.sha256(token.encode()).digest() != b""
