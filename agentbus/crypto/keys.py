"""Ed25519 and X25519 keys. A weak key cannot be made into an object.

Rule 1: only libsodium (PyNaCl) verifies Ed25519 here, and only under keys that
``crypto_core_ed25519_is_valid_point`` accepts: canonical, on the curve, in the prime-order subgroup. Other libraries
accept forged signatures under small-order keys.
Rule 2: key ids are computed (RFC 7638), never chosen. CURVE keys are never converted from Ed25519 keys.
Rule 3: randomness is an argument: a seed goes in.
"""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from typing import Final

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError
from nacl.exceptions import RuntimeError as NaClRuntimeError

from agentbus.errors import BadSignature, InvalidKey
from agentbus.wire.ids import b64

CODES: Final = {
    "key.weak": "This key is not canonical, not on the curve, or of small or mixed order.",
    "key.length": "A key or seed has exactly 32 bytes, a signature 64.",
    "key.bad_signature": "The signature does not verify under this key over these bytes.",
}


@lru_cache(maxsize=8192)
def thumbprint(raw: bytes, curve: str = "Ed25519") -> bytes:
    """The RFC 7638 thumbprint of an OKP key (RFC 8037): its key id, 32 bytes."""
    return hashlib.sha256(f'{{"crv":"{curve}","kty":"OKP","x":"{b64(raw)}"}}'.encode()).digest()


class VerifyKey:
    """A public Ed25519 key that passed the valid-point check.

    Args:
        raw: 32 bytes (RFC 8032 §5.1.5).

    Raises:
        InvalidKey: ``key.length``, ``key.weak``.
    """

    __slots__ = ("__dict__", "raw")

    def __init__(self, raw: bytes) -> None:
        if not isinstance(raw, bytes) or len(raw) != 32:
            raise InvalidKey("key.length", "an Ed25519 public key has 32 bytes")
        if not crypto_core_ed25519_is_valid_point(raw):
            raise InvalidKey("key.weak", "not a canonical point of the prime-order subgroup; make a new key")
        self.raw = raw

    @cached_property
    def id(self) -> bytes:
        """The key id: RFC 7638 thumbprint, 32 bytes."""
        return thumbprint(self.raw)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return when ``signature`` is this key's over ``message`` (RFC 8032 §5.1.7, cofactorless, strict S).

        Raises:
            BadSignature: ``key.bad_signature``.
        """
        if not isinstance(signature, bytes) or len(signature) != 64:
            raise BadSignature("key.bad_signature", "a signature has 64 bytes")
        try:
            crypto_sign_open(signature + message, self.raw)
        except (BadSignatureError, ValueError) as error:
            raise BadSignature("key.bad_signature", "does not verify") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"VerifyKey({b64(self.raw)})"


@lru_cache(maxsize=8192)
def checked_key(raw: bytes) -> VerifyKey:
    """A :class:`VerifyKey`, remembered: the valid-point check costs as much as a signature."""
    return VerifyKey(raw)


class SigningKey:
    """A private Ed25519 key; its repr shows only the public half.

    Args:
        seed: 32 secret random bytes (RFC 8032 §5.1.5).
    """

    __slots__ = ("_secret", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        if not isinstance(seed, bytes) or len(seed) != 32:
            raise InvalidKey("key.length", "an Ed25519 seed has 32 bytes")
        public, self._secret = crypto_sign_seed_keypair(seed)
        self.seed = seed
        self.public = VerifyKey(public)

    @property
    def id(self) -> bytes:
        """The key id of the public half."""
        return self.public.id

    def sign(self, message: bytes) -> bytes:
        """64 bytes. Callers sign through :mod:`agentbus.crypto.signing`, which names the purpose."""
        return bytes(crypto_sign(message, self._secret)[:64])

    def __repr__(self) -> str:
        return f"SigningKey(public={b64(self.public.raw)})"


def check_curve_key(raw: bytes) -> bytes:
    """``raw`` itself when it is an X25519 key with which a secret can be shared (RFC 7748 §6.1).

    Raises:
        InvalidKey: ``key.length``, ``key.weak``: of low order, so that everybody would share the same "secret".
    """
    if not isinstance(raw, bytes) or len(raw) != 32:
        raise InvalidKey("key.length", "an X25519 public key has 32 bytes")
    try:
        crypto_scalarmult(b"\x01" * 32, raw)
    except (NaClRuntimeError, ValueError) as error:
        raise InvalidKey("key.weak", "an X25519 key of low order; make a new key") from error
    return raw


class CurveKey:
    """An X25519 key pair for CURVE (and for nothing else).

    Args:
        secret: 32 secret random bytes.
    """

    __slots__ = ("public", "secret")

    def __init__(self, secret: bytes) -> None:
        if not isinstance(secret, bytes) or len(secret) != 32:
            raise InvalidKey("key.length", "an X25519 secret has 32 bytes")
        self.secret = secret
        self.public: bytes = crypto_scalarmult_base(secret)

    def __repr__(self) -> str:
        return f"CurveKey(public={b64(self.public)})"
