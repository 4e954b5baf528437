"""The token exchange as a service: opens what was sealed, asks the rules, does once what may be done once, signs.

Rule 1: what may be granted is decided in :mod:`agentbus.services.exchange_rules`, which HTTP shares.
Rule 2: a single-use token is used up, durably, before anything is signed; where signing fails, a fresh token is needed.
Rule 3: no token is logged, kept or shown; what is kept of one is its jti.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from agentbus.authn.foreign import verify_foreign
from agentbus.authn.jws import read_jwks
from agentbus.crypto.sealed import SealKey, seal
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.grant import Grant, Link, encode_chain
from agentbus.delegation.outside import Issuer
from agentbus.delegation.revoking import is_operator
from agentbus.delegation.scope import scope, scopes
from agentbus.delegation.statements import directory_id
from agentbus.directory import rules
from agentbus.directory.core import Directory
from agentbus.errors import AgentBusError, Denied, DirectoryRefused, Rejected
from agentbus.runtime.agent import Agent
from agentbus.runtime.context import Context
from agentbus.runtime.exchange import (
    ACCESS_TOKEN,
    CHAIN,
    EndIssuer,
    ExchangeKey,
    IssuerRule,
    IssuerRules,
    Jwks,
    ListIssuers,
    PublicKey,
    PutIssuer,
    Sealed,
    TokenKeys,
    Tokens,
    read_sealed,
)
from agentbus.services import exchange_rules
from agentbus.services.exchange_rules import Access, Client, Root
from agentbus.services.exchange_tokens import OwnToken, is_own, jwks, sign_access, verify_access
from agentbus.services.once import Once
from agentbus.services.resources import close_with
from agentbus.wire.ids import PrincipalId, b64, name_id
from agentbus.wire.limits import SECOND

CODES: Final = {
    "reject.token_replayed": "This token was exchanged before; it is good once. Get a fresh one.",
    "denied.token": "An access token is revoked by somebody it names, or by the operator.",
    "denied.exchange_standing": "Whoever asks for an exchange speaks under their own standing grant.",
    "directory.issuer": "The rule for an outside issuer cannot be used as it is.",
}


class Exchange:
    """What the exchange does, whoever carries the request: decide, use up, sign.

    Args:
        core: The directory: its log, and its consent and token keys.
        once: What was used or revoked.
        entropy: Random bytes.
    """

    def __init__(self, core: Directory, once: Once, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self.core, self.once = core, once
        self._entropy = entropy

    async def exchange(self, parameters: list[tuple[str, str]], client: Client, *, now: int) -> dict[str, Any]:
        """One exchange; the answer has the members of RFC 8693 §2.2.1.

        Raises:
            What :func:`exchange_rules.judge` raises. Rejected: ``reject.token_replayed``.
        """
        granted = self._judge(parameters, client, now)
        if isinstance(granted, Root):
            issuer, jti, _, ends = granted.token
            if not await self.once.use(issuer, jti, ends, now=now):
                raise Rejected("reject.token_replayed", "this token was exchanged before; get a fresh one")
            granted = self._judge(
                parameters, client, now
            )  # the directory may have changed while the disk was waited for
        return self._access(granted, now) if isinstance(granted, Access) else self._root(granted, now)

    def _judge(self, parameters: list[tuple[str, str]], client: Client, now: int) -> Access | Root:
        trust = self.core.trust
        tokens = exchange_rules.Tokens(
            foreign=lambda token: verify_foreign(token, trust.issuers, now=now),
            own=lambda token: self._own(token, now),
            is_own=lambda token: is_own(token, trust.domain),
        )
        return exchange_rules.judge(parameters, client=client, trust=trust, now=now, tokens=tokens)

    def inspect(self, token: str, *, now: int) -> dict[str, Any]:
        """What an access token is worth now (RFC 7662 §2.2), and if nothing, why."""
        try:
            own = self._own(token, now)
            exchange_rules.require_standing(own, self.core.trust)
        except AgentBusError as error:
            return {"active": False, "code": error.code, "why": error.message}
        return {
            "active": True, "sub": own.subject, "aud": own.audience, "client_id": own.client, "jti": own.jti,
            "scope": " ".join(own.scopes), "exp": own.expires // SECOND, "act": own.act, "token_type": "Bearer",
        }  # fmt: skip

    async def revoke(self, token: str, client: Client, *, now: int) -> dict[str, Any]:
        """Let an access token count no more (RFC 7009). One that counts nothing already is no error (§2.2).

        Raises:
            Denied: ``denied.token``.
        """
        try:
            own = self._own(token, now)
        except AgentBusError:
            return {}
        named = {own.subject, own.client, own.audience, *_actors(own)}
        if client.id not in named and not is_operator(self.core.trust.principals, client.id):
            raise Denied("denied.token", f"the token names {own.subject.short} and not {client.id.short}")
        await self.once.revoke("", own.jti, own.expires, now=now)
        return {}

    def _own(self, token: str, now: int) -> OwnToken:
        own = verify_access(token, self.core.trust, now=now)
        if self.once.is_revoked("", own.jti):
            raise Rejected("reject.token_revoked", "this access token was revoked")
        return own

    def _access(self, granted: Access, now: int) -> dict[str, Any]:
        core = self.core
        token = sign_access(granted, core.keys.token, domain=core.domain, now=now, jti=self._entropy(16))
        ends = granted.expires // SECOND * SECOND
        return {
            "access_token": token,
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": (ends - now) // SECOND,
            "expires_at": ends,
            "scope": " ".join(granted.scopes),
        }

    def _root(self, granted: Root, now: int) -> dict[str, Any]:
        core = self.core
        kind: str = "token"
        evidence: tuple[Any, ...] = granted.token
        if granted.consent is not None:
            core.write(now, [("consent", granted.user, granted.consent.encode())])
            kind, evidence = "consent", (core.trust.size - 1,)
        record = core.trust.principals[granted.holder]
        grant = Grant(
            directory_id(core.domain), 1, core.keys.consent.id, now, granted.holder, record.epoch, None, granted.user,
            None, 0, None, now, granted.expires, granted.scopes, granted.targets, granted.depth, self._entropy(16),
            None, None, kind, evidence,
        )  # fmt: skip
        body = grant.encode()
        link = Link(grant, body, sign(core.keys.consent, Purpose.GRANT, body))
        core.presence.granted(link, granted.holder)
        chain = encode_chain((link,))
        return {
            "access_token": b64(chain),  # RFC 8693 §2.2.1: the member has this name whatever the type
            "issued_token_type": CHAIN,
            "token_type": "N_A",
            "expires_in": (granted.expires - now) // SECOND,
            "scope": " ".join(str(s).replace(", ", ",") for s in granted.scopes),
        }


def _actors(token: OwnToken) -> list[str]:
    found, act = [], token.act
    while act:
        found.append(str(act.get("sub")))
        act = act.get("act")
    return found


def add_exchange(agent: Agent[Any], core: Directory, once: Once, now: Callable[[], int], entropy: Any) -> None:
    """Let ``agent``, which is the directory's, exchange tokens and keep the rules for outside issuers."""
    close_with(agent, once)
    key = SealKey(entropy(32))
    service = Exchange(core, once, entropy)

    @agent.handler
    async def exchange_key(request: ExchangeKey, ctx: Context[Any]) -> PublicKey:
        return PublicKey(key=b64(key.public))

    @agent.handler
    async def tokens(request: Tokens, ctx: Context[Any]) -> Sealed:
        asked = read_sealed(request.sealed, key)
        client = _client(asked["from"], ctx)
        if asked["do"] == "exchange":
            answer = await service.exchange(asked["parameters"], client, now=now())
        else:
            token = dict(asked["parameters"]).get("token", "")
            if asked["do"] == "inspect":
                answer = service.inspect(token, now=now())
            else:
                answer = await service.revoke(token, client, now=now())
        return Sealed(sealed=b64(seal(json.dumps(answer).encode(), asked["reply_to"])))

    @agent.handler
    async def token_keys(request: TokenKeys, ctx: Context[Any]) -> Jwks:
        return Jwks(keys=jwks(core.trust, now=now())["keys"])

    @agent.handler
    async def put_issuer(request: PutIssuer, ctx: Context[Any]) -> IssuerRules:
        rules.require_operator(core.trust, ctx.sender)
        rule = issuer_of(request.rule, core.domain)
        core.write(now(), [("issuer", rule.issuer, rule.encode())])
        return _issuers(core)

    @agent.handler
    async def end_issuer(request: EndIssuer, ctx: Context[Any]) -> IssuerRules:
        rules.require_operator(core.trust, ctx.sender)
        known = core.trust.issuers.get(request.issuer)
        if known is None:
            raise DirectoryRefused("directory.issuer", f"no issuer {request.issuer!r} was ever configured")
        core.write(now(), [("issuer", known.issuer, replace(known, active=False).encode())])
        return _issuers(core)

    @agent.handler
    async def list_issuers(request: ListIssuers, ctx: Context[Any]) -> IssuerRules:
        return _issuers(core)


