"""Discovery: what agents claim of themselves, and who answers what. Served at the directory's node.

Rule 1: a claim is the agent's own word. It gives nothing, proves nothing, and stands in no log of key events.
Rule 2: who is enrolled and who runs is asked of the directory at every question, never copied here.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

from agentbus.delegation.trust import Principal
from agentbus.directory.core import Directory
from agentbus.errors import LogError
from agentbus.runtime.agent import Agent
from agentbus.runtime.caller import Caller
from agentbus.runtime.context import Context
from agentbus.runtime.discovery import Describe, Described, Discover, Found, FoundAgents

CODES: Final = {
    "log.claims_unreadable": "The file of the agents' claims cannot be opened; delete it: agents describe themselves"
    " again when they start.",
}

FILE: Final = "discovery.sqlite"


class Claims:
    """The newest claim of each principal, in one SQLite file.

    Args:
        folder: Where ``discovery.sqlite`` lies; None keeps it in memory.

    Raises:
        LogError: ``log.claims_unreadable``.
    """

    def __init__(self, folder: Path | None) -> None:
        try:
            if folder is None:
                self._db = sqlite3.connect(":memory:", isolation_level=None)
            else:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._db = sqlite3.connect(folder / FILE, isolation_level=None)
                os.chmod(folder / FILE, 0o600)  # noqa: PTH101
            self._db.execute("CREATE TABLE IF NOT EXISTS claims (principal TEXT PRIMARY KEY, claim TEXT NOT NULL)")
        except sqlite3.Error as error:
            raise LogError("log.claims_unreadable", f"{folder}: {error}") from error

    def put(self, who: str, claim: Describe) -> None:
        """Keep ``claim`` in place of what ``who`` claimed before."""
        self._db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", (who, claim.model_dump_json()))

    def of(self, who: str) -> Describe:
        """What ``who`` claims; nothing, where it never did or the claim is of another version."""
        row = self._db.execute("SELECT claim FROM claims WHERE principal = ?", (who,)).fetchone()
        try:
            return Describe() if row is None else Describe.model_validate_json(row[0])
        except ValueError:
            return Describe()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def add_discovery(agent: Agent[Any], core: Directory, claims: Claims, now: Callable[[], int]) -> None:
    """Let ``agent``, which is the directory's, answer discovery too, and close ``claims`` when it stops."""

    @asynccontextmanager
    async def lifespan(_: Caller) -> AsyncIterator[None]:
        with closing(claims):
            yield

    agent.lifespan = lifespan

    def found(record: Principal) -> Found:
        claim = claims.of(record.id)
        return Found(
            id=record.id,
            tags=list(record.tags),
            running=core.running(record.id, now()),
            description=claim.description,
            messages=claim.messages,
            scopes=claim.scopes,
        )

    @agent.handler
    async def describe(request: Describe, ctx: Context[Any]) -> Described:
        claims.put(ctx.sender, request)
        return Described()

    @agent.handler
    async def discover(request: Discover, ctx: Context[Any]) -> FoundAgents:
        cards = [found(r) for r in core.trust.principals.values() if r.id.kind == "agent" and r.state == "active"]
        if request.message is not None:
            cards = [c for c in cards if request.message in c.messages]
        if request.scope is not None:
            cards = [c for c in cards if request.scope in c.scopes]
        if request.tag is not None:
            cards = [c for c in cards if request.tag in c.tags]
        return FoundAgents(agents=sorted(cards, key=lambda c: c.id))
