"""A user is revoked while a handler of hers waits for others: the calling-off goes under the agent's own grant.

Under hers it would be refused, so the work below would go on; and the honest agent's log would show a message that was
sent under a revoked chain.
"""

from __future__ import annotations

import asyncio

import pytest
from pydantic import BaseModel

from agentbus import Agent, AgentBusError, Context, Request
from agentbus.testing import Network
from agentbus.testing.plugin import net

__all__ = ["net"]


class Got(BaseModel):
    pass


class Ask(Request[Got]):
    pass


class Wait(Request[Got]):
    pass


async def test_a_revoked_users_work_is_called_off_down_the_tree(net: Network) -> None:
    planner, worker = Agent("planner"), Agent("worker")
    started, stopped = asyncio.Event(), asyncio.Event()

    @planner.handler
    async def ask(request: Ask, ctx: Context) -> Got:
        return await ctx.request("worker", Wait())

    @worker.handler
    async def wait(request: Wait, ctx: Context) -> Got:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return Got()

    async with net.serve(planner, worker):
        alice = net.user("alice", scopes=["docs:read"])
        asking = asyncio.create_task(alice.request("planner", Ask(), delegate=["docs:read"]))
        await asyncio.wait_for(started.wait(), 10)
        await alice.revoke(alice.authority, reason="test")
        await net.settle()
        with pytest.raises(AgentBusError):
            await asking
        await net.settle()
        assert stopped.is_set()
        report = net.evidence("planner").verify()
    assert report.ok, {name: verdict.problems for name, verdict in report.items() if verdict.ok is False}
