"""Faults that nobody awaits fail the test they come up in: dead tasks, callbacks that raise, what is never closed.

A loop without a handler of its own tells such faults to the logger ``asyncio``, whichever loop it is and wherever it
runs: so a command that is tested by its ``main`` is heard, too. What only the collector finds (a coroutine that was
never awaited, an unclosed socket) is an unraisable exception, which pytest itself makes a failure.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self.heard.append(text)


@pytest.fixture(autouse=True)
def unheard() -> Iterator[list[str]]:
    """What a loop had to tell and nobody listened to; a test that causes it on purpose clears the list."""
    ear, logger = _Ear(), logging.getLogger("asyncio")
    logger.addHandler(ear)
    try:
        yield ear.heard
    finally:
        logger.removeHandler(ear)
    if ear.heard:
        pytest.fail("nobody awaited what failed:\n" + "\n".join(ear.heard), pytrace=False)


@pytest.fixture(scope="module", autouse=True)
def swept() -> Iterator[None]:
    """What a file's tests leave to the collector is collected before the next file's begin, so it counts as theirs."""
    yield
    gc.collect()
