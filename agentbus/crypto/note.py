"""C2SP signed notes and checkpoints (c2sp.org/signed-note, c2sp.org/tlog-checkpoint), with Ed25519 signatures.

A key that signs notes signs nothing else: notes are not PAE, so only that rule keeps the two apart.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import Final, NamedTuple

from agentbus.crypto.keys import SigningKey, VerifyKey
from agentbus.errors import BadSignature, Malformed

CODES: Final = {
    "malformed.note": "This is not a C2SP signed note holding a checkpoint.",
    "note.not_signed": "No signature line of this note is by the expected name and key.",
}

_ED25519: Final = b"\x01"


class Checkpoint(NamedTuple):
    """A log's state: origin, size (leaves) and root (32 bytes), with extension lines."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The note's text, ending in a newline."""
        lines = [self.origin, str(self.size), b64encode(self.root).decode(), *self.extensions]
        return "".join(f"{line}\n" for line in lines)


def note_key_id(name: str, key: VerifyKey) -> bytes:
    """The four bytes that a signature line names its key by."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.raw).digest()[:4]


def sign_note(text: str, name: str, key: SigningKey) -> bytes:
    """A note of ``text`` with one signature line by ``name``."""
    blob = b64encode(note_key_id(name, key.public) + key.sign(text.encode())).decode()
    return f"{text}\n— {name} {blob}\n".encode()


def open_note(note: bytes, name: str, key: VerifyKey) -> str:
    """The text of a note that ``name`` signed with ``key``.

    Raises:
        Malformed: ``malformed.note``.
        BadSignature: ``note.not_signed``.
    """
    try:
        whole = note.decode("utf-8")
        text, _, signatures = whole.rpartition("\n\n")
    except UnicodeDecodeError as error:
        raise Malformed("malformed.note", "not UTF-8") from error
    if not text or not signatures.endswith("\n") or any(ord(c) < 32 and c != "\n" for c in whole):
        raise Malformed("malformed.note", "no text, no signature or control characters")
    text += "\n"
    expected = note_key_id(name, key)
    for line in signatures[:-1].split("\n"):
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != "—":
            raise Malformed("malformed.note", "a signature line is '— name base64'")
        try:
            blob = b64decode(parts[2], validate=True)
        except (Base64Error, ValueError) as error:
            raise Malformed("malformed.note", "a signature is not base64") from error
        if parts[1] == name and blob[:4] == expected and b64encode(blob).decode() == parts[2]:
            key.verify(text.encode(), blob[4:])
            return text
    raise BadSignature("note.not_signed", f"no signature of {name}")


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint from a note's text.

    Raises:
        Malformed: ``malformed.note``.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] != "" or "" in lines[:-1]:
        raise Malformed("malformed.note", "a checkpoint has three lines or more")
    origin, size, root = lines[:3]
    try:
        raw = b64decode(root, validate=True)
    except (Base64Error, ValueError) as error:
        raise Malformed("malformed.note", "the root is not base64") from error
    if (
        len(size) > 19
        or not size.isascii()
        or not size.isdigit()
        or str(int(size)) != size
        or len(raw) != 32
        or b64encode(raw).decode() != root
    ):
        raise Malformed("malformed.note", "size or root is not in canonical form")
    return Checkpoint(origin, int(size), raw, tuple(lines[3:-1]))


def open_checkpoint(note: bytes, origin: str, key: VerifyKey) -> Checkpoint:
    """The checkpoint of a note signed by ``origin``'s key, for that origin alone.

    Raises:
        Malformed: ``malformed.note``.
        BadSignature: ``note.not_signed``, ``key.bad_signature``.
    """
    checkpoint = parse_checkpoint(open_note(note, origin, key))
    if checkpoint.origin != origin:
        raise Malformed("malformed.note", f"a checkpoint of {checkpoint.origin[:80]!r}, not of {origin!r}")
    return checkpoint
