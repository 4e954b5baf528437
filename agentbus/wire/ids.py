"""Who and what: SPIFFE ids, scopes' and topics' grammar, and the random ids.

Rule 1: a trust domain is never taken from what a peer sent; short names are completed with one's own.
Rule 2: one spelling for each id: lower case, no empty parts, no escapes; anything else is refused, not repaired.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from typing import Final, Literal

from agentbus.errors import Malformed

CODES: Final = {
    "malformed.id": "This is no id of the form spiffe://<trust domain>/<agent|user|service>/<name>, in lower case.",
    "malformed.scope": "A scope is lower-case segments joined by ':', such as docs:read, or ends in a single ':*'.",
    "malformed.base64": "This is not unpadded base64url.",
}

Kind = Literal["agent", "user", "service"]
DOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?)*")
_NAME: Final = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
NODE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_ID: Final = re.compile(rf"spiffe://({DOMAIN.pattern})/(agent|user|service)/({_NAME})")
_SHORT: Final = re.compile(rf"(?:(agent|user|service)/)?({_NAME})")
_GROUP: Final = re.compile(rf"spiffe://({DOMAIN.pattern})/group/all")
_SCOPE: Final = re.compile(r"[a-z0-9_.-]+(?::[a-z0-9_.-]+)*(?::\*)?")


class PrincipalId(str):
    """A full SPIFFE id (SPIFFE-ID §2). Make one with :func:`parse_id` or :func:`name_id`."""

    __slots__ = ()

    @property
    def domain(self) -> str:
        """The trust domain."""
        return self.split("/", 3)[2]

    @property
    def kind(self) -> str:
        """``agent``, ``user`` or ``service``."""
        return self.split("/", 4)[3]

    @property
    def name(self) -> str:
        """The last part."""
        return self.rsplit("/", 1)[1]

    @property
    def short(self) -> str:
        """What people type: ``summarizer`` for an agent, ``user/alice`` for anybody else."""
        return self.name if self.kind == "agent" else f"{self.kind}/{self.name}"


@lru_cache(maxsize=4096)
def parse_id(text: str) -> PrincipalId:
    """A full id from its text.

    Raises:
        Malformed: ``malformed.id``.
    """
    if len(text) > 256 or not _ID.fullmatch(text):
        raise Malformed("malformed.id", f"{text[:80]!r} is no id such as spiffe://example.org/agent/planner")
    return PrincipalId(text)


@lru_cache(maxsize=4096)
def name_id(name: str, domain: str) -> PrincipalId:
    """The id that a person means by ``name`` within ``domain``: ``planner``, ``user/alice`` or a full id.

    Raises:
        Malformed: ``malformed.id``.
    """
    if name.startswith("spiffe://"):
        return parse_id(name)
    found = _SHORT.fullmatch(name)
    if not found:
        raise Malformed("malformed.id", f"{name[:80]!r} is no name; use lower-case letters, digits, '.', '_' and '-'")
    return PrincipalId(f"spiffe://{domain}/{found[1] or 'agent'}/{found[2]}")


def everyone(domain: str) -> str:
    """The one target that means every principal of a trust domain."""
    return f"spiffe://{domain}/group/all"


def is_everyone(target: str) -> bool:
    """Whether ``target`` is some domain's :func:`everyone`."""
    return _GROUP.fullmatch(target) is not None


@lru_cache(maxsize=4096)
def node_name(who: PrincipalId) -> str:
    """What the first node of a principal is called."""
    return who.name if who.kind == "agent" else f"{who.kind}-{who.name}"


def may_be_called(node: str, who: PrincipalId) -> bool:
    """Whether a node of this principal may have this name: its own, or that with a number. The directory's is short."""
    base, _, number = node.rpartition("-")
    counted = number.isascii() and number.isdigit() and len(number) <= 3 and not number.startswith("0")
    own = {node_name(who), *(["directory"] if who.short == "service/directory" else [])}
    return node in own or (counted and base in own)


def check_scope_name(name: str) -> str:
    """``name`` itself when it follows the scope grammar.

    Raises:
        Malformed: ``malformed.scope``.
    """
    if len(name) > 256 or not _SCOPE.fullmatch(name):
        raise Malformed("malformed.scope", f"{name[:80]!r} is no scope such as docs:read or docs:*")
    return name


def b64(raw: bytes) -> str:
    """Unpadded base64url (RFC 4648 §5), how keys and digests are shown."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def unb64(text: str, length: int | None = None) -> bytes:
    """The bytes of unpadded base64url, in its one canonical spelling.

    Raises:
        Malformed: ``malformed.base64``: padding, other characters, stray bits or another length.
    """
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, TypeError) as error:
        raise Malformed("malformed.base64", "not base64url") from error
    if b64(raw) != text or (length is not None and len(raw) != length):
        raise Malformed("malformed.base64", "not base64url" if length is None else f"not {length} bytes in base64url")
    return raw
