"""A grant is one link of a chain: issuer gives audience a part of what it holds (docs/spec/grant.md).

A link is ``[body, signature]``; its digest covers both, so the next link, which names that digest, can follow no other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

from agentbus.delegation.scope import Scope, decode_scopes, encode_scopes
from agentbus.errors import Malformed
from agentbus.wire.codec import pack, unpack_array
from agentbus.wire.ids import PrincipalId, everyone, is_everyone, parse_id
from agentbus.wire.limits import LIMITS

CODES: Final = {
    "malformed.grant": "A grant is 22 positions of the right types, lengths and order, in canonical form.",
    "malformed.chain": "A chain is a canonical array of 1 to 12 links, each [body, signature].",
}

VERSION: Final = 1
ROOT_KINDS: Final = ("standing", "user", "consent", "token", "vouched")


class Grant(NamedTuple):
    """One link's fields, in wire order (security: every field is mandatory unless it may be None)."""

    issuer: PrincipalId
    issuer_epoch: int
    issuer_key: bytes  # key id, 32 bytes
    issued_at: int  # informative
    audience: PrincipalId
    audience_epoch: int
    pinned_key: bytes | None  # the audience's identity key id, where only that one is meant
    subject: PrincipalId  # the root principal: on whose behalf
    root: bytes | None  # digest of link 0; None in link 0
    n: int
    prev: bytes | None  # digest of the previous link; None in link 0
    not_before: int
    expires: int
    scopes: tuple[Scope, ...]
    targets: tuple[str, ...]  # ascending ids, or the one group of everyone
    depth: int  # how many further links may follow
    id: bytes  # 16 random bytes: two links are never the same bytes
    purpose: str | None
    conversation: bytes | None  # where present the link holds only in it
    root_kind: str | None  # link 0 only
    evidence: tuple[Any, ...] | None = None  # link 0 of kind token or consent only: what it rests on

    def encode(self) -> bytes:
        """The signed body."""
        row: list[Any] = list(self)
        row[13] = encode_scopes(self.scopes)
        row[14] = list(self.targets)
        row[20] = None if self.evidence is None else list(self.evidence)
        return bytes(pack([VERSION, *row]))


