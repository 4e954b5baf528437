"""What there is to steal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel

from agentbus import Authority, Context, Request, StreamRequest


class Paid(BaseModel):
    cents: int


class Pay(Request[Paid]):
    cents: int


class Ask(Request[Paid]):
    cents: int


class Quote(Request[Paid]):
    pass


class ForUsers(Request[Paid]):
    pass


class Hold(Request[Paid]):
    pass


class Tick(StreamRequest[Paid]):
    count: int


class Bank:
    """Counts what its handlers did."""

    def __init__(self, net: Any) -> None:
        self.net = net
        self.paid: list[int] = []
        self.quoted = 0
        self.handed: Authority
        self.release = asyncio.Event()
        self.holding = asyncio.Event()

    async def quote(self, request: Quote, ctx: Context) -> Paid:
        self.quoted += 1
        return Paid(cents=7)

    async def user_only(self, request: ForUsers, ctx: Context) -> Paid:
        self.quoted += 1
        return Paid(cents=8)

    async def hold(self, request: Hold, ctx: Context) -> Paid:
        self.holding.set()
        await self.release.wait()
        return Paid(cents=9)

    async def tick(self, request: Tick, ctx: Context) -> AsyncIterator[Paid]:
        for n in range(request.count):
            yield Paid(cents=n)
        self.holding.set()
        await self.release.wait()
