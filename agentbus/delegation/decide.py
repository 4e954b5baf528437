"""The decision: may this verified message reach a handler?

Effective authority = every link ∩ the ceiling of its audience ∩ the user's rights now ∩ local policy. Each check stands
alone and fails closed; there is no order in which a later one could make up for an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import target_within
from agentbus.delegation.messages import Permitted, VerifiedMessage
from agentbus.delegation.scope import Fact, Scope, allows
from agentbus.delegation.trust import Trust
from agentbus.errors import Denied, HandlerMissing, Unavailable
from agentbus.wire.header import OPENING, Kind

CODES: Final = {
    "denied.not_a_request": "Only requests, sends, events, streams and jobs are asked of a handler.",
    "denied.target": "A link of the chain does not name this recipient as a target.",
    "denied.scope": "A link of the chain does not grant a scope that the handler requires.",
    "denied.ceiling": "An agent in the chain has no such scope in its ceiling.",
    "denied.rights": "The user at the root has no such right now.",
    "denied.user_required": "The handler speaks only to chains that begin with a user.",
    "handler.missing": "The agent has no handler for this message type.",
    "unavailable.directory_stale": "The directory was not heard for max_directory_age; new work waits until it is.",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What one handler requires."""

    scopes: tuple[str, ...] = ()
    requires_user: bool = False
    max_age: int | None = None  # microseconds; where the handler demands a fresher directory than the domain does


@dataclass(frozen=True, slots=True)
class Policy:
    """Local policy, a value: which message types have a handler here and what each requires.

    An action without a rule has no handler; an empty policy permits nothing.
    """

    version: str
    rules: Mapping[tuple[str, str], Rule] = field(default_factory=dict)  # by (recipient id, action)


def decide(message: VerifiedMessage, *, trust: Trust, policy: Policy, now: int, age: int | None) -> Permitted:
    """Permit a verified message, or say which link, scope, ceiling, right or rule forbids it.

    Args:
        message: What ``open_envelope`` returned.
        trust: Ceilings and rights as the directory has them now.
        policy: What the recipient's handlers require.
        now: Instant, microseconds; the fact ``at`` of every caveat.
        age: Microseconds since the directory was last heard; None: never.

    Raises:
        Unavailable: ``unavailable.directory_stale``, retryable.
        HandlerMissing: ``handler.missing``.
        Denied: ``denied.*``.
    """
    header, authority = message.header, message.authority
    if header.kind not in OPENING:
        raise Denied("denied.not_a_request", f"a {Kind(header.kind).name.lower()} is not asked of a handler")
    rule = policy.rules.get((header.recipient, header.action))
    limit = trust.max_age if rule is None or rule.max_age is None else min(rule.max_age, trust.max_age)
    if age is None or age > limit:
        heard = "never" if age is None else f"{age / 1e6:.1f} s ago"
        raise Unavailable("unavailable.directory_stale", f"the directory was last heard {heard}; it is asked again")
    _require_targets(authority, header.recipient, trust.domain)
    if rule is None:
        raise HandlerMissing("handler.missing", f"{header.recipient} has no handler for {header.action!r}")
    if rule.requires_user and authority.user is None:
        raise Denied("denied.user_required", "ask on behalf of a user")
    for name in rule.scopes:
        require(authority, name, {}, trust=trust, now=now)
    return Permitted(message, policy.version, trust.size, trust.revocation_seq)


def require(authority: Authority, name: str, facts: Mapping[str, Fact], *, trust: Trust, now: int) -> None:
    """Return when every link, ceiling and right allows scope ``name`` given ``facts``.

    A caveat on a fact that is not given does not hold: a handler that is to be used under caveats judges with
    ``ctx.require(scope, **facts)``.

    Raises:
        Denied: ``denied.scope``, ``denied.ceiling``, ``denied.rights``.
    """
    known = {**facts, "at": now}
    for link in authority.links:
        grant = link.grant
        if not allows(grant.scopes, name, known):
            raise _denied(
                "denied.scope",
                f"link {grant.n} to {grant.audience.short} does not grant {name}",
                link=grant.n,
                scope=name,
            )
        if grant.audience.kind == "agent":
            record = trust.principal(grant.audience)
            if record is None or not allows(record.ceiling, name, known):
                raise _denied(
                    "denied.ceiling", f"{name} is above the ceiling of {grant.audience.short}", scope=name, link=grant.n
                )
    if authority.user is not None:
        user = trust.principal(authority.user)
        rights: tuple[Scope, ...] | None = () if user is None else user.rights
        if rights is not None and not allows(rights, name, known):
            raise _denied("denied.rights", f"{authority.user.short} has no right to {name}", scope=name)


def _require_targets(authority: Authority, recipient: str, domain: str) -> None:
    for link in authority.links:
        if not target_within(link.grant.targets, recipient, domain):
            n = link.grant.n
            raise _denied("denied.target", f"link {n} does not name {recipient} as a target", link=n, target=recipient)


def _denied(code: str, message: str, **details: Any) -> Denied:
    return Denied(code, message, details=details)
