"""How a directory outlives its keys, its disk and its operator.

Rule 1: everything here works on a directory that is stopped, save the backup. Two that write make two histories.
Rule 2: a log is only ever continued. What a mirror holds is believed for its signatures; a log that is not a prefix of
it is a fork, and is left as it is, with the evidence.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from agentbus.crypto.keys import SigningKey
from agentbus.delegation.statements import ROLES, KeyEvent, Revocation, Rotation, directory_id
from agentbus.delegation.trust import Trust
from agentbus.directory.core import Directory, OnlineKeys
from agentbus.directory.data import DirectoryData
from agentbus.directory.granted import FILE as GRANTED
from agentbus.directory.keyring import ONLINE, ROOT
from agentbus.directory.store import FILE, SqliteStore
from agentbus.errors import AgentBusError, ConfigError, LogError
from agentbus.wire.codec import pack
from agentbus.wire.limits import SECOND

CODES: Final = {
    "config.backup": "A backup goes into a folder that is not there yet, and comes from one that a backup made.",
    "log.directory_fork": "A mirror and this directory's log hold different entries at the same place: two histories.",
    "log.directory_mirror": "This mirror's log is not of this trust domain, or is damaged.",
}

USED: Final = "exchange.sqlite"  # in DIR/exchange/: tokens that were used or revoked
LINGER: Final = 3600 * SECOND  # how long grants of an ended consent key count: as long as they live


def rotate_online(
    data: DirectoryData, core: Directory, root: SigningKey, *, now: int, stolen: bool = False
) -> OnlineKeys:
    """Let new online keys follow the present ones, under the same bus URL: one group of entries that the root signs.

    Standing grants of the old consent key count until they expire. The CURVE key stays, since the URL names it. Where
    the present keys were lost (the folder holds those of an older backup), nothing they would sign is needed: the root
    key's word alone founds the new ones.

    Args:
        data: The folder, taken.
        core: Its directory.
        root: The root key.
        now: Instant, microseconds.
        stolen: The present keys may be in other hands: nothing that they signed counts from now on.

    Returns:
        The new keys, which are on disk.
    """
    old, me = core.keys, directory_id(core.domain)
    identity, head, consent, token = (SigningKey(os.urandom(32)) for _ in ROLES)
    fresh = OnlineKeys(identity, head, consent, token, old.curve)
    data.keyring.propose(fresh)
    instant, seq = core.instant(now), core.trust.size
    entries: list[bytes] = []

    def add(kind: str, subject: str, payload: list[Any], key: SigningKey) -> None:
        event = KeyEvent(seq + len(entries), instant, core.domain, kind, subject, payload)
        entries.append(event.signed_by(key).encode())

    for role in ROLES:
        add("online", role, [getattr(fresh, role).public.raw], root)
    record = core.trust.principals[me]
    if core.counts(old):
        rotation = Rotation(
            core.domain, me, record.epoch, old.identity.id, fresh.identity.public.raw, "activate", LINGER,
            instant + 30 * SECOND,
        )  # fmt: skip
        add("rotate", me, list(rotation.proven_by(old.identity, fresh.identity)), old.identity)
    else:
        lost = [k for k in record.keys if core.trust.keys[k].epoch == record.epoch]
        numbers = enumerate((k for k in lost if core.trust.keys[k].state != "revoked"), core.trust.revocation_seq + 1)
        for number, key_id in numbers:
            ended = Revocation(
                seq + len(entries), instant, core.domain, "key", key_id, me, "lost", instant, number, b""
            )
            entries.append(ended.signed_by(fresh.identity).encode())
        payload = [fresh.identity.public.raw, old.curve.public, record.epoch, b"", b""]
        add("key", me, payload, fresh.identity)
    for online in [o for o in core.trust.online.values() if o.retired_at is None]:
        ends = instant if stolen or online.role in ("identity", "head") else instant + LINGER
        add("online-retired", online.role, [online.key.id, ends], root)
    core.append(entries, now)
    data.keyring.accept()
    core.keys = fresh
    return fresh


def back_up(folder: Path, to: Path, *, root: bool = False) -> int:
    """Copy a directory's log, its online keys and what tokens were used, while it runs or not.

    Args:
        folder: The directory's ``DIR``.
        to: A folder that is not there yet.
        root: Copy the root key, too.

    Returns:
        How many entries were copied.

    Raises:
        ConfigError: ``config.backup``, ``config.no_directory``, ``config.root_away``.
    """
    if to.exists():
        raise ConfigError("config.backup", f"{to} exists; name a folder that does not")
    if not (folder / "keys" / ONLINE).exists() or not (folder / "directory" / FILE).exists():
        raise ConfigError("config.no_directory", f"no directory in {folder}; name its folder with --data")
    if root and not (folder / "keys" / ROOT).exists():  # a backup that lacks it would be believed to hold it
        raise ConfigError("config.root_away", f"no root key at {folder / 'keys' / ROOT}; back up without it")
    fresh = to.with_name(f"{to.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    for part in ("keys", "directory"):
        (fresh / part).mkdir(parents=True, mode=0o700)
    for name in (ONLINE, ROOT) if root else (ONLINE,):
        _copy_secret(folder / "keys" / name, fresh / "keys" / name)
    for name in (FILE, GRANTED):
        _copy_database(folder / "directory" / name, fresh / "directory" / name)
    if (folder / "exchange" / USED).exists():  # else single-use tokens would be good again after a restore
        (fresh / "exchange").mkdir(mode=0o700)
        _copy_database(folder / "exchange" / USED, fresh / "exchange" / USED)
    with closing(sqlite3.connect(fresh / "directory" / FILE)) as copy:
        (count,) = copy.execute("SELECT count(*) FROM entries").fetchone()
    fresh.rename(to)
    return int(count)


def _copy_database(source: Path, to: Path) -> None:
    """A SQLite file as it is now, while it is written or not."""
    with (
        closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as found,
        closing(sqlite3.connect(to)) as copy,
    ):
        found.backup(copy)
    to.chmod(0o600)


def _copy_secret(source: Path, to: Path) -> None:
    handle = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(source.read_bytes())
        out.flush()
        os.fsync(out.fileno())


def recover(core: Directory, mirrors: Sequence[Path], *, now: int) -> int:
    """Continue a directory's log with entries that nodes mirrored, each judged as any entry.

    Args:
        core: The directory, stopped.
        mirrors: Folders with a ``directory.sqlite``: nodes' log folders, or backups.
        now: Instant, microseconds.

    Returns:
        How many entries were added.

    Raises:
        LogError: ``log.directory_fork``: nothing was written. ``log.directory_mirror``.
    """
    own = list(core.store.entries())
    best: list[bytes] = []
    for mirror in mirrors:
        entries = mirrored(mirror)
        _require_good(entries, core.trust.root, mirror, now)
        common = min(len(own), len(entries))
        apart = next((at for at in range(common) if own[at] != entries[at]), None)
        if apart is not None:
            raise LogError("log.directory_fork", f"{mirror} and this log differ from entry {apart} on")
        if any(a != b for a, b in zip(best, entries, strict=False)):
            raise LogError("log.directory_fork", f"{mirror} and another mirror differ")
        best = max(best, entries, key=len)
    missing = best[len(own) :]
    if missing:
        core.append(missing, now)
    return len(missing)


def mirrored(folder: Path) -> list[bytes]:
    """The entries in a folder's ``directory.sqlite``.

    Raises:
        LogError: ``log.directory_mirror``, ``log.directory_gap``, ``log.directory_unreadable``.
    """
    if not (folder / FILE).exists():
        below = [found for found in (folder / "directory",) if (found / FILE).exists()]
        if not below:
            raise LogError("log.directory_mirror", f"{folder} holds no {FILE}")
        folder = below[0]
    store = SqliteStore(folder, read_only=True)
    try:
        return list(store.entries())
    finally:
        store.close()


def _require_good(entries: Sequence[bytes], root: bytes, mirror: Path, now: int) -> None:
    try:
        trust = Trust.pinned(root).advance(entries, now=now)
    except AgentBusError as error:
        raise LogError("log.directory_mirror", f"{mirror}: {error}") from error
    if trust.size != len(entries):  # an instance statement is good and no entry: all behind it would be shifted
        raise LogError("log.directory_mirror", f"{mirror}: of {len(entries)} rows {trust.size} are entries of a log")


def digest(trust: Trust) -> bytes:
    """SHA-256 over all that a log was folded to: two folds with the same digest came to the same state."""
    rows: list[list[Any]] = [
        [trust.domain, trust.size, trust.frontier.root(), trust.revocation_seq, trust.max_age, trust.last_time],
        sorted([o.key.raw, o.role, o.retired_at] for o in trust.online.values()),
        sorted(
            [p.id, p.state, p.epoch, p.owner, p.purpose, [str(s) for s in p.ceiling], list(p.may_talk_to),
             None if p.rights is None else [str(s) for s in p.rights], list(p.tags), list(p.keys),
             [list(s) for s in p.history]]
            for p in trust.principals.values()
        ),
        sorted(
            [k.key.raw, k.principal, k.epoch, k.curve_key, k.state, k.since, k.until, [list(s) for s in k.history]]
            for k in trust.keys.values()
        ),
        sorted([k, w] for k, w in trust.curve_keys.items()),
        sorted([n, w] for n, w in trust.nodes.items()),
        sorted([name, repr(issuer)] for name, issuer in trust.issuers.items()),
        sorted([seq, repr(consent)] for seq, consent in trust.consents.items()),
        sorted([kind, handle, r.seq] for (kind, handle), r in trust.revoked.items()),
    ]  # fmt: skip
    found = hashlib.sha256()
    for table in rows:
        for row in table:
            found.update(hashlib.sha256(bytes(pack(_plain(row)))).digest())
        found.update(b"\x00")
    return found.digest()


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, str) else value
