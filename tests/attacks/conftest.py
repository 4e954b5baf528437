"""The fixture ``net`` for attacks, and a bank whose handlers count how often they run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentbus import Agent, Context
from agentbus.testing.plugin import net

from .bank import Ask, Bank, Paid, Pay

__all__ = ["net"]


@pytest.fixture(autouse=True)
async def watchdog() -> AsyncIterator[None]:
    """The clock of these tests stands still, so what would end at a deadline hangs: cancelled after half a minute."""
    loop = asyncio.get_running_loop()
    handle = loop.call_later(30, lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
    yield
    handle.cancel()


@pytest.fixture
async def bank(net: Any) -> AsyncIterator[Bank]:
    """A bank that pays under ``pay``, a broker that passes on what it was handed, and mallory beside them."""
    bank = Bank(net)
    agent, broker = Agent("bank"), Agent("broker")

    @agent.handler(scopes=["pay"])
    async def pay(request: Pay, ctx: Context) -> Paid:
        bank.paid.append(request.cents)
        return Paid(cents=request.cents)

    for handler in (bank.quote, bank.tick, bank.user_only, bank.hold):
        agent.handler(**({"requires_user": True} if handler == bank.user_only else {}))(handler)

    @broker.handler
    async def ask(request: Ask, ctx: Context) -> Paid:
        bank.handed = ctx.authority
        return await ctx.request("bank", Pay(cents=request.cents), delegate=[])

    async with net.serve(agent, broker):
        yield bank
        bank.release.set()
        await asyncio.sleep(0)
