"""What tests need: a network in one process, a clock that stands still, an attacker.

With pytest it is the fixture ``net``.

::

    async def test_somebody_who_was_given_less_may_do_less(net: Network) -> None:
        async with net.serve(bank):
            alice = net.user("alice", scopes=["account:read", "account:pay"])
            look = await alice.delegate("mallory", ["account:read"])
            with pytest.raises(Denied):
                await net.attacker.acting(look).request("bank", Pay(cents=100))
"""

# Nothing is imported before it is asked for, so the pytest plugin costs a run that does not use it nothing.

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
