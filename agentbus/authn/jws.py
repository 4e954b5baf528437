"""Compact JWS (RFC 7515 §7.1) and JWT (RFC 7519), strictly: one form, one meaning, and the key decides the algorithm.

Rule 1: nothing in a token chooses how it is verified: algorithm and key come from a record, never from ``jwk``,
``jku``, ``x5u`` or ``x5c``; whatever ``crit`` names is unknown here, so a token that has one is refused.
Rule 2: Ed25519 is verified by :class:`~agentbus.crypto.keys.VerifyKey` alone; other algorithms by joserfc.
Rule 3: a duplicate name, a stray bit of base64, NaN or a second spelling is refused: two readers must not see two
tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from agentbus.crypto.keys import SigningKey, VerifyKey
from agentbus.delegation.outside import IssuerKey
from agentbus.errors import BadSignature, ConfigError, InvalidKey, Malformed, Rejected
from agentbus.wire.ids import b64, unb64

CODES: Final = {
    "malformed.token": "A token is three base64url parts of at most 8192 characters; header and claims are JSON objects"
    " without duplicate names.",
    "reject.token_algorithm": "The token's algorithm is not the one of the key it is to be verified with.",
    "reject.token_type": "The token's `typ` is of another kind than is taken here.",
    "reject.token_critical": "The token demands (`crit`) an extension that is not known here.",
    "reject.token_signature": "The token's signature does not verify.",
    "config.extra": "This needs a library that is not installed: pip install 'agentbus-signed[server]'.",
}

MAX_TOKEN: Final = 8192  # characters; a header line of most servers holds no more
MIN_RSA: Final = 2048  # bits (RFC 7518 §3.3)
_NAMES: Final = {"EdDSA": ("EdDSA", "Ed25519")}  # RFC 8037 and RFC 9864: two names of one algorithm


@dataclass(frozen=True, slots=True)
class Compact:
    """A token's parts. Nothing in it is proven."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes  # the signing input: both parts, as they came
    signature: bytes


def read_compact(token: str) -> Compact:
    """The parts of a token, its form checked.

    Raises:
        Malformed: ``malformed.token``.
    """
    if type(token) is not str or len(token) > MAX_TOKEN or not token.isascii():
        raise Malformed("malformed.token", f"a token has at most {MAX_TOKEN} characters of base64url and two dots")
    parts = token.split(".")
    if len(parts) != 3:
        raise Malformed("malformed.token", "a token is three parts with dots between; JSON forms are not taken")
    header, claims, signature = (_raw(part) for part in parts)
    return Compact(_object(header), _object(claims), f"{parts[0]}.{parts[1]}".encode(), signature)


def verify_compact(token: Compact, key: IssuerKey, *, types: tuple[str | None, ...]) -> dict[str, Any]:
    """The claims, when ``key`` signed them under its own algorithm.

    Args:
        types: Values of ``typ`` that are taken (RFC 8725 §3.11); None: absent.

    Raises:
        Rejected: ``reject.token_algorithm``, ``reject.token_type``, ``reject.token_critical``,
            ``reject.token_signature``.
    """
    algorithm = token.header.get("alg")
    if algorithm not in _NAMES.get(key.algorithm, (key.algorithm,)):
        raise Rejected("reject.token_algorithm", f"signed as {str(algorithm)[:32]!r}; the key is for {key.algorithm}")
    kind = token.header.get("typ")
    if kind not in types or (kind is not None and type(kind) is not str):
        raise Rejected("reject.token_type", f"a token of type {str(kind)[:32]!r} is of no use here")
    if "crit" in token.header:
        raise Rejected("reject.token_critical", "it demands an extension that is not known here")
    try:
        if key.algorithm == "EdDSA":
            VerifyKey(key.key).verify(token.signed, token.signature)
        else:
            _verify_elsewhere(token, key)
    except (BadSignature, InvalidKey) as error:
        raise Rejected("reject.token_signature", "the token's signature does not verify") from error
    return token.claims


