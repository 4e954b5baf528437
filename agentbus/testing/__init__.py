"""What tests need: a network in one process, a clock that stands still, an attacker, drawn chains.

``from agentbus.testing import Network``; with pytest there is the fixture ``net``. Nothing is imported before it is
asked for, so the pytest plugin costs a run that does not use it nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from agentbus.testing.attacker import Attacker, Captured
    from agentbus.testing.clock import ManualClock
    from agentbus.testing.network import Entropy, Network

__all__ = ["Attacker", "Captured", "Entropy", "ManualClock", "Network"]

_HOMES: Final = {
    "Attacker": "attacker",
    "Captured": "attacker",
    "Entropy": "network",
    "ManualClock": "clock",
    "Network": "network",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
