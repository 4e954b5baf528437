"""The event loop of a whole program: uvloop's where it is installed (``[fast]``)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


def run(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end, as ``asyncio.run`` does."""
    try:
        import uvloop  # pyright: ignore[reportMissingImports]
    except ImportError:
        uvloop = None
    if uvloop is None:  # not within the except: every traceback of the program would begin with this one
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
