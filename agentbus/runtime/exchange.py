"""Token exchange as a caller uses it: an outside token for an authority, an authority for an access token.

Tokens are secrets of whoever bears them, and the bodies of messages are kept in logs. So they travel sealed to a key
that the exchange makes when it starts and never keeps: no log, not even the exchange's own, can be read for them later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

from pydantic import Field

from agentbus.crypto.sealed import SealKey, seal
from agentbus.delegation.chain import Authority, verify_chain
from agentbus.delegation.scope import Scope, scopes
from agentbus.errors import DirectoryRefused, Malformed, ProgrammingError, Rejected
from agentbus.runtime.caller import Caller, _Plain
from agentbus.runtime.message import Request, Strict, adapter
from agentbus.runtime.node import Node
from agentbus.wire.ids import PrincipalId, b64, unb64
from agentbus.wire.limits import SECOND

CODES: Final = {
    "usage.exchange": "A scope, target or lifetime cannot be sent as a parameter of an exchange.",
    "directory.exchange_key": "The exchange started anew meanwhile; ask for its key again.",
}

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
CHAIN: Final = "urn:agentbus:token-type:chain"


class PublicKey(Strict):
    """A key to seal to (X25519, base64url)."""

    key: str


class ExchangeKey(Request[PublicKey]):
    """The key that tokens for the exchange are sealed to; another after each start."""


class Sealed(Strict):
    """What only the one who asked can read."""

    sealed: str


class Tokens(Request[Sealed]):
    """A request about tokens, sealed: exchange (RFC 8693), inspect (RFC 7662) or revoke (RFC 7009)."""

    sealed: str = Field(max_length=400_000)


class Jwks(Strict):
    """Public keys (RFC 7517 §5) that verify access tokens issued here."""

    keys: list[dict[str, str]]


class TokenKeys(Request[Jwks]):
    """The keys that verify access tokens issued here."""


class IssuerRule(Strict):
    """Which tokens of an outside issuer count, for whom, and what they may give."""

    issuer: str
    active: bool = True
    audience: str = Field(min_length=1, max_length=256)
    jwks: dict[str, Any] = Field(default_factory=dict)
    scopes: list[str]
    clients: list[tuple[str, str]]  # its client id, and the agent that may present tokens made for it
    claim: str = "sub"
    suffix: str = ""
    max_depth: int = Field(default=4, ge=0, le=10)
    consent_seconds: int = Field(default=0, ge=0)
    consent_by: list[str] = Field(default_factory=list)


class IssuerRules(Strict):
    """Every outside issuer that was ever configured."""

    issuers: list[IssuerRule]


class PutIssuer(Request[IssuerRules]):
    """Let tokens of an outside issuer count, or count otherwise. The operator's alone."""

    rule: IssuerRule


class EndIssuer(Request[IssuerRules]):
    """Let no token of an outside issuer count any more, nor any authority that rests on one. The operator's alone."""

    issuer: str


class ListIssuers(Request[IssuerRules]):
    """The outside issuers whose tokens count, and those whose tokens did."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token (RFC 9068) for one audience. Whoever bears it may use it, for five minutes at most.

    Attributes:
        value: The JWT: ``headers={"Authorization": f"Bearer {token.value}"}``.
    """

    value: str = field(repr=False)
    audience: PrincipalId
    scopes: tuple[str, ...]
    expires: datetime


_keys: Final[WeakKeyDictionary[Node, bytes]] = WeakKeyDictionary()
"""The exchange's key as each node last heard it from its directory; it is another one after the directory's restart."""


async def ask(caller: Caller, what: Literal["exchange", "inspect", "revoke"], parameters: Sequence[Any]) -> Any:
    """Ask the exchange something that is sealed both ways.

    Raises:
        What the exchange refuses with.
    """
    mine = SealKey(caller._node._entropy(32))
    own = caller._own()
    body = {"do": what, "from": own._voice.identity.id, "reply_to": b64(mine.public), "parameters": list(parameters)}
    for last in (False, True):
        key = _keys.get(caller._node)
        if key is None:
            key = _keys[caller._node] = unb64((await own.request("service/directory", ExchangeKey())).key, 32)
        try:
            answer = await own.request("service/directory", Tokens(sealed=b64(seal(json.dumps(body).encode(), key))))
        except DirectoryRefused as error:
            if error.code != "directory.exchange_key" or last:
                raise
            _keys.pop(caller._node, None)  # it started anew since its key was asked for
        else:
            return json.loads(mine.open(unb64(answer.sealed)))
    raise AssertionError("unreachable")


