"""The decision: may this verified message reach a handler?

Effective authority = every link ∩ the ceiling of its audience ∩ the user's rights now ∩ local policy. Each check stands
alone and fails closed; there is no order in which a later one could make up for an earlier one.

The checks of one decision are one list (:func:`_checks`). :func:`decide` runs them until one raises; :func:`explain`
runs all of them and reports each. So an explanation cannot differ from the decision it explains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import Grant, Link, target_within
from agentbus.delegation.messages import Permitted, VerifiedMessage
from agentbus.delegation.scope import Fact, Scope, allows, covers
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError, Denied, HandlerMissing, Unavailable
from agentbus.wire.header import OPENING, Kind
from agentbus.wire.ids import PrincipalId

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

_TOLD: Final = 8  # message types that a refusal lists


@dataclass(frozen=True, slots=True)
class Rule:
    """What one handler requires."""

    scopes: tuple[str, ...] = ()
    requires_user: bool = False


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
        Denied: ``denied.*``; ``details["allow"]`` says what would allow it.
    """
    header = message.header
    if header.kind not in OPENING:
        raise Denied("denied.not_a_request", f"a {Kind(header.kind).name.lower()} is not asked of a handler")
    asked = PrincipalId(header.recipient)  # it is this node's own: opening compared it with whom the frame is for
    for _, _, check, arguments in _checks(message.authority, asked, header.action, trust, policy, now, age):
        check(*arguments)
    return Permitted(message, policy.version, trust.size, trust.revocation_seq)


def require(authority: Authority, name: str, facts: Mapping[str, Fact], *, trust: Trust, now: int) -> None:
    """Return when every link, ceiling and right allows scope ``name`` given ``facts``.

    A caveat on a fact that is not given does not hold: a handler that is to be used under caveats judges with
    ``ctx.require(scope, **facts)``.

    Raises:
        Denied: ``denied.scope``, ``denied.ceiling``, ``denied.rights``.
    """
    for _, _, check, arguments in _scope_checks(authority, name, {**facts, "at": now}, trust):
        check(*arguments)


@dataclass(frozen=True, slots=True)
class Check:
    """One question of a decision, and its answer."""

    what: str  # freshness, target, handler, user, scope, ceiling or rights
    about: str
    refused: AgentBusError | None  # None: this check permits


def explain(
    authority: Authority,
    recipient: PrincipalId,
    action: str,
    *,
    trust: Trust,
    policy: Policy,
    now: int,
    age: int | None,
    also: Mapping[str, Mapping[str, Fact]] | None = None,
) -> list[Check]:
    """Every check that :func:`decide` would make of such a message, and what each says. None refused: it is permitted.

    Args:
        authority: The chain it would be asked under, verified.
        recipient: Who would be asked.
        action: The message type.
        also: Scopes with facts that the handler would ask of ``ctx.require`` as well.

    Where the recipient has no handler the scopes cannot be asked about, and the list ends there.
    """
    found: list[Check] = []
    todo = [*_checks(authority, recipient, action, trust, policy, now, age)]
    for name, facts in (also or {}).items():
        todo += _scope_checks(authority, name, {**facts, "at": now}, trust)
    for what, about, check, arguments in todo:
        name = f"{_named(about)}: {arguments[1]}" if what in ("scope", "ceiling", "rights") else _named(about)
        try:
            check(*arguments)
        except AgentBusError as error:
            found.append(Check(what, name, error))
        else:
            found.append(Check(what, name, None))
    return found


# ── the checks, in order; each returns or raises ─────────────────────────────────────────────────────────────────────

_Step = tuple[str, Link | PrincipalId | str, Callable[..., None], tuple[Any, ...]]


def _checks(
    authority: Authority,
    recipient: PrincipalId,
    action: str,
    trust: Trust,
    policy: Policy,
    now: int,
    age: int | None,
) -> Iterator[_Step]:
    rule = policy.rules.get((recipient, action))
    yield "freshness", "the directory", _require_fresh, (age, trust.max_age)
    for link in authority.links:
        yield "target", link, _require_target, (link, recipient, trust.domain)
    yield "handler", "the recipient", _require_handler, (policy, recipient, action)
    if rule is None:
        return
    yield "user", "the root", _require_user, (rule, authority)
    known = {"at": now}
    for name in rule.scopes:
        yield from _scope_checks(authority, name, known, trust)


def _scope_checks(authority: Authority, name: str, known: Mapping[str, Fact], trust: Trust) -> Iterator[_Step]:
    for link in authority.links:
        grant = link.grant
        yield "scope", link, _require_scope, (link, name, known)
        if grant.audience.kind == "agent":
            yield "ceiling", grant.audience, _require_ceiling, (link, name, known, trust)
    if authority.user is not None:
        yield "rights", authority.user, _require_rights, (authority.user, name, known, trust)


