"""An identity provider that nobody here wrote: its tokens are made by PyJWT and joserfc."""

from __future__ import annotations

import json
import warnings
from typing import Any

import jwt
from joserfc import jwt as jose_jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

IDP = "https://idp.example"
AUDIENCE = "https://bus.example"


def encode(header: dict[str, Any], claims: dict[str, Any], key: Any) -> str:
    """A token of joserfc's making; it warns that ``EdDSA`` is also called ``Ed25519`` now (RFC 9864)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        return jose_jwt.encode(header, claims, key, algorithms=[header["alg"]])


class IdentityProvider:
    """Keys of three kinds, a JWKS, and tokens for whoever logs in."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {
            "EdDSA": OKPKey.generate_key("Ed25519", parameters={"kid": "ed"}),
            "ES256": ECKey.generate_key("P-256", parameters={"kid": "ec"}),
            "RS256": RSAKey.generate_key(2048, parameters={"kid": "rsa"}),
        }
        self.count = 0

    @property
    def jwks(self) -> dict[str, Any]:
        """What it publishes."""
        return {"keys": [{**key.as_dict(private=False), "use": "sig"} for key in self.keys.values()]}

    def claims(self, now: float, **changes: Any) -> dict[str, Any]:
        """An access token's claims; None takes one away."""
        self.count += 1
        claims = {
            "iss": IDP, "sub": "alice", "aud": AUDIENCE, "client_id": "web", "exp": int(now) + 900, "iat": int(now),
            "jti": f"token-{self.count}", **changes,
        }  # fmt: skip
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, now: float, algorithm: str = "EdDSA", *, header: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        """A token of joserfc's making."""
        key = self.keys[algorithm]
        head = {"alg": algorithm, "kid": key.kid, "typ": "at+jwt", **(header or {})}
        head = {name: value for name, value in head.items() if value is not None}
        return encode(head, self.claims(now, **changes), key)

    def by_pyjwt(self, now: float, algorithm: str, **changes: Any) -> str:
        """A token of PyJWT's making."""
        key = self.keys[algorithm]
        private = jwt.PyJWK(json.loads(json.dumps(key.as_dict(private=True))), algorithm=algorithm).key
        return jwt.encode(self.claims(now, **changes), private, algorithm=algorithm, headers={"kid": key.kid})
