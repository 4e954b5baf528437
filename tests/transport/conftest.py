"""ZeroMQ's conformance runs on every event loop there is here: its readers depend on ``add_reader``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec

import pytest

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
ALL_LOOPS = dict(LOOPS)
if find_spec("uvloop"):  # an optional dependency: where it is installed, it has to work
    ALL_LOOPS["uvloop"] = import_module("uvloop").new_event_loop


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return ALL_LOOPS if "TestZeroMQ" in item.nodeid else LOOPS
