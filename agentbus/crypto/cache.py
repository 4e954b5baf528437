"""A memory of signatures that verified. It says only "this is valid", never "this is allowed".

Rule 1: it keeps digests, never what was signed: how much memory it takes does not depend on how long that was.
Rule 2: bounded for each key and altogether. Where all is taken, whoever holds most loses its oldest first: a peer who
signs a flood forgets its own, however many keys it signs with.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from agentbus.crypto.keys import VerifyKey
from agentbus.crypto.signing import Purpose, pae

_ROOM: Final = 64  # a part of so many is made free at once: looking at all shares is then paid for by many


class SignatureCache:
    """Verified (key, purpose, body, signature) quadruples, least recently used first out.

    Args:
        keys: How many keys are remembered.
        per_key: How many signatures of each.
        entries: How many signatures of all together; some 200 bytes each.
    """

    def __init__(self, keys: int = 4096, per_key: int = 256, entries: int = 65_536) -> None:
        self._keys = keys
        self._per_key = per_key
        self._entries = entries
        self._seen: OrderedDict[bytes, OrderedDict[bytes, None]] = OrderedDict()
        self._count = 0

    def verify(self, key: VerifyKey, purpose: Purpose, body: bytes, signature: bytes) -> None:
        """As :func:`agentbus.crypto.signing.verify`, remembered.

        Raises:
            BadSignature: ``key.bad_signature``; never remembered.
        """
        signed = pae(purpose, body)
        what = hashlib.sha256(b"%d %b" % (len(signature), signature) + signed).digest()
        mine = self._seen.get(key.raw)
        if mine is not None and what in mine:
            mine.move_to_end(what)
            self._seen.move_to_end(key.raw)
            return
        key.verify(signed, signature)
        if mine is not None:
            self._seen.move_to_end(key.raw)
        else:
            mine = self._seen[key.raw] = OrderedDict()
            if len(self._seen) > self._keys:
                self._count -= len(self._seen.popitem(last=False)[1])
        mine[what] = None
        self._count += 1
        if len(mine) > self._per_key:
            mine.popitem(last=False)
            self._count -= 1
        if self._count > self._entries:
            self._cut()

    def _cut(self) -> None:
        """Whoever keeps no more than a fair share keeps all; the others are cut to it. A part is made free at once."""
        left = self._entries - self._entries // _ROOM
        level, others = 0, len(self._seen)
        for size in sorted(map(len, self._seen.values())):
            level = left // others
            if size > level:
                break
            left, others = left - size, others - 1
        for key, mine in list(self._seen.items()):
            while len(mine) > level:
                mine.popitem(last=False)
                self._count -= 1
            if not mine:
                del self._seen[key]
