"""Whose a revocation is to make: judged by the directory before it writes one, and by everybody who folds its log.

A key, an instance or a principal is revoked by its owner, by itself, by the operator or by the directory. A grant by
whoever issued a link at or above it, by its subject or by the operator, and the entry carries the chain that shows so:
else anybody could kill what they merely saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from agentbus.crypto.signing import Purpose, verify
from agentbus.delegation.grant import Link, decode_links
from agentbus.delegation.records import IdentityKey, OnlineKey, Principal
from agentbus.delegation.statements import Revocation, directory_id
from agentbus.errors import BadSignature, Malformed, Rejected

CODES: Final = {
    "reject.revoker": "A revocation is not its revoker's to make, or the chain in it does not show that it is.",
}


class State(Protocol):
    """What is known when an entry is judged."""

    domain: str
    online: dict[bytes, OnlineKey]

    @property
    def principals(self) -> Mapping[str, Principal]: ...
    @property
    def keys(self) -> Mapping[bytes, IdentityKey]: ...


def is_operator(principals: Mapping[str, Principal], who: str) -> bool:
    """Whether ``who`` is an active user with all rights."""
    record = principals.get(who)
    return record is not None and record.id.kind == "user" and record.state == "active" and record.rights is None


def judge_revocation(state: State, entry: Revocation) -> None:
    """Return when the entry is its revoker's to make.

    Raises:
        Rejected: ``reject.revoker``.
        Malformed: the proof is no chain.
    """
    if entry.revoker == directory_id(state.domain) or is_operator(state.principals, entry.revoker):
        return
    if entry.kind == "grant":
        _judge_grant(state, entry)
        return
    who = _about(state, entry)
    record = state.principals.get(who) if who is not None else None
    if who is not None and entry.revoker not in (who, record.owner if record else who):
        raise Rejected("reject.revoker", f"{entry.revoker.short} is neither owner nor operator of what it revokes")


def _about(state: State, entry: Revocation) -> str | None:
    """The principal whose thing is revoked; None for an instance key: its statement is not in the log."""
    if entry.kind == "key":
        identity = state.keys.get(entry.id)
        return identity.principal if identity else None
    return entry.id.decode("utf-8", "replace").partition("#")[0]


def _judge_grant(state: State, entry: Revocation) -> None:
    """The chain in the entry ends with the grant, hangs together, starts under a key the log knows, and names the
    revoker. (Later links are signed by instance keys, whose statements are not in the log: the directory judged them.)
    """
    links = decode_links(entry.proof)
    if links[-1].digest != entry.id:
        raise Rejected("reject.revoker", "the proof does not end with the grant that is revoked")
    for above, link in zip(links, links[1:], strict=False):
        if link.grant.prev != above.digest or link.grant.issuer != above.grant.audience:
            raise Rejected("reject.revoker", "the links of the proof do not follow each other")
    _verify_root(state, links[0])
    if entry.revoker not in {links[0].grant.subject, *(link.grant.issuer for link in links)}:
        raise Rejected("reject.revoker", f"{entry.revoker.short} issued no link at or above this grant")


def _verify_root(state: State, link: Link) -> None:
    identity, online = state.keys.get(link.grant.issuer_key), state.online.get(link.grant.issuer_key)
    if link.grant.root_kind == "user":
        good = identity is not None and identity.principal == link.grant.issuer == link.grant.subject
        key = identity.key if good and identity else None
    else:
        good = (
            online is not None
            and online.role in ("consent", "token")
            and link.grant.issuer == directory_id(state.domain)
        )
        key = online.key if good and online else None
    if key is None:
        raise Rejected("reject.revoker", "the first link of the proof is under a key that the log does not know")
    try:
        verify(key, Purpose.GRANT, link.body, link.signature)
    except BadSignature as error:
        raise Rejected("reject.revoker", "the first link of the proof does not verify") from error


def forget_at(entry: Revocation) -> int:
    """When a receiver may forget that this grant was revoked: it has expired then by itself. The log never forgets."""
    try:
        return min(link.grant.expires for link in decode_links(entry.proof))
    except Malformed:
        return FOREVER


FOREVER: Final = 1 << 62
