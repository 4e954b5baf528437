"""A folder that holds all an auditor needs: the logs, the directory's log, and the messages as JSON Lines.

Rule 1: no key of anybody's identity or log goes into it. Keys of boxes do, or bodies could not be read.
Rule 2: a link in a log is not followed: it would carry a file of whoever exports to whoever reads the export.
Rule 3: it verifies by itself: what is copied from a log that is being written ends with a whole record.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from agentbus.audit.evidence import Evidence
from agentbus.errors import ConfigError
from agentbus.log.read import LogFolder
from agentbus.log.records import KEYS, entry_segment
from agentbus.log.report import Report
from agentbus.log.scanning import is_plain, whole_records
from agentbus.wire.ids import b64

CODES: Final = {
    "config.export": "An export goes into a folder that does not exist yet.",
}

_README: Final = """This folder was exported by agentbus: evidence about the messages of the trust domain {domain}.

verdicts.json     what `agentbus log verify` said when it was exported
messages.jsonl    every message, one JSON object a line: who, to whom, on whose behalf, what, when, why not
refusals.jsonl    frames that were refused before anybody's signature had verified
logs/             the logs: what the lines above were read from
directory/        the directory's log of keys, rights and revocations

Nothing here has to be believed. With agentbus installed and no network:

    agentbus log verify {logs} --directory directory --root {root}

The root key's thumbprint is not to be taken from this file: compare it with the pin that you know from elsewhere.
"""


def export(evidence: Evidence, report: Report, out: Path, *, root: bytes) -> dict[str, int]:
    """Write the folder.

    Args:
        evidence: Verified.
        report: What :meth:`Evidence.verify` returned.
        out: The folder to make.
        root: The pinned root key's thumbprint.

    Returns:
        How many logs, messages and refusals are in it.

    Raises:
        ConfigError: ``config.export``.
        NotVerified: the evidence was not verified.
    """
    logs = evidence.logs
    if out.exists():
        raise ConfigError("config.export", f"{out} exists; name a new folder")
    names = {name: f"{at:02d}-{Path(name).name}" if len(logs) > 1 else Path(name).name for at, name in enumerate(logs)}
    out.mkdir(parents=True, mode=0o700)
    for name, log in logs.items():
        copy_log(log, out / "logs" / names[name])
    write_events(evidence.events, out / "directory")
    messages = _lines(out / "messages.jsonl", (m.as_row() for m in evidence.messages()))
    refusals = _lines(out / "refusals.jsonl", evidence.refusals())
    (out / "verdicts.json").write_text(json.dumps(report.as_dict(), indent=1) + "\n", "utf-8")
    shown = " ".join(f"logs/{name}" for name in names.values())
    text = _README.format(domain=evidence.domain, logs=shown, root=b64(root))
    (out / "README.txt").write_text(text, "utf-8")
    return {"logs": len(logs), "messages": messages, "refusals": refusals}


def copy_log(log: LogFolder, target: Path) -> None:
    """Copy what verifies a log: the entries that were read, and what is there now of all else, which they may name."""
    target.mkdir(parents=True, mode=0o700)
    if log.note is not None:
        (target / "checkpoint").write_bytes(log.note)
    for number, extent in enumerate(log.extents):
        _copy_part(log.folder / entry_segment(number), target, extent)
    for pattern in ("blobs-*.seg", "boxes-*.seg"):
        for path in filter(is_plain, sorted(log.folder.glob(pattern))):
            with path.open("rb") as source:
                extent = whole_records(source, path.stat().st_size)
            _copy_part(path, target, extent)
    if is_plain(log.folder / KEYS):
        shutil.copyfile(log.folder / KEYS, target / KEYS)
    for _ in range(2):  # one that was given up meanwhile has left the full one, which the second look finds
        _copy_tiles(log.folder, target)


def _copy_tiles(folder: Path, target: Path) -> None:
    """Copy the tiles that are not there yet; those that vanish meanwhile are left out."""
    if (folder / "tile").is_symlink():  # walking begins behind a link, and follows none from there
        return
    for base, _, names in os.walk(folder / "tile"):
        beside = target / Path(base).relative_to(folder)
        beside.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in names:
            if not name.endswith(".tmp") and not (beside / name).exists() and is_plain(Path(base, name)):
                with suppress(FileNotFoundError):
                    shutil.copyfile(Path(base, name), beside / name)


def _copy_part(path: Path, target: Path, left: int) -> None:
    with path.open("rb") as source, (target / path.name).open("wb") as copy:
        while left and (data := source.read(min(left, 1 << 20))):
            copy.write(data)
            left -= len(data)


def write_events(events: Sequence[bytes], folder: Path) -> None:
    """The directory's log in the file that ``--directory`` reads."""
    folder.mkdir(parents=True, mode=0o700)
    with closing(sqlite3.connect(folder / "directory.sqlite")) as db, db:
        db.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, statement BLOB NOT NULL) STRICT")
        db.executemany("INSERT INTO entries VALUES (?, ?)", enumerate(events))


def _lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, default=str, ensure_ascii=False) + "\n")
            count += 1
    return count
