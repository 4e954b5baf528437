"""Token exchange (RFC 8693) as one pure function: parameters, tokens and the present go in; a grant or a denial out.

The bus calls it for a signed request, an HTTP endpoint for a form; both get the same decisions. What may be granted is
decided by what the subject token *contains*, never by which parameters were sent:

    granted = requested ∩ subject token ∩ the agent's ceiling ∩ the user's rights ∩ the issuer's rule

A requested scope that is not wholly within all of them is left out; where nothing is left, it is a denial. Nothing here
signs, stores or reads a clock: what has to be done once (a single-use token) is named in the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentbus.authn.foreign import ForeignToken
from agentbus.delegation.chain import Authority, verify_chain
from agentbus.delegation.decide import require
from agentbus.delegation.grant import target_within
from agentbus.delegation.outside import Consent
from agentbus.delegation.scope import Scope, all_within, covers, scope, scopes
from agentbus.delegation.trust import NeedsTrust, Trust
from agentbus.errors import AgentBusError, Denied, Rejected, RequestInvalid
from agentbus.runtime.exchange import ACCESS_TOKEN, CHAIN, GRANT_TYPE, JWT
from agentbus.services.exchange_tokens import ACCESS_LIFE, OwnToken
from agentbus.wire.ids import PrincipalId, everyone, name_id, unb64
from agentbus.wire.limits import SECOND

CODES: Final = {
    "request.parameter_missing": "A parameter that this exchange needs is missing or empty (RFC 8693 §2.1).",
    "request.parameter_repeated": "A parameter stands there twice; two readers could take different ones.",
    "request.parameter_unsupported": "A parameter that is not honoured here would narrow the request: it is refused.",
    "request.parameter_value": "A parameter's value cannot be read.",
    "request.grant_type": "Only urn:ietf:params:oauth:grant-type:token-exchange is granted here.",
    "request.token_type": "No exchange is made from this type of subject token to that type of token.",
    "request.actor_token": "An actor token comes with its type, and is a chain that ends at whoever asks.",
    "denied.exchange_client": "The subject token was made for somebody else.",
    "denied.exchange_actor": "The subject token names an actor, and whoever asks has not proven to be it.",
    "denied.exchange_user": "The subject token names no active user whom tokens may speak for.",
    "denied.exchange_empty_scope": "No scope was asked for, and nothing is never taken to mean all.",
    "denied.exchange_scope": "Nothing that was asked for may be granted.",
    "denied.exchange_caveat": "An access token cannot carry the caveats of what is held.",
    "denied.exchange_audience": "The audience is unknown, not active, or beyond the targets of what is held.",
    "denied.exchange_depth": "The subject token allows no further exchange, or less depth than was asked for.",
    "denied.exchange_conversation": "What is held counts in one conversation only; a token would leave it.",
    "denied.exchange_consent": "Whoever asks may not say that a user of this issuer consented.",
    "denied.exchange_revoked": "A grant or principal that the subject token rests on was revoked.",
}

JWTS: Final = (ACCESS_TOKEN, JWT, "urn:ietf:params:oauth:token-type:id_token")
KNOWN: Final = frozenset(
    {"grant_type", "subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type",
     "audience", "scope", "targets", "expires_in", "depth", "consent"}
)  # fmt: skip
"""RFC 8693 §2.1, and four of our own. Of the RFC's, ``resource`` is refused: ignoring it would widen the request."""
MAX_LIFE: Final = 366 * 24 * 3600  # seconds
DEFAULT_LIFE: Final = 600


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks, as was proven: by a signed envelope, or by an authenticated HTTP request.

    Args:
        id: The principal that asks.
        identity_key: The identity key behind it, where one is; for chains that pin one.
        actor: Whom it has proven to be beyond being a client; None: only client credentials were shown.
    """

    id: PrincipalId
    identity_key: bytes | None
    actor: PrincipalId | None


@dataclass(frozen=True, slots=True)
class Tokens:
    """How subject tokens are verified. All three are pure: keys and time are bound already."""

    foreign: Callable[[str], ForeignToken]
    own: Callable[[str], OwnToken]
    is_own: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Root:
    """Granted: link 0 of a chain for ``holder``, to be signed by the consent key."""

    user: PrincipalId
    holder: PrincipalId
    scopes: tuple[Scope, ...]
    targets: tuple[str, ...]
    expires: int
    depth: int
    token: tuple[str, str, str, int]  # issuer, jti, acr, when it ends: what a root of kind token rests on
    consent: Consent | None  # to be recorded first; the root is then of kind consent


@dataclass(frozen=True, slots=True)
class Access:
    """Granted: an access token for ``audience``, to be signed by the token key."""

    subject: PrincipalId
    audience: PrincipalId
    client: PrincipalId
    scopes: tuple[str, ...]
    expires: int  # microseconds
    act: Mapping[str, Any] | None  # RFC 8693 §4.1: the newest actor outside, earlier ones inside
    links: tuple[str, ...]  # digests of the chain it rests on: a revocation of one ends it
    targets: tuple[str, ...]
    depth: int
    acr: str


def judge(
    parameters: Iterable[tuple[str, str]], *, client: Client, trust: Trust, now: int, tokens: Tokens
) -> Root | Access:
    """Grant an exchange, or say why not.

    Args:
        parameters: Names and values as they came, repetitions included.
        client: Who asks.
        trust: The directory as it is now.
        now: Instant, microseconds.
        tokens: Verifiers of subject tokens.

    Raises:
        RequestInvalid: ``request.*``. Denied: ``denied.*``. Rejected: the subject token or chain is not good.
        Malformed: it cannot be read.
    """
    asked = _read(parameters)
    if asked.get("grant_type") != GRANT_TYPE:
        raise (
            _missing("grant_type")
            if "grant_type" not in asked
            else _invalid("request.grant_type", "token exchange only")
        )
    subject, kind = _need(asked, "subject_token"), _need(asked, "subject_token_type")
    wanted = asked.get("requested_token_type", ACCESS_TOKEN)
    client = _with_actor(asked, client, trust, now)
    if kind == CHAIN and wanted in JWTS[:2]:
        return _from_chain(asked, subject, client, trust, now)
    if kind in JWTS and wanted in JWTS[:2] and tokens.is_own(subject):
        return _from_own(asked, tokens.own(subject), client, trust, now)
    if kind in JWTS and wanted == CHAIN and not tokens.is_own(subject):
        return _from_foreign(asked, tokens.foreign(subject), client, trust, now)
    raise _invalid("request.token_type", f"nothing of type {wanted[:80]!r} is made from a {kind[:80]!r}")


def _read(parameters: Iterable[tuple[str, str]]) -> dict[str, str]:
    """RFC 6749 §3.2: what has no value counts as omitted, and nothing may be repeated, not even an empty one."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in parameters:
        if name in seen:
            raise RequestInvalid("request.parameter_repeated", f"{name[:80]} stands there twice")
        seen.add(name)
        if name == "resource":
            raise RequestInvalid("request.parameter_unsupported", "resource is not honoured here; use audience")
        if name in KNOWN and value != "":
            found[name] = value
    return found


