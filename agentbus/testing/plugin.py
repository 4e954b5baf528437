"""The pytest plugin: the fixture ``net``. It imports the network only when a test asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

if TYPE_CHECKING:
    from agentbus.testing.network import Network

_F = TypeVar("_F", bound=Callable[..., Any])


def _async_fixture(function: _F) -> _F:
    """``pytest_asyncio.fixture`` where it is installed; without it the fixture cannot be awaited by anybody."""
    try:
        from pytest_asyncio import fixture
    except ImportError:
        return cast(_F, pytest.fixture(function))
    return cast(_F, fixture(function))


@_async_fixture
async def net() -> AsyncIterator[Network]:
    """A trust domain in this process with a :class:`~agentbus.testing.ManualClock` and an attacker (pytest-asyncio)."""
    from agentbus.testing.network import Network

    async with Network.open() as network:
        yield network
