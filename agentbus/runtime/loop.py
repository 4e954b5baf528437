"""The event loop of a whole program: uvloop's where it is installed (``[fast]``)."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

R = TypeVar("R")

GARBAGE: Final = (20_000, 20, 50)
"""Python looks for garbage in cycles every 700 new objects, which is every second batch. Messages leave none behind."""


def run(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end, as ``asyncio.run`` does."""
    gc.set_threshold(*GARBAGE)
    try:
        import uvloop  # pyright: ignore[reportMissingImports]
    except ImportError:
        uvloop = None
    if uvloop is None:  # not within the except: every traceback of the program would begin with this one
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