def _with_actor(asked: Mapping[str, str], client: Client, trust: Trust, now: int) -> Client:
    """The client, with what its actor token proves. Types come with tokens, and tokens with types (RFC 8693 §2.1)."""
    token, kind = asked.get("actor_token"), asked.get("actor_token_type")
    if token is None and kind is None:
        return client
    if token is None or kind != CHAIN:
        raise RequestInvalid("request.actor_token", "actor_token and actor_token_type come together, for a chain")
    actor = _chain(token, trust, now)
    _require_holder(actor, client)
    return Client(client.id, client.identity_key, client.id)


# ── a chain becomes an access token ──────────────────────────────────────────────────────────────────────────────────


def _from_chain(asked: Mapping[str, str], subject: str, client: Client, trust: Trust, now: int) -> Access:
    held = _chain(subject, trust, now)
    _require_holder(held, client)
    if held.conversation is not None:
        raise Denied("denied.exchange_conversation", CODES["denied.exchange_conversation"])
    audience = _audience(asked, trust, [link.grant.targets for link in held.links])
    wanted = _requested(asked)
    if any(one.caveats for one in wanted):
        raise Denied("denied.exchange_caveat", "an access token names scopes, and cannot carry their caveats")
    granted, why = [], None
    for one in wanted:
        try:
            require(held, one.name, {}, trust=trust, now=now)
            granted.append(one.name)
        except Denied as error:
            why = why or error
    if not granted and any(
        covers(s.name, one.name) and s.caveats for s in held.links[-1].grant.scopes for one in wanted
    ):
        raise Denied(
            "denied.exchange_caveat", f"{', '.join(held.scopes)}: a token cannot say so; ask the audience itself"
        )
    if why is not None and not granted:
        raise why
    actors = [link.grant.audience for link in held.links if link.grant.audience != held.subject]
    act: Mapping[str, Any] | None = None
    for who in actors:
        act = {"sub": str(who)} if act is None else {"sub": str(who), "act": act}
    last, first = held.links[-1].grant, held.links[0].grant
    return Access(
        held.subject, audience, client.id, tuple(granted), min(now + ACCESS_LIFE, held.expires_at), act,
        tuple(link.digest.hex() for link in held.links), last.targets, last.depth,
        first.evidence[2] if first.root_kind == "token" and first.evidence else "",
    )  # fmt: skip


