"""Every bound of the wire in one frozen value. A number has a unit and a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SECOND: Final = 1_000_000  # microseconds: the unit of every instant on the wire


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that a receiver applies before it copies, parses or verifies anything."""

    frame: int = 1024 * 1024  # bytes; NATS refuses above 1 MB by default, ZeroMQ never refuses by itself
    header: int = 4096  # bytes; a header is read whole before anything about it is known
    chain: int = 64 * 1024  # bytes; sixteen links with generous scopes
    link: int = 16 * 1024  # bytes
    links: int = 12  # a chain names at most this many keys, so one message asks for a bounded number of look-ups
    note: int = 1024  # bytes; a signed checkpoint is about 250
    batch: int = 64  # headers under one signature; beyond it a path costs more than it saves
    extensions: int = 8
    lifetime: int = 600 * SECOND  # deadline - issued_at, except jobs
    job_lifetime: int = 7 * 86_400 * SECOND
    skew: int = 30 * SECOND  # issued_at may lie this far ahead of our clock
    scopes: int = 64  # scopes in one link or ceiling
    targets: int = 256  # targets in one link
    caveats: int = 16  # caveats of one scope
    text: int = 256  # characters of any identifier


LIMITS: Final = Limits()
