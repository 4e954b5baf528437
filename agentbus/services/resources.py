"""What a service holds open is closed when its agent stops being served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from agentbus.runtime.agent import Agent
from agentbus.runtime.caller import Caller


class Closeable(Protocol):
    """Something with a file to let go of."""

    def close(self) -> None: ...


def close_with(agent: Agent[Any], resource: Closeable) -> None:
    """Close ``resource`` when ``agent`` stops, around whatever lifespan it has."""
    inner = agent.lifespan

    @asynccontextmanager
    async def lifespan(bus: Caller) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            stack.callback(resource.close)
            yield await stack.enter_async_context(inner(bus)) if inner is not None else None

    agent.lifespan = lifespan