@dataclass(frozen=True)
class Link:
    """A grant with the bytes that were signed and the signature. Whether it is good is :mod:`chain`'s business."""

    grant: Grant
    body: bytes
    signature: bytes

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over body *and* signature."""
        return hashlib.sha256(b"agentbus-link\x00" + self.body + self.signature).digest()

    def __getattr__(self, name: str) -> Any:
        """A link reads like its grant: ``link.audience``, ``link.scopes``."""
        if name.startswith("_") or name not in Grant._fields:
            raise AttributeError(name)
        return getattr(self.grant, name)


def encode_chain(links: tuple[Link, ...]) -> bytes:
    """The bytes of a chain section."""
    return bytes(pack([[link.body, link.signature] for link in links]))


def encode_link(link: Link) -> bytes:
    """The bytes of a handover section."""
    return bytes(pack([link.body, link.signature]))


def chain_digest(data: bytes) -> bytes:
    """What a header commits to: SHA-256 of a chain or handover section."""
    return _digest(data) if len(data) <= 4096 else hashlib.sha256(data).digest()


@lru_cache(maxsize=2048)
def _digest(data: bytes) -> bytes:
    """Remembered, because the same chain comes with every message of one task."""
    return hashlib.sha256(data).digest()


def decode_links(data: bytes) -> tuple[Link, ...]:
    """Read the links of a chain section. Nothing but their form has been checked.

    Raises:
        Malformed: ``malformed.chain``, ``malformed.grant`` and the codec's.
    """
    if len(data) > LIMITS.chain:
        raise Malformed("malformed.chain", f"a chain has at most {LIMITS.chain} bytes")
    rows = unpack_array(data)
    if not 1 <= len(rows) <= LIMITS.links:
        raise Malformed("malformed.chain", f"a chain has 1 to {LIMITS.links} links")
    return tuple(_link(row) for row in rows)


def decode_link(data: bytes) -> Link:
    """Read a handover section.

    Raises:
        Malformed: ``malformed.chain``, ``malformed.grant`` and the codec's.
    """
    return _link(unpack_array(data))


def _link(row: Any) -> Link:
    shape = type(row) is list and len(row) == 2 and type(row[0]) is bytes and type(row[1]) is bytes
    if not shape or len(row[0]) > LIMITS.link or len(row[1]) != 64:
        raise Malformed("malformed.chain", "a link is [body, 64-byte signature]")
    return Link(decode_grant(row[0]), row[0], row[1])


_TYPES: Final = (
    (int,), (str,), (int,), (bytes,), (int,), (str,), (int,), (bytes, type(None)), (str,), (bytes, type(None)), (int,),
    (bytes, type(None)), (int,), (int,), (list,), (list,), (int,), (bytes,), (str, type(None)), (bytes, type(None)),
    (str, type(None)), (list, type(None)),
)  # fmt: skip
_EVIDENCE: Final = {"token": [str, str, str, int], "consent": [int]}
"""``token``: issuer, jti, acr (or empty), when the token ends. ``consent``: the index of its entry in the log."""


def decode_grant(body: bytes) -> Grant:
    """Read a grant's body: 22 positions, canonical, in range.

    Raises:
        Malformed: ``malformed.grant`` and the codec's.
    """
    row = unpack_array(body, 22)
    if any(type(value) not in types for value, types in zip(row, _TYPES, strict=True)):
        raise Malformed("malformed.grant", "a position has another type than version 1 gives it")
    if row[0] != VERSION:
        raise Malformed("malformed.grant", f"version {row[0]} is not spoken here")
    for value in row:
        if type(value) is int and not 0 <= value < 1 << 63:
            raise Malformed("malformed.grant", "an integer is negative or above 63 bits")
    for index, length in ((3, 32), (7, 32), (9, 32), (11, 32), (17, 16), (19, 16)):
        if row[index] is not None and len(row[index]) != length:
            raise Malformed("malformed.grant", f"position {index} does not have {length} bytes")
    for index in (1, 5, 8):
        row[index] = parse_id(row[index])
    row[14] = decode_scopes(row[14])
    row[15] = decode_targets(row[15])
    if row[18] is not None and not 0 < len(row[18]) <= 64:
        raise Malformed("malformed.grant", "a purpose is a code of 1 to 64 characters")
    first = row[10] == 0
    if first != (row[9] is None) or first != (row[11] is None) or first != (row[20] is not None):
        raise Malformed("malformed.grant", "root and prev stand in every link but the first, root_kind only there")
    if first and row[20] not in ROOT_KINDS:
        raise Malformed("malformed.grant", "this root kind does not exist")
    row[21] = _evidence(row[20], row[21])
    return Grant._make(row[1:])


def _evidence(kind: str | None, evidence: list[Any] | None) -> tuple[Any, ...] | None:
    types = _EVIDENCE.get(kind or "")
    if types is None and evidence is None:
        return None
    if types is None or evidence is None or [type(value) for value in evidence] != types:
        raise Malformed("malformed.grant", "a root of kind token or consent, and no other, names what it rests on")
    for value in evidence:
        if len(value) > 256 if type(value) is str else not 0 <= value < 1 << 63:
            raise Malformed("malformed.grant", "evidence out of its bounds")
    return tuple(evidence)


def decode_targets(wire: list[Any]) -> tuple[str, ...]:
    """Read targets: ascending ids, or the group of everyone alone.

    Raises:
        Malformed: ``malformed.grant``, ``malformed.id``.
    """
    if len(wire) > LIMITS.targets or any(type(item) is not str for item in wire):
        raise Malformed("malformed.grant", f"targets are at most {LIMITS.targets} ids")
    if any(a >= b for a, b in zip(wire, wire[1:], strict=False)):
        raise Malformed("malformed.grant", "targets ascend, without repetition")
    for item in wire:
        if is_everyone(item):
            if len(wire) != 1:
                raise Malformed("malformed.grant", "the group of everyone stands alone")
        else:
            parse_id(item)
    return tuple(wire)


def target_within(targets: tuple[str, ...], who: str, domain: str) -> bool:
    """Whether ``who`` may be addressed under ``targets``."""
    return who in targets or (targets == (everyone(domain),) and who.startswith(f"spiffe://{domain}/"))


def targets_within(child: tuple[str, ...], parent: tuple[str, ...], domain: str) -> bool:
    """Whether every target of ``child`` is one of ``parent``."""
    if child == (everyone(domain),):
        return parent == child
    return all(target_within(parent, who, domain) for who in child)
