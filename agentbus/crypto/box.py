"""Boxes: what may have to be erased one day, encrypted under a random key that is used for nothing else.

Rule 1: one key, one box. That is why the nonce can be constant, and why destroying the key destroys this one thing.
Rule 2: a box is named by the SHA-256 of its bytes: it can be checked for ever, and opened while its key is there.
"""

from __future__ import annotations

import hashlib
from typing import Final

from nacl.bindings import crypto_secretbox, crypto_secretbox_open
from nacl.exceptions import CryptoError

from agentbus.errors import LogError

CODES: Final = {
    "log.box": "A box does not open under the key that is kept for it: one of the two was changed.",
}

KEY: Final = 32
"""Bytes of a box's key (XSalsa20-Poly1305)."""
ERASED: Final = bytes(KEY)
"""What stands in place of a key that was destroyed; never used as a key."""
_NONCE: Final = bytes(24)


def close_box(data: bytes, key: bytes) -> bytes:
    """The box that holds ``data``. ``key``: 32 random bytes that were never used before."""
    if key == ERASED:
        raise LogError("log.box", "a key of zeros is the mark of an erased one")
    return crypto_secretbox(data, _NONCE, key)


def open_box(box: bytes, key: bytes) -> bytes:
    """What ``box`` holds.

    Raises:
        LogError: ``log.box``.
    """
    try:
        return crypto_secretbox_open(box, _NONCE, key)
    except (CryptoError, ValueError, TypeError) as error:
        raise LogError("log.box", f"the box {hashlib.sha256(box).hexdigest()[:16]}… does not open") from error


def box_name(box: bytes) -> bytes:
    """The digest that entries name a box by."""
    return hashlib.sha256(box).digest()
