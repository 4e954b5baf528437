"""Erasing one message's body from a log: what has to go, and in which order.

Rule 1: the REDACTION entry is durable before anything is erased: an absent body always has its reason.
Rule 2: everything that holds the body goes: the box of the message as it was sent and as it was received here, and the
results of the steps that its handler took.
Rule 3: entries, chains and statements stay. They hold ids, codes and times; without them nothing could be verified.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from agentbus.crypto.merkle import leaf_hash
from agentbus.errors import AgentBusError, LogError
from agentbus.log.base import LogStore
from agentbus.log.decoding import decode_entry, kind_of
from agentbus.log.entry import EntryKind, Received, Sent, Step, redaction
from agentbus.wire.header import Header, decode_header
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS

CODES: Final = {
    "log.reason": "A redaction has a reason: a short code such as 'gdpr-17', and no free text.",
}

_KINDS: Final = frozenset({EntryKind.SENT, EntryKind.RECEIVED, EntryKind.STEP})
REASON: Final = 64
"""Characters of a reason; longer ones would be text, and text may have to be erased, too."""


class Erasable(NamedTuple):
    """What of a log belongs to one message."""

    header: Header | None  # None: the log has no such message
    boxes: tuple[bytes, ...]


def message_of(data: bytes) -> bytes | None:
    """The digest of the message of which an entry holds something that can be erased; None where it holds nothing."""
    if kind_of(data) not in _KINDS:
        return None
    try:
        entry = decode_entry(data)
    except AgentBusError:
        return None
    if isinstance(entry, Step):
        return entry.digest if entry.result is not None else None
    return leaf_hash(entry.header) if isinstance(entry, Sent | Received) else None


def find_erasable(entries: Iterable[bytes], digest: bytes, *, of: PrincipalId | None = None) -> Erasable:
    """The boxes that hold the message of this digest or what its handler took while it was handled.

    Args:
        entries: A log's, or those of it that may be about the message.
        digest: The message's.
        of: Whose copies: a sender's of what it sent, a recipient's of what it received and took. Agents of one node
            share its log. None: everybody's.
    """
    header: Header | None = None
    kept: dict[bytes, bool] = {}  # box → whether it is the recipient's
    for data in entries:
        if kind_of(data) not in _KINDS or (digest not in data and kind_of(data) == EntryKind.STEP):
            continue
        try:
            entry = decode_entry(data)
            if isinstance(entry, Step):
                if entry.digest == digest and entry.result is not None:
                    kept[entry.result] = True
            elif isinstance(entry, Sent | Received) and leaf_hash(entry.header) == digest:
                header = header or decode_header(entry.header, LIMITS)
                if entry.body is not None:
                    kept[entry.body] = isinstance(entry, Received)
        except AgentBusError:
            continue  # `agentbus log verify` names it
    if of is None:
        return Erasable(header, tuple(kept))
    parties = (header.sender, header.recipient) if header is not None else ("", "")
    return Erasable(header, tuple(box for box, received in kept.items() if parties[received] == of))


def check_reason(reason: str) -> str:
    """The reason itself, when it is one.

    Raises:
        LogError: ``log.reason``.
    """
    if not 0 < len(reason) <= REASON or not reason.isascii() or not reason.isprintable() or " " in reason:
        raise LogError("log.reason", f"{reason[:80]!r}: {CODES['log.reason']}")
    return reason


def redact(log: LogStore, digest: bytes, *, authority: str, reason: str, now: int) -> int:
    """Erase a message from a log that nobody else writes.

    Args:
        log: Open for writing.
        digest: The message's.
        authority: Who wants it: a principal id, or ``local`` for whoever has the disk.
        reason: A code.
        now: Instant, microseconds.

    Returns:
        How many boxes were erased; 0 where the log has no such message, or it was erased before.

    Raises:
        LogError: ``log.reason`` and the store's.
    """
    check_reason(reason)
    found = find_erasable(log.about(digest), digest)
    if found.header is None or not any(log.box(name) is not None for name in found.boxes):
        return 0
    row = redaction(log.size, now, commitment=found.header.body_commitment, authority=authority, reason=reason)
    log.append([row])
    log.sync()
    return sum(log.erase(name) for name in found.boxes)
