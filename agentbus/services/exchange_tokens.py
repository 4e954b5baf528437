"""The access tokens that are issued here (RFC 9068 claims, EdDSA): made, read, and the keys they verify with.

Beside the registered claims a token says what it rests on: ``agentbus_links`` (digests of the links of the chain),
``agentbus_targets`` and ``agentbus_depth``. So an exchange of the token finds out that a link above it was revoked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentbus.authn.jws import MAX_TOKEN, public_jwk, read_compact, sign_compact, verify_compact
from agentbus.crypto.keys import SigningKey
from agentbus.delegation.outside import IssuerKey
from agentbus.delegation.records import OnlineKey
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError, Denied, Malformed, Rejected
from agentbus.wire.ids import PrincipalId, b64, parse_id
from agentbus.wire.limits import LIMITS, SECOND

CODES: Final = {
    "denied.exchange_size": "The access token would be larger than what its readers take; name fewer targets.",
    "reject.token_revoked": "This access token was revoked.",
}

ACCESS_LIFE: Final = 300 * SECOND
TYPE: Final = "at+jwt"


@dataclass(frozen=True, slots=True)
class OwnToken:
    """An access token of ours, verified."""

    subject: PrincipalId
    audience: str
    client: str
    scopes: tuple[str, ...]
    expires: int  # microseconds
    jti: str
    act: Mapping[str, Any] | None
    may_act: str | None
    links: tuple[str, ...]
    targets: tuple[str, ...]
    depth: int
    acr: str


def issuer_name(domain: str) -> str:
    """The ``iss`` of the access tokens of a trust domain."""
    return f"spiffe://{domain}"


def sign_access(granted: Any, key: SigningKey, *, domain: str, now: int, jti: bytes) -> str:
    """The access token that an exchange granted (RFC 9068 §2.2, RFC 8693 §4.1).

    Raises:
        Denied: ``denied.exchange_size``.
        Rejected: ``reject.grant_expired`` where less than a second is left.
    """
    ends = granted.expires // SECOND
    if ends * SECOND <= now:
        raise Rejected("reject.grant_expired", "less than a second is left of what the token would rest on")
    claims: dict[str, Any] = {
        "iss": issuer_name(domain),
        "sub": str(granted.subject),
        "aud": str(granted.audience),
        "client_id": str(granted.client),
        "exp": ends,
        "iat": now // SECOND,
        "jti": b64(jti),
        "scope": " ".join(granted.scopes),
        "agentbus_links": list(granted.links),
        "agentbus_targets": [str(t) for t in granted.targets],
        "agentbus_depth": granted.depth,
    }
    claims |= {"act": granted.act} if granted.act is not None else {}
    claims |= {"acr": granted.acr} if granted.acr else {}
    token = sign_compact(key, {"typ": TYPE}, claims)
    if len(token) > MAX_TOKEN:
        raise Denied("denied.exchange_size", f"{len(token)} characters; at most {MAX_TOKEN}")
    return token


def jwks(trust: Trust, *, now: int) -> dict[str, Any]:
    """The keys that verify access tokens issued here (RFC 7517 §5), from the directory's own log."""
    return {"keys": [public_jwk(k.key) for k in _keys(trust, now).values()]}


def is_own(token: str, domain: str) -> bool:
    """Whether a token says that it was issued here. It chooses the verifier, which then proves it."""
    try:
        return read_compact(token).claims.get("iss") == issuer_name(domain)
    except AgentBusError:
        return False


def verify_access(token: str, trust: Trust, *, now: int) -> OwnToken:
    """Judge an access token that was issued here.

    Raises:
        Malformed: ``malformed.token``. Rejected: ``reject.token_*``.
    """
    parts = read_compact(token)
    if parts.claims.get("iss") != issuer_name(trust.domain):
        raise Rejected("reject.token_issuer", "it was not issued here")
    kid = parts.header.get("kid")
    online = _keys(trust, now).get(kid) if isinstance(kid, str) else None
    if online is None:
        raise Rejected("reject.token_key", "no current token key of this trust domain has its kid")
    claims = verify_compact(parts, IssuerKey(str(kid), "EdDSA", online.key.raw), types=(TYPE,))
    try:
        made = _own(claims)
    except (KeyError, TypeError, ValueError, AttributeError, Malformed) as error:
        raise Rejected("reject.token_claims", "its claims are not those of an access token issued here") from error
    if now >= made.expires:
        raise Rejected("reject.token_expired", "it has expired; exchange anew")
    if claims["iat"] * SECOND > now + LIMITS.skew:
        raise Rejected("reject.token_early", "it was issued in the future; check the clocks")
    return made


def _keys(trust: Trust, now: int) -> dict[str, OnlineKey]:
    return {b64(i): k for i, k in trust.online.items() if k.role == "token" and k.counts(now)}


def _own(claims: dict[str, Any]) -> OwnToken:
    may_act = claims.get("may_act")
    links = tuple(bytes.fromhex(link).hex() for link in claims["agentbus_links"])
    return OwnToken(
        parse_id(claims["sub"]), str(claims["aud"]), str(claims["client_id"]), tuple(claims["scope"].split()),
        int(claims["exp"]) * SECOND, str(claims["jti"]), claims.get("act"),
        None if may_act is None else str(may_act["sub"]), links, tuple(map(str, claims["agentbus_targets"])),
        int(claims["agentbus_depth"]), str(claims.get("acr", "")),
    )  # fmt: skip
