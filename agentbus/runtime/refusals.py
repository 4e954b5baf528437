"""What may be refused of one peer: each signed refusal is answered and goes on the record, so it costs disk.

Honest peers are refused now and then, and in bursts where something is set up wrongly. Who is refused without end has
the rate below, whatever number of connections it opens: each ends with the first refusal beyond it.
"""

from __future__ import annotations

from typing import Final

from agentbus.wire.limits import SECOND

RATE: Final = 50.0  # units a second
BURST: Final = 4000.0  # units
UNIT: Final = 4096  # bytes of header, proof, chain and handover that cost one unit more
PEERS: Final = 4096


class Refusals:
    """A bucket for each CURVE key. Only signatures that verified come here, so there are no more keys than enrolled."""

    def __init__(self) -> None:
        self._levels: dict[bytes | int, tuple[float, int]] = {}  # units, and when by the monotonic clock

    def charge(self, key: bytes | int, size: int, mono: int) -> bool:
        """Count one refusal; False when this peer has had all that it may."""
        level, at = self._levels.get(key, (0.0, mono))
        level = max(0.0, level - (mono - at) / SECOND * RATE) + 1 + size / UNIT
        allowed = level <= BURST
        self._levels[key] = (min(level, BURST), mono)
        if len(self._levels) > PEERS:
            self._levels = {k: v for k, v in self._levels.items() if (mono - v[1]) / SECOND * RATE < v[0]}
        return allowed