def _client(name: str, ctx: Context[Any]) -> Client:
    """Who asks: the sender, who said so inside the seal as well, so that nobody asks with what another one sealed."""
    if name != ctx.sender:
        raise Denied("denied.exchange_client", "this was sealed by somebody else")
    standing = ctx.caller.links[0].grant
    if ctx.caller.root_kind != "standing" or len(ctx.caller.links) != 1:
        raise Denied("denied.exchange_standing", CODES["denied.exchange_standing"])
    return Client(ctx.sender, standing.pinned_key, ctx.sender)


def issuer_of(rule: IssuerRule, domain: str) -> Issuer:
    """The record of a rule that an operator wrote.

    Raises:
        DirectoryRefused: ``directory.issuer``. InvalidKey, ConfigError: of its keys.
    """
    try:
        keys = read_jwks(json.dumps(rule.jwks or {"keys": []}))
        who: list[PrincipalId] = [name_id(name, domain) for name in rule.consent_by]
        return Issuer(
            rule.issuer, rule.active, rule.audience, keys, scopes(scope(s) for s in rule.scopes),
            tuple(sorted((client, name_id(agent, domain)) for client, agent in rule.clients)), rule.claim, rule.suffix,
            rule.max_depth, rule.consent_seconds, tuple(sorted(who)),
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise DirectoryRefused("directory.issuer", f"{rule.issuer}: {error}") from error


def _issuers(core: Directory) -> IssuerRules:
    found = [
        IssuerRule(
            issuer=of.issuer,
            active=of.active,
            audience=of.audience,
            jwks={"keys": [{"kid": k.kid, "alg": k.algorithm} for k in of.keys]},
            scopes=[str(s) for s in of.scopes],
            clients=[(client, who.short) for client, who in of.clients],
            claim=of.claim,
            suffix=of.suffix,
            max_depth=of.max_depth,
            consent_seconds=of.consent_seconds,
            consent_by=[who.short for who in of.consent_by],
        )
        for of in core.trust.issuers.values()
    ]
    return IssuerRules(issuers=sorted(found, key=lambda rule: rule.issuer))
