"""A handler that took an access token is replayed: what was granted is on the record, and the token is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentbus import Agent, Context, Request
from agentbus.testing import Network

from .stage import taped


class Call(Request[str]):
    pass


SEEN: list[str] = []


def caller(**changed: Any) -> Agent[Any]:
    agent = Agent("caller", replayable=True)

    @agent.handler(scopes=["docs:read"])
    async def call(request: Call, ctx: Context) -> str:
        token = await ctx.token_for(changed.get("audience", "api"), ["docs:read"])
        SEEN.append(token.value)
        return f"{token.audience} {token.scopes} {token.expires}"

    return agent


async def business(net: Network) -> None:
    async with net.serve(caller(), Agent("api")):
        alice = net.user("alice", scopes=["docs:read"])
        await alice.request("caller", Call(), delegate=["docs:read"])


def test_a_token_is_a_step_whose_record_has_no_token(tmp_path: Path) -> None:
    tape = taped(business, tmp_path)
    (live,) = SEEN
    assert live.count(".") == 2
    report = tape.replay(caller())
    assert [r.status for r in report.results] == ["same"], report.lines()
    assert [live, ""] == SEEN, "a replay has no token to give, and asks for none"
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert live.rpartition(".")[2].encode() not in files

    other = tape.replay(caller(audience="caller"))
    assert [r.status for r in other.results] == ["different"]
