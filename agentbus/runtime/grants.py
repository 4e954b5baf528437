"""Questions about authorities: does one hold now, and why would a request under it be permitted or refused?

Judged by the functions that judge messages, with what this node knows of the directory. What the recipient requires is
its own claim; everything else is known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from agentbus.delegation.chain import Authority, verify_chain
from agentbus.delegation.decide import Check, Policy, Rule, explain
from agentbus.delegation.scope import Fact
from agentbus.delegation.trust import NeedsTrust
from agentbus.errors import Rejected, Unavailable
from agentbus.runtime.caller import Caller
from agentbus.runtime.discovery import AgentCard, Discover, card_of
from agentbus.runtime.node import Node

CODES: Final = {
    "reject.instance_unknown": "A link is signed by an instance unknown to the directory: it never was, or is gone.",
}

State = Literal["valid", "expired", "early", "revoked", "refused"]
_STATES: Final[Mapping[str, State]] = {
    "reject.grant_expired": "expired",
    "reject.grant_early": "early",
    "reject.revoked": "revoked",
}


@dataclass(frozen=True, slots=True)
class GrantState:
    """Whether an authority holds now, and the first reason why not."""

    state: State
    refused: Rejected | None = None

    def __bool__(self) -> bool:
        return self.state == "valid"

    def __str__(self) -> str:
        return self.state if self.refused is None else f"{self.state}: {self.refused.message} [{self.refused.code}]"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request would be permitted or refused: every check, and what each says."""

    authority: Authority
    recipient: AgentCard
    action: str
    checks: tuple[Check, ...]

    @property
    def allowed(self) -> bool:
        """Whether nothing refuses."""
        return all(check.refused is None for check in self.checks)

    @property
    def deciding(self) -> Check | None:
        """The check that would refuse it first."""
        return next((check for check in self.checks if check.refused is not None), None)

    def __str__(self) -> str:
        first = self.deciding
        verdict = "allowed" if first is None or first.refused is None else f"refused, {first.refused.code}"
        path = " → ".join(who.short for who in (self.authority.subject, self.authority.holder))
        lines = [f"{self.action} to {self.recipient.id.short} for {path}: {verdict}"]
        for check in self.checks:
            lines.append(f"  {'✗' if check.refused else '✓'} {check.what:9} {check.about}")
            if check.refused is not None:
                lines.append(f"              {check.refused.message}")
                allow = check.refused.details.get("allow")
                lines += [f"              would change it: {allow}"] if allow else []
        if not self.recipient.running:
            lines.append(f"  (no instance of {self.recipient.id.short} runs now)")
        return "\n".join(lines)


async def state_of(authority: Authority, node: Node) -> GrantState:
    """Whether a receiver that knows what this node knows would accept the chain now.

    Raises:
        Unavailable: ``unavailable.directory_stale``: what is known here is too old to say so.
    """
    age, limit = node.source.age(), node.source.trust.max_age
    if age is None or age > limit:
        raise Unavailable("unavailable.directory_stale", "the directory was not heard: whether it holds is unknown")
    try:
        await _verified(authority, node)
    except Rejected as error:
        return GrantState(_STATES.get(error.code, "refused"), error)
    return GrantState("valid")


async def explain_request(
    caller: Caller, authority: Authority, to: str, action: str, *, facts: Mapping[str, Mapping[str, Fact]]
) -> Explanation:
    """Why ``authority``'s holder, asking ``to`` for ``action``, would be permitted or refused.

    Args:
        caller: Who asks the directory what the recipient claims to require.
        facts: Scopes, with facts, that the recipient's handler asks of ``ctx.require``.

    Raises:
        DirectoryRefused: ``directory.unknown``: nobody has that name.
    """
    node = caller._node
    asked = Discover(name=node.name_id(to))
    card = card_of((await caller._own().request("service/directory", asked)).agents[0])
    rules = {(str(card.id), of.name): Rule(of.scopes, of.requires_user) for of in card.types}
    checks: list[Check] = []
    n = len(authority.links)
    try:
        await _verified(authority, node)
        checks.append(Check("chain", f"{n} link{'s' * (n != 1)}", None))
    except Rejected as error:
        error.details.setdefault("allow", "a new grant: a chain that does not verify gives nothing to anybody")
        checks.append(Check("chain", f"link {error.details.get('link', 0)}", error))
    checks += explain(
        authority, card.id, action, trust=node.source.trust, policy=Policy("claimed", rules), now=node.clock.now(),
        age=node.source.age(), also=facts,
    )  # fmt: skip
    return Explanation(authority, card, action, tuple(checks))


async def _verified(authority: Authority, node: Node) -> Authority:
    """The chain, verified; statements of instances that are not known here yet are fetched once."""
    try:
        return verify_chain(authority.data, trust=node.source.trust, now=node.clock.now())
    except NeedsTrust as error:
        await node.source.find(keys=error.keys)
    try:
        return verify_chain(authority.data, trust=node.source.trust, now=node.clock.now())
    except NeedsTrust as error:
        raise Rejected("reject.instance_unknown", "an instance that signed a link is not known any more") from error
