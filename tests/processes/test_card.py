"""``agent show``: an agent's card from another process, and its types pasted into a program that asks it."""

from __future__ import annotations

import subprocess
import sys

from tests.processes.desk import Desk, desk

__all__ = ["desk"]

SHOP = """
from pydantic import BaseModel, Field
from agentbus import Agent, Context, Request
class Line(BaseModel):
    article: str = Field(min_length=1)
    count: int = 1
class Bill(BaseModel):
    total: int
class Order(Request[Bill]):
    lines: list[Line]
    note: str | None = None
shop = Agent("shop", description="Sells things \\x1b[2J")
@shop.handler(scopes=["shop:buy"], requires_user=True)
async def order(request: Order, ctx: Context) -> Bill:
    '''Sells what is ordered.'''
    return Bill(total=sum(line.count for line in request.lines))
"""

PROGRAM = """
import asyncio
from agentbus import Bus
async def main():
    async with Bus.connect(identity="user/alice", listen="") as bus:
        alice = bus.as_user(["shop:buy"])
        print((await alice.request("shop", Order(lines=[Line(article="pen", count=3), Line(article="ink")]))).total)
asyncio.run(main())
"""


def test_a_card_and_types_that_can_be_pasted(desk: Desk) -> None:
    desk.directory()
    (desk.folder / "shop.py").write_text(SHOP)
    desk.enrol("agent", "shop", "--purpose", "sales", "--tag", "retail")
    desk.enrol("user", "alice", "--right", "shop:buy")
    before = desk.run("agent", "show", "shop")
    assert "it has not described itself" in before and "sales" in before
    desk.serve("shop:shop")

    card = desk.run("agent", "show", "shop", "--as", "user/alice")
    assert "Order (request)  needs shop:buy, a user behind it" in card
    assert "Sells what is ordered." in card and "takes lines, note?" in card and "gives total" in card
    assert "running      1" in card and "retail" in card and "\x1b" not in card
    facts = desk.json("agent", "show", "shop")
    assert facts["state"] == "active" and facts["messages"][0]["request"]["required"] == ["lines"]

    source = desk.run("agent", "show", "shop", "--python", "--as", "user/alice")
    (desk.folder / "client.py").write_text(source + PROGRAM)
    done = subprocess.run(
        [sys.executable, "client.py"], env=desk.environment, cwd=desk.folder, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.returncode) == ("4", 0), done.stderr
    desk.run("agent", "show", "shop", "--python", "--json", exit=2)
    assert "directory.unknown" in desk.run("agent", "show", "nobody", exit=1)
