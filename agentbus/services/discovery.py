"""Discovery: what agents claim of themselves, and who answers what. Served at the directory's node.

Rule 1: a claim is the agent's own word. It gives nothing, proves nothing, and stands in no log of key events.
Rule 2: who is enrolled and who runs is asked of the directory at every question, never copied here.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from agentbus.delegation.records import Principal
from agentbus.delegation.scope import covers
from agentbus.directory.core import Directory
from agentbus.errors import DirectoryRefused, LogError
from agentbus.runtime.agent import Agent
from agentbus.runtime.context import Context
from agentbus.runtime.discovery import Describe, Described, Discover, Found, FoundAgents
from agentbus.services.resources import close_with
from agentbus.wire.ids import PrincipalId, name_id

CODES: Final = {
    "log.claims_unreadable": "The file of the agents' claims cannot be opened; delete it: agents describe themselves"
    " again when they start.",
}

FILE: Final = "discovery.sqlite"
ANSWER: Final = 200  # agents in one answer
ANSWER_SIZE: Final = 512 * 1024  # characters of one answer; a frame holds a megabyte


class Claims:
    """The newest claim of each principal, in one SQLite file.

    Args:
        folder: Where ``discovery.sqlite`` lies; None keeps it in memory.

    Raises:
        LogError: ``log.claims_unreadable``.
    """

    def __init__(self, folder: Path | None) -> None:
        self._short: dict[str, tuple[Describe, int | None]] = {}
        try:
            if folder is None:
                self._db = sqlite3.connect(":memory:", isolation_level=None)
            else:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._db = sqlite3.connect(folder / FILE, isolation_level=None)
                os.chmod(folder / FILE, 0o600)  # noqa: PTH101
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")  # what a loss of power takes, agents say again
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS described"
                " (principal TEXT PRIMARY KEY, claim TEXT NOT NULL, at INTEGER NOT NULL)"
            )
        except sqlite3.Error as error:
            raise LogError("log.claims_unreadable", f"{folder}: {error}") from error

    def put(self, who: str, claim: Describe, at: int) -> None:
        """Keep ``claim`` in place of what ``who`` claimed before."""
        self._db.execute("INSERT OR REPLACE INTO described VALUES (?, ?, ?)", (who, claim.model_dump_json(), at))
        self._short.pop(who, None)

    def of(self, who: str, *, schemas: bool = True) -> tuple[Describe, int | None]:
        """What ``who`` claims and since when; nothing, where it never did or the claim is of another version.

        Args:
            schemas: Without, the claim comes from memory: who looks for an agent goes through all of them.
        """
        if not schemas and who in self._short:
            return self._short[who]
        row = self._db.execute("SELECT claim, at FROM described WHERE principal = ?", (who,)).fetchone()
        claim, at = Describe(), None
        if row is not None:
            with suppress(ValueError):
                claim, at = Describe.model_validate_json(row[0]), row[1]
        short = claim.model_copy(update={"messages": [m.without_schemas() for m in claim.messages]})
        self._short[who] = short, at
        return (claim, at) if schemas else (short, at)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def add_discovery(agent: Agent[Any], core: Directory, claims: Claims, now: Callable[[], int]) -> None:
    """Let ``agent``, which is the directory's, answer discovery too, and close ``claims`` when it stops."""

    close_with(agent, claims)

    def found(record: Principal, schemas: bool) -> Found:
        claim, at = claims.of(record.id, schemas=schemas)
        return Found(
            id=record.id,
            state=record.state,
            owner=record.owner,
            purpose=record.purpose,
            tags=list(record.tags),
            ceiling=[str(scope) for scope in record.ceiling],
            running=core.presence.running(record.id, now()),
            description=claim.description,
            messages=claim.messages,
            claimed_at=at,
        )

    @agent.handler
    async def describe(request: Describe, ctx: Context[Any]) -> Described:
        claims.put(ctx.sender, request, now())
        return Described()

    @agent.handler
    async def discover(request: Discover, ctx: Context[Any]) -> FoundAgents:
        if request.name is not None:
            record = core.trust.principal(name_id(request.name, core.domain))
            if record is None:
                raise DirectoryRefused(
                    "directory.unknown", f"nobody is called {request.name}; see `agentbus agent list`"
                )
            known = [record]
        else:
            known = [r for r in core.trust.principals.values() if r.id.kind == "agent" and r.state == "active"]
        known.sort(key=lambda record: record.id)
        fit = (record for record in known if fits(found(record, False), request))
        return _page(found(record, request.schemas) for record in fit)


def fits(card: Found, asked: Discover) -> bool:
    """Whether an agent is what was asked for: everything that is given has to fit."""
    return (
        (asked.message is None or any(m.type == asked.message for m in card.messages))
        and (asked.scope is None or any(covers(asked.scope, s) for m in card.messages for s in m.scopes))
        and (asked.tag is None or asked.tag in card.tags)
        and (asked.text is None or _mentions(card, asked.text))
    )


def _mentions(card: Found, text: str) -> bool:
    """Whether every word stands somewhere in what is known and claimed of an agent."""
    said = [PrincipalId(card.id).name, card.purpose, card.description, *card.tags]
    said += [part for m in card.messages for part in (m.type, m.description, *m.scopes)]
    whole = "\n".join(said).casefold()
    return all(word in whole for word in text.casefold().split())


def _page(cards: Iterator[Found]) -> FoundAgents:
    """As many as one answer holds."""
    agents: list[Found] = []
    left = ANSWER_SIZE
    for card in cards:
        left -= len(card.model_dump_json())
        if left < 0 or len(agents) == ANSWER:
            return FoundAgents(agents=agents, more=True)
        agents.append(card)
    return FoundAgents(agents=agents)