def _chain(text: str, trust: Trust, now: int) -> Authority:
    try:
        return verify_chain(unb64(text), trust=trust, now=now)
    except NeedsTrust as error:
        raise Rejected("reject.instance_unknown", "an instance that signed a link is not known any more") from error


def _require_holder(held: Authority, client: Client) -> None:
    """A chain is used by its last audience alone: whoever strips a link or saw one pass holds nothing."""
    last = held.links[-1].grant
    if held.holder != client.id:
        raise Denied("denied.exchange_client", f"the chain is held by {held.holder.short}, not by {client.id.short}")
    if last.pinned_key is not None and last.pinned_key != client.identity_key:
        raise Rejected("reject.pinned_key", "the chain pins another identity key of its holder")


# ── our own token becomes a narrower one for whoever is behind its audience ──────────────────────────────────────────


def _from_own(asked: Mapping[str, str], token: OwnToken, client: Client, trust: Trust, now: int) -> Access:
    if token.audience != client.id:
        raise Denied("denied.exchange_client", f"the token is for {token.audience}, not for {client.id.short}")
    if (token.act is not None or token.may_act is not None) and client.actor is None:
        raise Denied("denied.exchange_actor", "the token names an actor: an actor's proof has to come with it")
    if token.may_act is not None and client.actor != token.may_act:
        raise Denied("denied.exchange_actor", f"only {token.may_act} may act with it")
    require_standing(token, trust)
    if token.depth < 1:
        raise Denied("denied.exchange_depth", "the token allows no further exchange")
    audience = _audience(asked, trust, [token.targets])
    granted = tuple(
        one.name
        for one in _requested(asked)
        if not one.caveats
        and any(covers(s, one.name) for s in token.scopes)
        and _within_rights(one, token.subject, trust)
        and _within_ceiling(one, client.id, trust)
    )
    if not granted:
        raise Denied("denied.exchange_scope", f"of what was asked for nothing is within {', '.join(token.scopes)}")
    act: Mapping[str, Any] = {"sub": str(client.id)}
    if token.act is not None:
        act = {"sub": str(client.id), "act": token.act}
    return Access(
        token.subject, audience, client.id, granted, min(now + ACCESS_LIFE, token.expires), act, token.links,
        token.targets, token.depth - 1, token.acr,
    )  # fmt: skip


def require_standing(token: OwnToken, trust: Trust) -> None:
    """The chain behind a token, as far as it can still end: its links and everybody in it."""
    if any(trust.is_revoked("grant", bytes.fromhex(link)) for link in token.links):
        raise Denied("denied.exchange_revoked", "a grant that the token rests on was revoked")
    act: Any = token.act
    who = [str(token.subject)]
    while isinstance(act, Mapping):
        who.append(str(act.get("sub")))
        act = act.get("act")
    for name in who:
        record = trust.principal(name)
        if record is None or record.state != "active":
            raise Denied("denied.exchange_revoked", f"{name} is not active any more")


# ── an outside issuer's token becomes the root of a chain ────────────────────────────────────────────────────────────


def _from_foreign(asked: Mapping[str, str], token: ForeignToken, client: Client, trust: Trust, now: int) -> Root:
    issuer = token.issuer
    mine = {name for name, who in issuer.clients if who == client.id}
    if token.client not in mine:
        raise Denied(
            "denied.exchange_client", f"{client.id.short} may present no token that was made for {token.client!r}"
        )
    for named in (token.act, token.may_act):
        if named is None:
            continue
        if client.actor is None or named["sub"] not in mine | {str(client.actor)}:
            raise Denied("denied.exchange_actor", f"the token names the actor {str(named['sub'])[:80]!r}")
    user = _user(token.user, trust)
    depth = _number(asked, "depth", 1, most=1 << 16)
    if depth > issuer.max_depth:
        raise Denied("denied.exchange_depth", f"depth {depth}; tokens of this issuer give at most {issuer.max_depth}")
    granted = tuple(
        one
        for one in _requested(asked)
        if all_within([one], issuer.scopes)
        and (token.scopes is None or any(covers(s, one.name) for s in token.scopes))
        and _within_rights(one, user, trust)
        and _within_ceiling(one, client.id, trust)
    )
    if not granted:
        rule = ", ".join(map(str, issuer.scopes)) or "nothing"
        rest = f"the token, the rights of {user.short} and the ceiling of {client.id.short}"
        raise Denied("denied.exchange_scope", f"nothing of it is within all of: the issuer's rule ({rule}), {rest}")
    targets = _targets(asked, trust)
    ends = now + _number(asked, "expires_in", DEFAULT_LIFE, least=1, most=MAX_LIFE) * SECOND
    consent = None
    if "consent" not in asked:
        ends = min(ends, token.expires)
    else:
        if client.id not in issuer.consent_by or issuer.consent_seconds == 0:
            raise Denied(
                "denied.exchange_consent", f"{client.id.short} may not record consents of users of {issuer.issuer}"
            )
        ends = min(ends, now + issuer.consent_seconds * SECOND)
        consent = Consent(
            user, client.id, granted, targets, depth, ends, f"token:{issuer.issuer}", min(now, token.authenticated_at),
            unb64(asked["consent"], 32), client.id,
        )  # fmt: skip
    evidence = (issuer.issuer, token.jti, token.acr, token.expires)
    return Root(user, client.id, granted, targets, ends, depth, evidence, consent)


