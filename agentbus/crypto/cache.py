"""A memory of signatures that verified. It says only "this is valid", never "this is allowed".

Bounded for each key, so that a peer who signs a flood forgets only its own.
"""

from __future__ import annotations

from collections import OrderedDict

from agentbus.crypto.keys import VerifyKey
from agentbus.crypto.signing import Purpose, pae


class SignatureCache:
    """Verified (key, purpose, body, signature) quadruples, least recently used first out.

    Args:
        keys: How many keys are remembered.
        per_key: How many signatures of each.
    """

    def __init__(self, keys: int = 4096, per_key: int = 256) -> None:
        self._keys = keys
        self._per_key = per_key
        self._seen: OrderedDict[bytes, OrderedDict[tuple[bytes, bytes, bytes], None]] = OrderedDict()

    def verify(self, key: VerifyKey, purpose: Purpose, body: bytes, signature: bytes) -> None:
        """As :func:`agentbus.crypto.signing.verify`, remembered.

        Raises:
            BadSignature: ``key.bad_signature``; never remembered.
        """
        what = (body, signature, purpose.prefix)
        mine = self._seen.get(key.raw)
        if mine is not None and what in mine:
            mine.move_to_end(what)
            self._seen.move_to_end(key.raw)
            return
        key.verify(pae(purpose, body), signature)
        if mine is not None:
            self._seen.move_to_end(key.raw)
        else:
            mine = self._seen[key.raw] = OrderedDict()
            if len(self._seen) > self._keys:
                self._seen.popitem(last=False)
        mine[what] = None
        if len(mine) > self._per_key:
            mine.popitem(last=False)
