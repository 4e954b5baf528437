"""``agentbus directory``: keys, backup and recovery of a directory, and evidence about it. None needs a bus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentbus.cli.naming import Naming, as_named
from agentbus.cli.output import json_option, say
from agentbus.cli.pin import root_key, root_option


@click.group()
def directory() -> None:
    """Directories: keys, backup and recovery, and evidence."""


@directory.command("check")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@root_option
@json_option
def check(file: Path, root: str | None, as_json: bool) -> None:
    """Verify an evidence FILE offline.

    It is the receipt of a retirement, an entry of the log with its proof, or two histories of one directory.
    """
    from agentbus.directory import evidence

    found = evidence.check(file.read_text("utf-8"), root_key(root))
    shown = {**found, "instant": _iso(found["instant"])} if "instant" in found else found
    lines = (
        f"{key:12} {', '.join(map(str, value)) if isinstance(value, list) else value}" for key, value in shown.items()
    )
    text = "\n".join(lines)
    say({"ok": True, **found}, f"good evidence\n{text}", as_json=as_json)


@directory.command("prove")
@click.argument("entry", type=click.IntRange(min=0), metavar="ENTRY")
@click.argument("to", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--log", "folder", type=click.Path(path_type=Path, exists=True), required=True, metavar="FOLDER",
              help="A node's log folder: its copy of the directory's log.")  # fmt: skip
@json_option
def prove(entry: int, to: Path, folder: Path, as_json: bool) -> None:
    """Prove that an entry is in the directory's log.

    ENTRY is its number. Whoever has the pin verifies FILE with `agentbus directory check`.
    """
    import json

    from agentbus.directory import evidence, survival
    from agentbus.directory.mirror import HEAD
    from agentbus.errors import LogError

    entries, note = survival.mirrored(folder), folder / HEAD
    size = int(note.read_text("utf-8").split("\n")[1]) if note.exists() else 0
    if not entry < size <= len(entries):
        raise LogError("log.directory_mirror", f"{folder} holds a head of {size} entries, and so no proof of {entry}")
    to.write_text(json.dumps(evidence.entry_of(entries[:size], entry, note.read_bytes())), "utf-8")
    say({"file": str(to), "entry": entry, "size": size}, f"{to}: entry {entry} of {size}", as_json=as_json)


def data_option(command: Any) -> Any:
    """Which directory."""
    return click.option(
        "--data", type=click.Path(path_type=Path), default=None, help="Where the directory lives, as with `up`."
    )(command)


def root_key_option(command: Any) -> Any:
    """Where the root key is."""
    return click.option(
        "--root-key", type=click.Path(path_type=Path), default=None, metavar="FILE",
        help="The root key's file, where it is not with the directory.",
    )(command)  # fmt: skip


def _data(folder: Path | None) -> Any:
    from agentbus.directory.data import DirectoryData
    from agentbus.home import home

    return DirectoryData(folder or home() / "directory")


def _now() -> int:
    import time

    return time.time_ns() // 1000


@directory.command("rotate-online")
@click.option(
    "--stolen", is_flag=True, help="Others may have the present ones: nothing they signed counts from now on."
)
@data_option
@root_key_option
@json_option
def rotate_online(stolen: bool, data: Path | None, root_key: Path | None, as_json: bool) -> None:
    """Make new online keys for a stopped directory. The root key introduces them; the bus URL stays.

    Also where the present ones were lost, and those of an older backup are here.
    """
    from agentbus.directory import survival
    from agentbus.wire.ids import b64

    with _data(data) as folder:
        root = folder.keyring.root(root_key)
        core = folder.load(now=_now(), keys_lost=True)
        try:
            keys = survival.rotate_online(folder, core, root, now=_now(), stolen=stolen)
        finally:
            core.close()
    found = {role: b64(getattr(keys, role).id) for role in ("identity", "head", "consent", "token")}
    text = "\n".join(f"{role:10} {key}" for role, key in found.items())
    say({"keys": found}, f"new online keys; start the directory again\n{text}", as_json=as_json)


@directory.command("operator")
@data_option
@json_option
def operator(data: Path | None, as_json: bool) -> None:
    """Make a new key for user/operator, whose key was lost.

    It ends the old key's epoch. On the directory's own machine, while it is stopped.
    """
    from agentbus.directory import life
    from agentbus.home import key_path
    from agentbus.host import make_operator
    from agentbus.keyfile import KeyFile
    from agentbus.wire.ids import name_id

    path = key_path("user/operator")
    with _data(data) as folder:
        core = folder.load(now=_now())
        try:
            life.lose_key(core, name_id("user/operator", core.domain), now=_now())
            if path.exists() and KeyFile(path).keep_old() is not None:
                path.unlink()
            make_operator(core, path, now=_now())
        finally:
            core.close()
    say({"key_file": str(path)}, f"user/operator has new keys; key file {path}", as_json=as_json)


@directory.command("backup")
@click.argument("to", type=click.Path(path_type=Path))
@click.option("--with-root-key", is_flag=True, help="The root key, too.")
@data_option
@json_option
def backup(to: Path, with_root_key: bool, data: Path | None, as_json: bool) -> None:
    """Copy log and online keys into the new folder TO.

    The directory may run meanwhile. Guard the copy like the original.
    """
    from agentbus.directory import survival

    count = survival.back_up(_data(data).folder, to, root=with_root_key)
    say({"folder": str(to), "entries": count}, f"{count} entries and the keys are in {to}", as_json=as_json)


@directory.command("recover")
@click.argument("mirrors", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@data_option
@json_option
def recover(mirrors: tuple[Path, ...], data: Path | None, as_json: bool) -> None:
    """Continue a restored log with what nodes kept of it.

    The directory is stopped. MIRRORS are nodes' log folders.
    """
    from agentbus.directory import survival

    with _data(data) as folder:
        core = folder.load(now=_now(), keys_lost=True)
        try:
            added = survival.recover(core, mirrors, now=_now())
            size = core.trust.size
        finally:
            core.close()
    say({"added": added, "size": size}, f"{added} entries added; the log has {size}", as_json=as_json)


@directory.command("rebuild")
@click.argument("folder", type=click.Path(path_type=Path, exists=True), required=False)
@root_option
@json_option
def rebuild(folder: Path | None, root: str | None, as_json: bool) -> None:
    """Fold a directory's log from the pinned root.

    FOLDER is a directory's data, a backup or a node's log folder. What it leads to is printed with a digest. Two logs
    that print the same state are the same directory.
    """
    import time

    from agentbus.delegation.trust import Trust
    from agentbus.directory import survival
    from agentbus.wire.ids import b64

    entries = survival.mirrored(folder or _data(None).folder)
    began = time.perf_counter()
    trust = Trust.pinned(root_key(root)).advance(entries, now=_now())
    seconds = time.perf_counter() - began
    found = {
        "domain": trust.domain, "size": trust.size, "root": b64(trust.frontier.root()),
        "revocations": trust.revocation_seq, "principals": len(trust.principals), "keys": len(trust.keys),
        "state": b64(survival.digest(trust)), "seconds": round(seconds, 3),
    }  # fmt: skip
    say(found, "\n".join(f"{key:12} {value}" for key, value in found.items()), as_json=as_json)


@directory.command("key", cls=Naming)
@click.argument("key_id", metavar="KEY", callback=as_named)
@click.argument("folder", type=click.Path(path_type=Path, exists=True), required=False)
@click.option(
    "--at", default="0s", metavar="INSTANT", help="When it was signed: ISO 8601, or how long ago. Default: now."
)
@click.option(
    "--known-at", default=None, metavar="INSTANT", help="By what the log had said by then. Default: all of it."
)
@root_option
@json_option
def key(key_id: str, folder: Path | None, at: str, known_at: str | None, root: str | None, as_json: bool) -> None:
    """Say whether a signature of KEY counted at an instant.

    Judged by what was known at another (--known-at). Exit 1: it did not. FOLDER is a directory's data, a backup or a
    node's log folder.
    """
    from datetime import UTC, datetime

    from agentbus.cli.when import instant
    from agentbus.delegation.trust import Trust
    from agentbus.directory import survival
    from agentbus.directory.life import parse_key

    now = datetime.now(UTC)
    when, known = instant(at, now), None if known_at is None else instant(known_at, now)
    trust = Trust.pinned(root_key(root)).advance(survival.mirrored(folder or _data(None).folder), now=_now())
    raw = parse_key(key_id)
    code = trust.refuses_key_at(raw, when, known=known)
    record = trust.keys.get(raw)
    found: dict[str, Any] = {
        "key": key_id, "ok": code is None, "code": code, "state": trust.key_state_at(raw, when, known=known),
        "principal": None if record is None else record.principal,
        "history": [] if record is None else [
            {"state": s.state, "since": _iso(s.since), "known": _iso(s.known), "entry": s.seq} for s in record.history
        ],
    }  # fmt: skip
    lines = [f"{'counts' if code is None else code:24} {found['state']:12} {found['principal'] or ''}"]
    lines += [f"  {s['state']:12} since {s['since']}  said {s['known']}  entry {s['entry']}" for s in found["history"]]
    say(found, "\n".join(lines), as_json=as_json)
    if code is not None:
        raise click.exceptions.Exit(1)


def _iso(instant: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(instant / 1_000_000, UTC).isoformat()