def _user(name: str, trust: Trust) -> PrincipalId:
    """The enrolled, active user of this name, who is not the operator: nobody outside speaks for all rights."""
    try:
        who = name_id(f"user/{name}", trust.domain)
    except AgentBusError as error:
        raise Denied("denied.exchange_user", "the token names nobody who could be a user here") from error
    record = trust.principal(who)
    if record is None or record.state != "active":
        raise Denied("denied.exchange_user", f"there is no active {who.short} here")
    if record.rights is None:
        raise Denied(
            "denied.exchange_user", f"{who.short} has all rights, and no outside issuer speaks for such a user"
        )
    return who


# ── what was asked for ───────────────────────────────────────────────────────────────────────────────────────────────


def _requested(asked: Mapping[str, str]) -> tuple[Scope, ...]:
    """The scopes asked for; RFC 6749 §3.3: separated by spaces. Caveats are written without spaces."""
    names = asked.get("scope", "").split(" ")
    if not any(names):
        raise Denied("denied.exchange_empty_scope", "name the scopes that are needed")
    try:
        return scopes(scope(name) for name in names if name)
    except AgentBusError as error:
        raise RequestInvalid("request.parameter_value", f"scope: {error.message}") from error


def _audience(asked: Mapping[str, str], trust: Trust, targets: Iterable[tuple[str, ...]]) -> PrincipalId:
    """The one recipient of an access token: enrolled, active, and a target of every link."""
    who = _principal(_need(asked, "audience"), trust)
    record = trust.principal(who)
    if record is None or record.state != "active" or who.kind == "user":
        raise Denied("denied.exchange_audience", f"{who.short} is no active agent or service here")
    if not all(target_within(aim, who, trust.domain) for aim in targets):
        raise Denied("denied.exchange_audience", f"{who.short} is not among the targets of what is held")
    return who


def _targets(asked: Mapping[str, str], trust: Trust) -> tuple[str, ...]:
    if "targets" not in asked:
        return (everyone(trust.domain),)
    found = {str(_principal(name, trust)) for name in asked["targets"].split(" ") if name}
    if len(found) > 256:
        raise RequestInvalid("request.parameter_value", "at most 256 targets")
    return tuple(sorted(found))


def _principal(name: str, trust: Trust) -> PrincipalId:
    try:
        who = name_id(name, trust.domain)
    except AgentBusError as error:
        raise RequestInvalid("request.parameter_value", f"{name[:80]!r} names no principal") from error
    if who.domain != trust.domain:
        raise Denied("denied.exchange_audience", f"{who} is of another trust domain")
    return who


def _within_rights(one: Scope, user: PrincipalId, trust: Trust) -> bool:
    record = trust.principal(user)
    if user.kind != "user":
        return record is not None and all_within([one], record.ceiling)
    return record is not None and (record.rights is None or all_within([one], record.rights))


def _within_ceiling(one: Scope, who: PrincipalId, trust: Trust) -> bool:
    record = trust.principal(who)
    return record is not None and (who.kind != "agent" or all_within([one], record.ceiling))


def _number(asked: Mapping[str, str], name: str, default: int, *, least: int = 0, most: int) -> int:
    text = asked.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not least <= int(text) <= most:
        raise RequestInvalid("request.parameter_value", f"{name} is a whole number from {least} to {most}")
    return int(text)


def _need(asked: Mapping[str, str], name: str) -> str:
    if name not in asked:
        raise _missing(name)
    return asked[name]


def _missing(name: str) -> RequestInvalid:
    return RequestInvalid("request.parameter_missing", f"{name} is missing", details={"parameter": name})


def _invalid(code: str, message: str) -> RequestInvalid:
    return RequestInvalid(code, message)