def sign_compact(key: SigningKey, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """A compact JWS under EdDSA (RFC 8037). A key that signs these signs nothing else."""
    head = {"alg": "EdDSA", "kid": b64(key.id), **header}
    signed = ".".join(b64(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
    return f"{signed}.{b64(key.sign(signed.encode()))}"


def public_jwk(key: VerifyKey) -> dict[str, str]:
    """A public key as an entry of a JWKS (RFC 8037 §2)."""
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.raw), "kid": b64(key.id), "use": "sig", "alg": "EdDSA"}


def read_jwks(text: str) -> tuple[IssuerKey, ...]:
    """The signing keys of a JWKS (RFC 7517 §5) that can be taken here; others are left out.

    Raises:
        Malformed: ``malformed.token``: no JWKS. InvalidKey: a key is weak. ConfigError: ``config.extra``.
    """
    keys = _object(text.encode()).get("keys")
    if type(keys) is not list or any(type(key) is not dict for key in keys):
        raise Malformed("malformed.token", 'a JWKS is {"keys": [{…}, …]}')
    return tuple(key for key in map(_issuer_key, keys) if key is not None)


def _issuer_key(jwk: dict[str, Any]) -> IssuerKey | None:
    kid, kind, curve = jwk.get("kid", ""), jwk.get("kty"), jwk.get("crv")
    if jwk.get("use", "sig") != "sig" or type(kid) is not str or "d" in jwk:
        return None
    if (kind, curve) == ("OKP", "Ed25519"):
        raw = unb64(str(jwk.get("x", "")), 32)
        VerifyKey(raw)
        return IssuerKey(kid, "EdDSA", raw)
    algorithm = {("EC", "P-256"): "ES256", ("RSA", None): jwk.get("alg", "RS256")}.get((str(kind), curve))
    if algorithm not in ("ES256", "RS256", "PS256"):
        return None
    public = {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}
    made = IssuerKey(kid, algorithm, json.dumps(public, sort_keys=True, separators=(",", ":")).encode())
    _jwk(made)
    return made


def _verify_elsewhere(token: Compact, key: IssuerKey) -> None:
    public = _jwk(key)  # first: it says which library is missing
    from joserfc import jws
    from joserfc.errors import JoseError

    whole = token.signed + b"." + b64(token.signature).encode()
    try:
        jws.deserialize_compact(whole, public, algorithms=[key.algorithm])
    except (JoseError, ValueError) as error:
        raise BadSignature("key.bad_signature", "does not verify") from error


def _jwk(key: IssuerKey) -> Any:
    """joserfc's key: of the algorithm's own type, and strong enough."""
    try:
        from joserfc.jwk import ECKey, RSAKey
    except ImportError as error:
        raise ConfigError(
            "config.extra", f"{key.algorithm} needs joserfc: pip install 'agentbus-signed[server]'"
        ) from error
    try:
        made: Any = (ECKey if key.algorithm == "ES256" else RSAKey).import_key(json.loads(key.key))
        bits = made.public_key.key_size
    except Exception as error:  # a library's own errors, of a key that somebody else wrote
        raise InvalidKey("key.weak", f"the key {key.kid!r} cannot be used for {key.algorithm}") from error
    if key.algorithm != "ES256" and bits < MIN_RSA:
        raise InvalidKey("key.weak", f"an RSA key of {bits} bits; {MIN_RSA} are the least")
    return made


def _raw(part: str) -> bytes:
    try:
        return unb64(part)
    except Malformed as error:
        raise Malformed("malformed.token", "a part of the token is not canonical base64url") from error


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        if isinstance(error, Malformed):
            raise
        raise Malformed("malformed.token", "header or claims are no JSON") from error
    if type(found) is not dict:
        raise Malformed("malformed.token", "header and claims are JSON objects")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise Malformed("malformed.token", "a name stands twice in one object")
    return dict(pairs)


def _refuse(constant: str) -> NoReturn:
    raise Malformed("malformed.token", f"{constant} is no JSON")
