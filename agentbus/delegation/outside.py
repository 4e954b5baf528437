"""What the word of an outsider is worth here: issuers of foreign tokens, and consents that users gave through them.

Both are events of the directory's log, so every node knows them, and a chain whose root rests on one is judged against
it by everybody (docs/spec/directory.md). Nothing here verifies a token; that happened before the root was signed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentbus.crypto.keys import VerifyKey
from agentbus.delegation.grant import Grant, decode_targets, targets_within
from agentbus.delegation.scope import Scope, all_within, decode_scopes, encode_scopes
from agentbus.errors import Malformed
from agentbus.wire.ids import PrincipalId, parse_id

ALGORITHMS: Final = ("EdDSA", "ES256", "PS256", "RS256")
"""Of keys of outside issuers. Each key has one, and a token's header chooses nothing."""


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A public key of an outside issuer."""

    kid: str
    algorithm: str
    key: bytes  # EdDSA: the raw key; else its JWK as canonical JSON


@dataclass(frozen=True, slots=True)
class Issuer:
    """An outside issuer: which of its tokens count, for whom, and what they may give at most."""

    issuer: str  # the ``iss`` of its tokens, compared exactly
    active: bool
    audience: str  # what its tokens' ``aud`` must hold
    keys: tuple[IssuerKey, ...]
    scopes: tuple[Scope, ...]
    clients: tuple[tuple[str, PrincipalId], ...]  # its client ids, and who may present tokens made for each
    claim: str  # which claim names the user here
    suffix: str  # what that claim's value ends with, before which the user's name stands
    max_depth: int
    consent_seconds: int  # how long a consent given through it may hold; 0: none is taken
    consent_by: tuple[PrincipalId, ...]  # who may record that a user consented

    def encode(self) -> list[Any]:
        """The payload of its event."""
        keys = [[k.kid, k.algorithm, k.key] for k in self.keys]
        clients = [[client, str(who)] for client, who in self.clients]
        return [
            self.active, self.audience, keys, encode_scopes(self.scopes), clients, self.claim, self.suffix,
            self.max_depth, self.consent_seconds, [str(who) for who in self.consent_by],
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Consent:
    """A user's consent that an agent acts for her, as it was recorded."""

    user: PrincipalId
    holder: PrincipalId
    scopes: tuple[Scope, ...]
    targets: tuple[str, ...]
    depth: int
    expires: int
    method: str  # how the user was authenticated: ``token:<issuer>``
    authenticated_at: int
    text: bytes  # SHA-256 of the text that was shown to her
    approved_by: PrincipalId  # who showed it, and says she agreed

    def encode(self) -> list[Any]:
        """The payload of its event."""
        return [
            str(self.holder), encode_scopes(self.scopes), list(self.targets), self.depth, self.expires, self.method,
            self.authenticated_at, self.text, str(self.approved_by),
        ]  # fmt: skip


def decode_issuer(name: str, payload: list[Any]) -> Issuer:
    """Read the payload of an ``issuer`` event.

    Raises:
        Malformed: ``malformed.statement`` and those of scopes and ids. InvalidKey: an Ed25519 key is weak.
    """
    active, audience, keys, granted, clients, claim, suffix, max_depth, seconds, consent_by = payload
    texts = (name, audience, claim, suffix)
    if type(active) is not bool or any(type(t) is not str or len(t) > 256 for t in texts):
        raise _bad("an issuer's names are texts of at most 256 characters")
    if not name or not audience or not claim or len(keys) > 16 or len(clients) > 256 or len(consent_by) > 256:
        raise _bad("an issuer has a name, an audience, a claim, at most 16 keys and 256 clients")
    if type(max_depth) is not int or not 0 <= max_depth <= 10 or type(seconds) is not int or not 0 <= seconds < 1 << 32:
        raise _bad("an issuer's depth is 0 to 10, and its consents last some seconds or none")
    found = tuple(_issuer_key(key) for key in keys)
    if len({k.kid for k in found}) != len(found):
        raise _bad("two keys of an issuer have one id")
    pairs = tuple((_text(client), parse_id(_text(who))) for client, who in clients)
    by = tuple(parse_id(_text(who)) for who in consent_by)
    return Issuer(
        name, active, audience, found, decode_scopes(granted), pairs, claim, suffix, max_depth, seconds, by
    )  # fmt: skip


def decode_consent(user: str, payload: list[Any]) -> Consent:
    """Read the payload of a ``consent`` event.

    Raises:
        Malformed: ``malformed.statement`` and those of scopes and ids.
    """
    holder, granted, targets, depth, expires, method, at, text, by = payload
    who = parse_id(user)
    numbers = (depth, expires, at)
    if who.kind != "user" or any(type(n) is not int or not 0 <= n < 1 << 63 for n in numbers):
        raise _bad("a consent is a user's, with depth and instants")
    if type(text) is not bytes or len(text) != 32 or type(method) is not str or not 0 < len(method) <= 300:
        raise _bad("a consent names a method and the SHA-256 of a text")
    return Consent(
        who, parse_id(_text(holder)), decode_scopes(granted), decode_targets(targets), depth, expires, method, at,
        text, parse_id(_text(by)),
    )  # fmt: skip


def exceeds_issuer(grant: Grant, issuer: Issuer | None) -> str | None:
    """What a root of kind ``token`` takes that its issuer may not give; None when it keeps within the rule."""
    name, _jti, _acr, expires = grant.evidence or ("", "", "", 0)
    if issuer is None or not issuer.active:
        return f"tokens of {name} count no more here"
    if grant.audience not in {who for _, who in issuer.clients}:
        return f"{grant.audience.short} may present no token of {name}"
    if not all_within(grant.scopes, issuer.scopes):
        return f"more scopes than tokens of {name} may give"
    if grant.expires > expires:
        return "it outlives the token"
    return None if grant.depth <= issuer.max_depth else f"a greater depth than tokens of {name} may give"


def exceeds_consent(grant: Grant, consent: Consent | None, issuers: Mapping[str, Issuer]) -> str | None:
    """What a root of kind ``consent`` takes that the user did not agree to; None when it keeps within it."""
    if consent is None or consent.user != grant.subject:
        return "no such consent of this user is on record"
    kind, _, name = consent.method.partition(":")
    if kind == "token" and not (name in issuers and issuers[name].active):
        return f"she agreed by a token of {name}, which count no more here"
    if consent.holder != grant.audience:
        return f"she agreed that {consent.holder.short} acts for her"
    if not all_within(grant.scopes, consent.scopes):
        return "more scopes than she agreed to"
    if not targets_within(grant.targets, consent.targets, grant.subject.domain):
        return "targets that she did not agree to"
    if grant.expires > consent.expires:
        return "it outlives her consent"
    return None if grant.depth <= consent.depth else "a greater depth than she agreed to"


def _issuer_key(wire: Any) -> IssuerKey:
    kid, algorithm, key = wire
    if type(kid) is not str or len(kid) > 256 or algorithm not in ALGORITHMS or type(key) is not bytes:
        raise _bad(f"a key has an id and one of the algorithms {', '.join(ALGORITHMS)}")
    if algorithm == "EdDSA":
        VerifyKey(key)  # the valid-point gate: before it may enter anything
    elif len(key) > 4096 or json.dumps(json.loads(key), sort_keys=True, separators=(",", ":")).encode() != key:
        raise _bad("a key's JWK is canonical JSON of at most 4096 bytes")
    return IssuerKey(kid, algorithm, key)


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > 256:
        raise _bad("a name is a text of at most 256 characters")
    return value


def _bad(why: str) -> Malformed:
    return Malformed("malformed.statement", why)