def _named(of: Link | PrincipalId | str) -> str:
    if isinstance(of, Link):
        return f"link {of.grant.n}, {of.grant.issuer.short} to {of.grant.audience.short}"
    return of.short if isinstance(of, PrincipalId) else of


def _require_fresh(age: int | None, limit: int) -> None:
    if age is None or age > limit:
        heard = "never" if age is None else f"{age / 1e6:.1f} s ago"
        raise Unavailable("unavailable.directory_stale", f"the directory was last heard {heard}; it is asked again")


def _is_standing(grant: Grant) -> bool:
    """Whether the directory made it, of what it knows of the agent: nobody can be asked for another."""
    return grant.n == 0 and grant.root_kind == "standing"


def _require_target(link: Link, recipient: PrincipalId, domain: str) -> None:
    grant = link.grant
    if not target_within(grant.targets, recipient, domain):
        who, whom = grant.audience.short, recipient.short
        why = f"link {grant.n}, {grant.issuer.short} to {who}, does not name {whom} as a target"
        allow = f"a grant of {grant.issuer.short} to {who} with {recipient} among its targets"
        if _is_standing(grant):
            allow = f"{recipient} among those whom {who} may talk to, which is said when {who} is created"
        details = {"link": grant.n, "target": recipient, "allow": allow}
        raise Denied("denied.target", why, details=details)


def _require_handler(policy: Policy, recipient: PrincipalId, action: str) -> None:
    if (recipient, action) not in policy.rules:
        there = [one for who, one in policy.rules if who == recipient]
        raise HandlerMissing("handler.missing", no_handler(recipient.short, action, there))


def no_handler(who: str, action: str, there: Iterable[str]) -> str:
    """What to tell whoever asked ``who`` for an action that it does not answer: what it does answer."""
    known = sorted(one for one in there if not one.startswith("agentbus."))  # what every agent answers says nothing
    more = f" and {len(known) - _TOLD} more" if len(known) > _TOLD else ""
    return f"{who} has no handler for {action!r}; it answers {', '.join(known[:_TOLD]) or 'nothing'}{more}"


def _require_user(rule: Rule, authority: Authority) -> None:
    if rule.requires_user and authority.user is None:
        details = {"allow": "a chain whose root is a user's grant"}
        why = f"{authority.holder.short} asks for {authority.subject.short}, and this handler answers for users only"
        raise Denied("denied.user_required", why, details=details)


def _require_scope(link: Link, name: str, known: Mapping[str, Fact]) -> None:
    grant = link.grant
    if allows(grant.scopes, name, known):
        return
    close = [scope for scope in grant.scopes if covers(scope.name, name)]
    message = f"link {grant.n} to {grant.audience.short} does not grant {name}"
    given = ", ".join(f"{k}={v}" for k, v in known.items() if k != "at")
    if close:
        message += f" for {given or 'no facts'}: it grants {' or '.join(map(str, close))}"
    allow = f"a grant of {grant.issuer.short} to {grant.audience.short} with {name}"
    if _is_standing(grant):
        allow = f"a ceiling of {grant.audience.short} with {name}, or asking under what a user granted"
    elif close:
        allow += f" for {given}" if given else " and no caveat, or a handler that gives ctx.require the facts"
    raise Denied("denied.scope", message, details={"link": grant.n, "scope": name, "allow": allow})


def _require_ceiling(link: Link, name: str, known: Mapping[str, Fact], trust: Trust) -> None:
    who = link.grant.audience
    record = trust.principal(who)
    if record is None or not allows(record.ceiling, name, known):
        allow = f"a ceiling of {who.short} with {name}, which is said when {who.short} is created"
        details = {"link": link.grant.n, "scope": name, "allow": allow}
        has = ", ".join(map(str, record.ceiling)) if record is not None else ""
        raise Denied("denied.ceiling", f"{name} is above the ceiling of {who.short}: {has or 'none'}", details=details)


def _require_rights(who: PrincipalId, name: str, known: Mapping[str, Fact], trust: Trust) -> None:
    user = trust.principal(who)
    rights: tuple[Scope, ...] | None = () if user is None else user.rights
    if rights is not None and not allows(rights, name, known):
        allow = f"rights of {who.short} with {name}, which are said when {who.short} is created"
        details = {"scope": name, "allow": allow}
        raise Denied("denied.rights", f"{who.short} has no right to {name}", details=details)
