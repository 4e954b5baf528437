"""What every transport shares: connection ids, the size check, and the one way to ask for admission.

Rule: admission fails closed. Silence, an error and any answer but ``True`` all refuse.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Final

from agentbus.errors import InvalidKey, Malformed
from agentbus.transport.base import Sink
from agentbus.wire.limits import LIMITS

ADMIT_TIMEOUT: Final = 3.0  # seconds; enough for one look-up, and the handshake itself ends after 5
MAX_FRAME: Final = LIMITS.frame  # bytes
WAITING: Final = 16 * 1024 * 1024  # bytes that may wait for one peer, however few frames they are
KEY_SIZE: Final = 32  # bytes of an X25519 key

connection_ids: Final = count(1)
"""One counter for all transports of the process, because an id is never reused in it."""


async def ask_admission(sink: Sink, key: bytes) -> bool:
    """Whether ``sink`` admits ``key``, within :data:`ADMIT_TIMEOUT`."""
    try:
        async with asyncio.timeout(ADMIT_TIMEOUT):
            return (await sink.admit(key)) is True
    except Exception:  # whatever went wrong while deciding, the safe answer is the same
        return False


def check_key(key: bytes) -> None:
    """Stop what cannot be a CURVE key.

    Raises:
        InvalidKey: ``key.invalid``.
    """
    if len(key) != KEY_SIZE:
        raise InvalidKey("key.invalid", f"a CURVE key has {KEY_SIZE} bytes, not {len(key)}")


def refuse_oversize(size: int, max_frame: int) -> None:
    """Stop a frame that no peer would take, before it costs the connection.

    Raises:
        Malformed: ``malformed.frame``. Never ``False`` from ``offer``: waiting would not make the frame smaller.
    """
    if size > max_frame:
        raise Malformed("malformed.frame", f"a frame has at most {max_frame} bytes, and this one has {size}")
