"""Who may change what in the directory. Pure: a snapshot and a sender go in; return, or raise."""

from __future__ import annotations

from typing import Final

from agentbus.delegation.chain import verify_chain
from agentbus.delegation.grant import decode_links, encode_chain
from agentbus.delegation.records import Principal
from agentbus.delegation.revoking import is_operator
from agentbus.delegation.statements import directory_id
from agentbus.delegation.trust import NeedsTrust, Trust
from agentbus.errors import AgentBusError, DirectoryRefused, InvalidKey, Malformed, Rejected
from agentbus.wire.ids import PrincipalId, parse_id

CODES: Final = {
    "directory.not_operator": "Only the operator (a user with all rights) may do this.",
    "directory.not_owner": "Only the owner, the principal itself or the operator may do this.",
    "directory.not_sponsor": "Only the owner or the operator lets somebody enrol again; nobody does it for itself.",
    "directory.not_issuer": "A grant is revoked by whoever issued a link at or above it, its subject or the operator.",
    "directory.bad_handle": "What is to be revoked is not named in the form of its kind.",
}


def require_operator(trust: Trust, who: str) -> None:
    """Raises: DirectoryRefused: ``directory.not_operator``."""
    if not is_operator(trust.principals, who):
        text = f"{who} is not the operator, who alone may do this: agentbus … --as user/operator"
        raise DirectoryRefused("directory.not_operator", text)


def require_owner(trust: Trust, who: str, of: Principal) -> None:
    """Raises: DirectoryRefused: ``directory.not_owner``."""
    if who not in (of.owner, of.id) and not is_operator(trust.principals, who):
        raise DirectoryRefused("directory.not_owner", f"{of.id.short} belongs to {of.owner or 'nobody'}")


def require_sponsor(trust: Trust, who: str, of: Principal) -> None:
    """Somebody else has to vouch: whoever holds a stolen key must not be given a new one for it.

    Raises:
        DirectoryRefused: ``directory.not_sponsor``.
    """
    if is_operator(trust.principals, who) or (who == of.owner and who != of.id):
        return
    raise DirectoryRefused("directory.not_sponsor", f"ask {of.owner or 'the operator'}: it needs a sponsor, not itself")


def may_revoke(trust: Trust, who: PrincipalId, kind: str, text: str, chain: str, *, now: int) -> tuple[bytes, bytes]:
    """The revocation's handle and proof, if ``who`` may revoke it.

    For a grant the chain up to it is shown and verified, so that an id that was merely seen, or a chain that somebody
    made up around it, is not enough.

    Raises:
        DirectoryRefused: ``directory.bad_handle``, ``directory.not_issuer``, ``directory.not_owner``.
    """
    if kind == "principal":
        record = trust.principal(_principal(text))
        if record is None:
            raise DirectoryRefused("directory.unknown", f"nobody is called {text}")
        require_owner(trust, who, record)
        return record.id.encode(), b""
    if kind == "instance":
        who_of, _, number = text.partition("#")
        record = trust.principal(_principal(who_of))
        if record is None:
            raise DirectoryRefused("directory.unknown", f"nobody is called {who_of}")
        require_owner(trust, who, record)
        return f"{record.id}#{_hex(number, 16).hex()}".encode(), b""
    handle = _hex(text, 32)
    if kind == "grant":
        shown = _hex(chain, None)
        try:
            links = decode_links(shown)
            at = next((n for n, link in enumerate(links) if link.digest == handle), None)
            if at is None:
                raise DirectoryRefused("directory.bad_handle", "the chain does not hold this grant")
            proof = encode_chain(links[: at + 1])
            authority = verify_chain(proof, trust=trust, now=now)
        except (Malformed, Rejected, InvalidKey) as error:
            raise DirectoryRefused("directory.bad_handle", f"the chain is not good: {error}") from error
        except NeedsTrust as error:
            raise DirectoryRefused("directory.bad_handle", "an instance that signed a link is not known") from error
        upto = [link.grant for link in authority.links]
        issuers = {grant.issuer for grant in upto} | {authority.subject}
        if who not in issuers and not is_operator(trust.principals, who):
            raise DirectoryRefused("directory.not_issuer", f"{who.short} issued no link at or above it")
        return handle, proof
    if not is_operator(trust.principals, who):  # who may also revoke a key before anybody registers it
        require_owner(trust, who, _owner_of(trust, handle))
    return handle, b""


def whose(trust: Trust, kind: str, handle: bytes) -> str | None:
    """The principal that a revocation would end: its record, its identity key or, of the directory, an instance."""
    if kind == "principal":
        return handle.decode()
    identity = trust.keys.get(handle) if kind == "key" else None
    if identity is not None:
        return identity.principal
    me, instance = directory_id(trust.domain), trust.instances.get(handle)
    mine = handle.startswith(f"{me}#".encode()) or (instance is not None and instance.principal == me)
    return me if mine else None


def _owner_of(trust: Trust, key_id: bytes) -> Principal:
    """Whose key this is: an identity key's, or a known instance key's."""
    identity, instance = trust.keys.get(key_id), trust.instances.get(key_id)
    who = identity.principal if identity else instance.principal if instance else None
    record = trust.principal(who) if who else None
    if record is None:
        raise DirectoryRefused("directory.unknown", "no such key is known")
    return record


def _principal(text: str) -> PrincipalId:
    try:
        return parse_id(text)
    except AgentBusError as error:
        raise DirectoryRefused("directory.bad_handle", "a principal is named by its full id") from error


def _hex(text: str, length: int | None) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError as error:
        raise DirectoryRefused("directory.bad_handle", "not hexadecimal") from error
    if length is not None and len(raw) != length:
        raise DirectoryRefused("directory.bad_handle", f"not {length} bytes")
    return raw
