"""What only one key can read, and nobody's log: anonymous sealed boxes (libsodium ``crypto_box_seal``).

The keys are made for this, live in memory and are never kept: what was sealed to one that is gone stays sealed.
"""

from __future__ import annotations

from typing import Final

from nacl.bindings import crypto_box_seal, crypto_box_seal_open, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from agentbus.crypto.keys import check_curve_key
from agentbus.errors import Malformed

CODES: Final = {
    "malformed.sealed": "This was not sealed to the present key, or was damaged.",
}


class SealKey:
    """An X25519 key pair to seal to, for this and nothing else.

    Args:
        secret: 32 secret random bytes.
    """

    __slots__ = ("_secret", "public")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.public: bytes = crypto_scalarmult_base(secret)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed to this key.

        Raises:
            Malformed: ``malformed.sealed``.
        """
        try:
            return bytes(crypto_box_seal_open(sealed, self.public, self._secret))
        except (CryptoError, ValueError, TypeError) as error:
            raise Malformed("malformed.sealed", CODES["malformed.sealed"]) from error

    def __repr__(self) -> str:
        return "SealKey()"


def seal(data: bytes, public: bytes) -> bytes:
    """``data`` for the holder of ``public`` alone.

    Raises:
        InvalidKey: ``key.weak``, ``key.length``.
    """
    return bytes(crypto_box_seal(data, check_curve_key(public)))
