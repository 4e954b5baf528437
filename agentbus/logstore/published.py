"""The checkpoint in a log's folder: signed over the stored row, and compared with it when the log is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agentbus.crypto.keys import SigningKey
from agentbus.disk import replace_file
from agentbus.errors import BadSignature, LogError, Malformed
from agentbus.log.checkpoint import sign_checkpoint, verify_checkpoint
from agentbus.logstore.recovery import Covered

CODES: Final = {
    "log.forked": "The published checkpoint, or what this process knows, and the stored state are two histories. Keep"
    " the folder as evidence and open a new epoch.",
    "log.key": "The checkpoint here was not signed by this log key.",
}

FILE: Final = "checkpoint"


def publish(folder: Path, origin: str, covered: Covered, key: SigningKey) -> bytes:
    """Sign what the stored row says and put the note in the folder; the same row gives the same note.

    Raises:
        LogError: ``log.write``.
    """
    note = sign_checkpoint(origin, covered.size, covered.root, key)
    try:
        replace_file(folder / FILE, note)
    except OSError as error:
        raise LogError("log.write", f"{folder}: {error.strerror}; free the disk and restart") from error
    return note


def read_published(folder: Path, origin: str, covered: Covered, key: SigningKey) -> bytes | None:
    """The note in the folder; None where there is none, or it is older than the row: then it is signed again.

    Raises:
        LogError: ``log.forked``: it and the row are two histories. ``log.key``.
    """
    try:
        note = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        said = verify_checkpoint(note, origin, key.public)
    except (BadSignature, Malformed) as error:
        raise LogError("log.key", f"the checkpoint in {folder} is not {origin}'s by this key") from error
    if said.size > covered.size or (said.size == covered.size and said.root != covered.root):
        raise LogError(
            "log.forked",
            f"{said.size} entries were published and {covered.size} are stored; keep {folder} as evidence",
            details={"published": said.size, "stored": covered.size},
        )
    return note if said.size == covered.size else None
