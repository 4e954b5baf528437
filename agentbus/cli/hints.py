"""What to do at the command line about an error whose own text, made for any caller, names no command or option."""

from __future__ import annotations

from typing import Final

HINTS: Final = {
    "agent.gone": "ask again",
    "agent.not_running": "`agentbus run MODULE:AGENT`",
    "deadline.exceeded": "give it longer with --timeout, or see whether it is stuck",
    "denied.ceiling": "a ceiling is set once, by `agentbus agent create --ceiling`",
    "denied.not_holder": "speak as the one it was given to: --as NAME",
    "denied.nothing_handed_over": "add --delegate SCOPE",
    "denied.rights": "a user's rights are set once, by `agentbus user create --right`",
    "denied.scope": "add --scope SCOPE, or --delegate where others need it, too",
    "denied.target": "`agentbus agent show` lists whom it may talk to",
    "denied.user_required": "ask --as user/NAME",
    "directory.not_owner": "ask its owner or the operator",
    "directory.token": "ask the operator for another: `agentbus agent token NAME`",
    "handler.failed": "its own standard error says why",
    "handler.missing": "`agentbus agent show AGENT` lists what it answers",
    "key.missing": "`agentbus agent enrol`, `agentbus user enrol`",
    "reject.grant_expired": "make a new one: `agentbus grant create`",
    "reject.revoked": "it will not come back; make a new one: `agentbus grant create`",
    "reply.invalid": "whoever wrote the agent has to mend it",
    "request.invalid": "look at the message type's fields",
}
"""By code; see docs/reference/errors.md for all of them."""


def hint(code: str) -> str:
    """What to do about an error of this code; empty where its text says it."""
    return HINTS.get(code, "")
