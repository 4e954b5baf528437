"""Tokens of outside issuers: who is the user, which client is it for, until when. Pure: keys and time go in.

Verification in this order, cheapest first, and nothing in the token decides how:

1. size and form ([jws.py](jws.py));
2. the issuer is one that the directory's log names, and is active;
3. the key is that issuer's, by ``kid``;
4. algorithm (the key's), ``typ``, ``crit``;
5. signature;
6. claims: times, audience, subject, client.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentbus.authn.jws import Compact, read_compact, verify_compact
from agentbus.delegation.outside import Issuer, IssuerKey
from agentbus.errors import Rejected
from agentbus.wire.limits import LIMITS, SECOND

CODES: Final = {
    "reject.token_issuer": "No active issuer of this name is configured; see `agentbus token issuer list`.",
    "reject.token_key": "The issuer has no key of this `kid`; did it rotate its keys?",
    "reject.token_claims": "A claim is missing or of the wrong type.",
    "reject.token_expired": "The token has expired.",
    "reject.token_early": "The token is not valid yet, or was issued in the future.",
    "reject.token_audience": "The token is for another audience.",
    "reject.token_user": "The claim that names the user does not name one here.",
}

TYPES: Final = (None, "JWT", "at+jwt")  # ID tokens and access tokens; never logout tokens, DPoP proofs and the like


@dataclass(frozen=True, slots=True)
class ForeignToken:
    """What an outside issuer's token says, proven to be its word."""

    issuer: Issuer
    subject: str
    user: str  # the name before the issuer's suffix, in the claim that names users
    client: str  # whom the issuer made it for
    jti: str  # its own, or a digest of what was signed
    expires: int  # microseconds
    authenticated_at: int
    acr: str
    scopes: tuple[str, ...] | None  # None: it speaks of no scopes
    act: Mapping[str, Any] | None
    may_act: Mapping[str, Any] | None


def verify_foreign(token: str, issuers: Mapping[str, Issuer], *, now: int) -> ForeignToken:
    """Judge an outside issuer's token.

    Args:
        issuers: Those that the directory's log names, by ``iss``.
        now: Instant, microseconds.

    Raises:
        Malformed: ``malformed.token``. Rejected: ``reject.token_*``.
    """
    parts = read_compact(token)
    name = parts.claims.get("iss")  # chooses among configured issuers, and no more
    issuer = issuers.get(name) if isinstance(name, str) else None
    if issuer is None or not issuer.active:
        raise Rejected("reject.token_issuer", f"{str(name)[:80]!r} is no issuer whose tokens count here")
    claims = verify_compact(parts, _key(parts, issuer), types=TYPES)
    expires = _instant(claims, "exp")
    if expires is None:
        raise Rejected("reject.token_claims", "a token without exp would never end")
    if now >= expires:
        raise Rejected("reject.token_expired", "it has expired; get a fresh one")
    for claim in ("nbf", "iat"):
        if (_instant(claims, claim) or 0) > now + LIMITS.skew:
            raise Rejected("reject.token_early", f"its {claim} lies in the future; check the clocks")
    subject = _text(claims, "sub")
    return ForeignToken(
        issuer, subject, _user(claims, issuer), _client(claims, issuer), _jti(claims, parts), expires,
        _instant(claims, "auth_time") or _instant(claims, "iat") or now, _text(claims, "acr", ""), _scopes(claims),
        _actor(claims, "act"), _actor(claims, "may_act"),
    )  # fmt: skip


def _key(token: Compact, issuer: Issuer) -> IssuerKey:
    kid = token.header.get("kid")
    fits = [key for key in issuer.keys if key.kid == kid]
    if kid is None and len(issuer.keys) == 1:
        fits = list(issuer.keys)
    if len(fits) != 1:
        raise Rejected("reject.token_key", f"{issuer.issuer} has no key {str(kid)[:80]!r} here")
    return fits[0]


def _client(claims: dict[str, Any], issuer: Issuer) -> str:
    """The client that the issuer made it for (RFC 9068 §2.2, OpenID Connect Core §2), once the audience is right."""
    audience = claims.get("aud")
    names = [audience] if isinstance(audience, str) else audience
    if not isinstance(names, list) or not names or any(not isinstance(n, str) for n in names):
        raise Rejected("reject.token_claims", "aud is missing, or no text or list of texts")
    if issuer.audience not in names:
        raise Rejected("reject.token_audience", f"it is not for {issuer.audience}")
    named = {claims[claim] for claim in ("azp", "client_id") if isinstance(claims.get(claim), str)}
    if len(named) > 1:
        raise Rejected("reject.token_claims", "azp and client_id differ")
    if not named and len(names) > 1:
        raise Rejected("reject.token_claims", "several audiences, and no azp that says for which client it is")
    return str(named.pop() if named else names[0])


def _user(claims: dict[str, Any], issuer: Issuer) -> str:
    value = claims.get(issuer.claim)
    if not isinstance(value, str) or not value.endswith(issuer.suffix) or len(value) > 256:
        raise Rejected(
            "reject.token_user", f"its {issuer.claim} names nobody of {issuer.suffix or 'this trust domain'}"
        )
    if issuer.claim == "email" and claims.get("email_verified") is not True:
        raise Rejected("reject.token_user", "an address that nobody verified names nobody")
    return value.removesuffix(issuer.suffix)


def _jti(claims: dict[str, Any], token: Compact) -> str:
    """What makes a token single-use. Without a jti, a digest of what was signed: a signature can have two spellings."""
    jti = _text(claims, "jti", "")
    return f"jti:{jti}" if jti else f"sha256:{hashlib.sha256(token.signed).hexdigest()}"


def _scopes(claims: dict[str, Any]) -> tuple[str, ...] | None:
    if "scope" not in claims:
        return None
    return tuple(_text(claims, "scope", "").split())


def _actor(claims: dict[str, Any], name: str) -> Mapping[str, Any] | None:
    found = claims.get(name)
    if found is None:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("sub"), str):
        raise Rejected("reject.token_claims", f"{name} is an object with a sub")
    return found


def _text(claims: dict[str, Any], name: str, default: str | None = None) -> str:
    value = claims.get(name, default)
    if not isinstance(value, str) or len(value) > 250 or (default is None and not value):
        raise Rejected("reject.token_claims", f"{name} is missing, or no text of at most 250 characters")
    return value


def _instant(claims: dict[str, Any], name: str) -> int | None:
    value = claims.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value < 1 << 42:
        raise Rejected("reject.token_claims", f"{name} is no instant in seconds")
    return int(value * SECOND)
