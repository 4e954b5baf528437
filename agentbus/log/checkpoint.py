"""A log's checkpoint: a C2SP note that says how long the log is and what its root is, under the log's own origin.

Rule 1: the log key signs checkpoints of this one origin and nothing else.
Rule 2: an origin names one history. Where the history cannot go on (an old backup was restored), the epoch changes.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from agentbus.crypto.keys import SigningKey, VerifyKey
from agentbus.crypto.note import Checkpoint, open_checkpoint, parse_checkpoint, sign_note
from agentbus.errors import Malformed
from agentbus.wire.ids import DOMAIN, NODE_NAME

CODES: Final = {
    "malformed.origin": "A log's origin is agentbus.<trust domain>/<node>/<epoch>.",
}

_ORIGIN: Final = re.compile(rf"agentbus\.({DOMAIN.pattern})/({NODE_NAME.pattern})/([1-9][0-9]{{0,8}})")


class Origin(NamedTuple):
    """Whose log, and which of its histories."""

    domain: str
    node: str
    epoch: int

    def __str__(self) -> str:
        return f"agentbus.{self.domain}/{self.node}/{self.epoch}"


def parse_origin(text: str) -> Origin:
    """Read an origin.

    Raises:
        Malformed: ``malformed.origin``.
    """
    found = _ORIGIN.fullmatch(text)
    if not found:
        raise Malformed("malformed.origin", f"{text[:120]!r} is no agentbus.<trust domain>/<node>/<epoch>")
    return Origin(found[1], found[2], int(found[3]))


def sign_checkpoint(origin: str, size: int, root: bytes, key: SigningKey) -> bytes:
    """The signed note over (origin, size, root). Call it only after the state was stored as the log's one state."""
    return sign_note(Checkpoint(origin, size, root).text, origin, key)


def verify_checkpoint(note: bytes, origin: str, key: VerifyKey) -> Checkpoint:
    """The checkpoint, when ``key`` signed it for ``origin``.

    Raises:
        Malformed: ``malformed.note``.
        BadSignature: ``note.not_signed``, ``key.bad_signature``.
    """
    return open_checkpoint(note, origin, key)


def read_checkpoint(note: bytes) -> Checkpoint:
    """What a note *says*; nobody's signature has been looked at.

    Raises:
        Malformed: ``malformed.note``.
    """
    try:
        text = note.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("malformed.note", "not UTF-8") from error
    head, cut, _ = text.rpartition("\n\n")
    if not cut:
        raise Malformed("malformed.note", "no signature line")
    return parse_checkpoint(head + "\n")