async def exchange(
    caller: Caller,
    subject_token: str,
    granted: Sequence[str | Scope],
    targets: Sequence[str],
    expires_in: float,
    depth: int,
    consent: str | None,
) -> Authority:
    """An outside issuer's token for an authority that ``caller`` holds.

    Args:
        caller: Who will hold it.
        subject_token: The token of a user, by an issuer whose tokens count here.
        granted: The scopes that are asked for.
        targets: Whom it may ask; none given: everyone of the trust domain.
        expires_in: Seconds.
        depth: How many links may follow.
        consent: What the user agreed to, in words; its digest is recorded.

    Returns:
        The authority, verified.

    Raises:
        ProgrammingError: ``usage.exchange``. Denied: ``denied.exchange_*``. Rejected: ``reject.token_*``, or the
        chain does not hold. RequestInvalid, AgentGone, DeadlineExceeded, Unavailable.
    """
    node = caller._node
    if not 1 <= expires_in < 1 << 40:
        raise ProgrammingError("usage.exchange", f"expires_in={expires_in!r}: a second or more")
    parameters = [
        ("grant_type", GRANT_TYPE),
        ("subject_token", subject_token),
        ("subject_token_type", JWT),
        ("requested_token_type", CHAIN),
        ("scope", _scope_text(granted)),
        ("targets", " ".join(node.name_id(t) for t in targets)),
        ("expires_in", str(int(expires_in))),
        ("depth", str(depth)),
        ("consent", "" if consent is None else b64(hashlib.sha256(consent.encode()).digest())),
    ]
    answer = await ask(caller, "exchange", parameters)
    chain = unb64(answer["access_token"])
    try:
        return verify_chain(chain, trust=node.source.trust, now=node.clock.now())
    except Rejected:  # the issuer's rule, or the consent, may stand in an entry that was not heard yet
        await node.source.refresh()
    return verify_chain(chain, trust=node.source.trust, now=node.clock.now())


async def token_for(caller: Caller, held: Authority, audience: str, granted: Sequence[str | Scope]) -> AccessToken:
    """An access token for ``audience`` that speaks under ``held``.

    Within a handler this is a step of its record, with what was granted and without the token: no log holds one. So a
    replay gives an :class:`AccessToken` with an empty value.

    Args:
        caller: Who asks.
        held: What the token rests on.
        audience: Whom it is for: a short name or full id.
        granted: The scopes that are asked for; those that ``held`` allows are granted.

    Returns:
        The token and what it grants.

    Raises:
        ProgrammingError: ``usage.exchange``. Denied: ``denied.exchange_*``, ``denied.scope``, ``denied.ceiling``,
        ``denied.rights``. Rejected: ``reject.*`` of the chain. AgentGone, DeadlineExceeded, Unavailable.
    """
    who = caller._node.name_id(audience)
    text = _scope_text(granted)
    if caller._tape is None:
        return await _take(caller, held, who, text)
    kept: list[AccessToken] = []

    async def call() -> tuple[list[str], datetime]:
        made = await _take(_Plain(caller._node, caller._voice), held, who, text)
        kept.append(made)
        return list(made.scopes), made.expires

    found, ends = await caller._tape.call("token_for", call, adapter(tuple[list[str], datetime]), [who, text])
    return kept[0] if kept else AccessToken("", who, tuple(found), ends)


async def _take(caller: Caller, held: Authority, who: PrincipalId, text: str) -> AccessToken:
    parameters = [
        ("grant_type", GRANT_TYPE),
        ("subject_token", b64(held.to_bytes())),
        ("subject_token_type", CHAIN),
        ("requested_token_type", ACCESS_TOKEN),
        ("audience", who),
        ("scope", text),
    ]
    answer = await ask(caller, "exchange", parameters)
    ends = datetime.fromtimestamp(answer["expires_at"] / SECOND, UTC)
    return AccessToken(answer["access_token"], who, tuple(answer["scope"].split()), ends)


def _scope_text(granted: Sequence[str | Scope]) -> str:
    """RFC 6749 §3.3: scopes with spaces between, so there is none within one."""
    texts = [str(one).replace(", ", ",") for one in scopes(granted)]
    if any(" " in text for text in texts):
        raise ProgrammingError("usage.exchange", "a caveat with a space in it cannot be sent as a parameter")
    return " ".join(texts)


def read_sealed(sealed: str, key: SealKey) -> dict[str, Any]:
    """What :func:`ask` sealed.

    Raises:
        DirectoryRefused: ``directory.exchange_key``. Malformed: ``malformed.sealed``.
    """
    try:
        opened = key.open(unb64(sealed))
    except Malformed as error:
        raise DirectoryRefused("directory.exchange_key", CODES["directory.exchange_key"], retryable=True) from error
    try:
        found = json.loads(opened)
        pairs = [(name, value) for name, value in found["parameters"]]
        texts = [*(part for pair in pairs for part in pair), found["do"], found["from"], found["reply_to"]]
        if any(type(text) is not str for text in texts) or found["do"] not in ("exchange", "inspect", "revoke"):
            raise TypeError
        return {"do": found["do"], "from": found["from"], "reply_to": unb64(found["reply_to"], 32), "parameters": pairs}
    except (ValueError, KeyError, TypeError, RecursionError, Malformed) as error:
        raise Malformed("malformed.sealed", "this is no request about tokens") from error
