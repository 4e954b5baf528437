"""What a log's folder survives, and what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loglab import ORIGIN, Lab

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash, root_of
from agentbus.errors import LogError, Malformed
from agentbus.log import entry
from agentbus.log.checkpoint import parse_origin, read_checkpoint, sign_checkpoint, verify_checkpoint
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Gap
from agentbus.log.read import Numbered, read_log
from agentbus.logstore import segments
from agentbus.logstore.files import FileLog
from agentbus.logstore.memory import MemoryLog
from agentbus.testing.draw import NOON

KEY = SigningKey(b"l" * 32)


def reopen(folder: Path, **options: object) -> FileLog:
    return FileLog.open(folder, key=KEY, origin=ORIGIN, now=NOON, **options)  # type: ignore[arg-type]


def closes(start: int, count: int) -> list[bytes]:
    return [entry.closed(start + at, NOON, reason=f"r{start + at}") for at in range(count)]


def said(folder: Path) -> int:
    """How many entries the published checkpoint is over."""
    return read_checkpoint((folder / "checkpoint").read_bytes()).size


def crash(log: FileLog) -> None:
    """Let go of a log as a killed process does: no checkpoint, no flush."""
    log._failed = "killed"
    log.close()


def test_what_was_appended_is_there_after_reopening(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    log.append(closes(0, 5))
    digest = log.put_blob(b"body")
    assert log.put_blob(b"body") == digest and log.blob(digest) == b"body"
    log.append(closes(5, 2))
    root = log.root_at(log.size)
    log.close()
    log.close()
    again = reopen(tmp_path)
    assert list(again) == closes(0, 7) and again.size == 7
    assert again.root_at(again.size) == root == root_of([leaf_hash(e) for e in closes(0, 7)])
    assert again.blob(digest) == b"body" and again.blob(bytes(32)) is None
    again.close()


def test_memory_and_files_sign_the_same_checkpoint(tmp_path: Path) -> None:
    stores = (reopen(tmp_path), MemoryLog(key=KEY, origin=ORIGIN))
    for store in stores:
        for at in range(0, 12, 3):
            store.append(closes(at, 3))
    first, second = [store.checkpoint() for store in stores]
    assert first == second == stores[0].checkpoint()
    said = verify_checkpoint(first, ORIGIN, KEY.public)
    assert (said.size, said.root) == (12, root_of([leaf_hash(e) for e in closes(0, 12)]))
    assert (tmp_path / "checkpoint").read_bytes() == first
    for store in stores:
        store.close()
        with pytest.raises(LogError) as caught:
            store.append(closes(12, 1))
        assert caught.value.code == "log.closed"


def test_segments_rotate_and_checkpoints_cross_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT", 200)
    log = reopen(tmp_path)
    for at in range(0, 60, 3):
        log.append(closes(at, 3))
        log.put_blob(b"x" * at)
        if at % 9 == 0:
            log.checkpoint()
    root = log.root_at(log.size)
    log.close()
    assert len(list(tmp_path.glob("0*.seg"))) > 5 and len(list(tmp_path.glob("blobs-*.seg"))) > 5
    again = reopen(tmp_path)
    assert (
        list(again) == closes(0, 60)
        and again.root_at(again.size) == root
        and again.blob(again.put_blob(b"x" * 9)) == b"x" * 9
    )
    again.close()
    (tmp_path / "00000001.seg").unlink()
    with pytest.raises(LogError) as caught:
        reopen(tmp_path)
    assert caught.value.code == "log.damaged"


def test_a_write_torn_at_any_byte_is_cut_and_logged(tmp_path: Path) -> None:
    """The machine dies in the middle of the last write."""
    log = reopen(tmp_path / "a")
    log.append(closes(0, 3))
    log.checkpoint()
    log.append(closes(3, 1))
    whole = (tmp_path / "a" / "00000000.seg").read_bytes()
    crash(log)
    last = len(whole) - 8 - len(closes(3, 1)[0])
    for length in range(last + 1, len(whole)):
        (tmp_path / "a" / "00000000.seg").write_bytes(whole[:length])
        folder = tmp_path / str(length)
        shutil.copytree(tmp_path / "a", folder)
        again = reopen(folder)
        found = list(again)
        assert found[:3] == closes(0, 3) and len(found) == 4
        assert decode_entry(found[3]) == Gap(entry.EntryKind.GAP, 3, NOON, "torn", 3, length - last)
        again.close()
        assert (folder / f"00000000.seg.{last}.torn").read_bytes() == whole[last:length]
        reopen(folder).close()


@pytest.mark.parametrize("place", ["middle", "short", "blob"])
def test_damage_within_what_was_signed_is_never_cut(tmp_path: Path, place: str) -> None:
    log = reopen(tmp_path)
    log.put_blob(b"a body")
    log.append(closes(0, 4))
    log.close()
    path = tmp_path / ("blobs-00000000.seg" if place == "blob" else "00000000.seg")
    data = bytearray(path.read_bytes())
    if place == "short":
        del data[-3:]
    else:
        data[30] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(LogError) as caught:
        reopen(tmp_path)
    assert caught.value.code == "log.damaged" and path.name in str(caught.value)
    assert path.read_bytes() == bytes(data)


def test_damage_before_good_unsigned_records_is_not_taken_for_a_torn_tail(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    log.append(closes(0, 4))
    crash(log)
    path = tmp_path / "00000000.seg"
    data = bytearray(path.read_bytes())
    data[12] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(LogError) as caught:
        reopen(tmp_path)
    assert caught.value.code == "log.damaged" and path.read_bytes() == bytes(data)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    with pytest.raises(LogError) as caught:
        reopen(tmp_path)
    assert caught.value.code == "log.locked"
    log.close()
    reopen(tmp_path).close()


def test_a_published_checkpoint_beyond_the_state_is_a_fork(tmp_path: Path) -> None:
    """Somebody restored the state from an old backup, but not the checkpoint; or signed twice."""
    log = reopen(tmp_path)
    log.append(closes(0, 4))
    log.close()
    for size, root in ((5, bytes(32)), (4, bytes(32))):
        (tmp_path / "checkpoint").write_bytes(sign_checkpoint(ORIGIN, size, root, KEY))
        with pytest.raises(LogError) as caught:
            reopen(tmp_path)
        assert caught.value.code == "log.forked"


def test_a_state_that_moved_under_us_stops_the_signing(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    log.append(closes(0, 4))
    log.checkpoint()
    other = sqlite3.connect(tmp_path / "state.sqlite")
    other.execute("UPDATE state SET size = 3")
    other.commit()
    other.close()
    log.append(closes(4, 1))
    before = (tmp_path / "checkpoint").read_bytes()
    with pytest.raises(LogError) as caught:
        log.checkpoint()
    assert caught.value.code == "log.forked" and (tmp_path / "checkpoint").read_bytes() == before
    crash(log)


def test_a_checkpoint_lost_after_the_state_was_stored_is_made_again(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    log.append(closes(0, 4))
    note = log.checkpoint()
    crash(log)
    (tmp_path / "checkpoint").unlink()
    again = reopen(tmp_path)
    assert again.checkpoint() == note == (tmp_path / "checkpoint").read_bytes()
    again.close()


def test_another_key_or_origin_is_refused(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    log.append(closes(0, 1))
    log.close()
    for key, origin, code in (
        (SigningKey(b"o" * 32), ORIGIN, "log.key"),
        (KEY, "agentbus.local.test/carol/2", "log.origin"),
    ):
        with pytest.raises(LogError) as caught:
            FileLog.open(tmp_path, key=key, origin=origin, now=NOON)
        assert caught.value.code == code
    reopen(tmp_path).close()


def test_what_the_disk_gives_back_is_what_is_signed(tmp_path: Path) -> None:
    """The disk changes a byte between the write and the checkpoint: nothing is signed and nothing more acknowledged."""
    log = reopen(tmp_path)
    log.append(closes(0, 4))
    with (tmp_path / "00000000.seg").open("r+b") as file:
        file.seek(20)
        file.write(b"\xff")
    with pytest.raises(LogError) as caught:
        log.checkpoint()
    assert caught.value.code == "log.damaged" and said(tmp_path) == 0
    with pytest.raises(LogError):
        log.append(closes(4, 1))
    log.close()


def test_off_signs_nothing_and_fsync_is_read_back(tmp_path: Path) -> None:
    off = reopen(tmp_path / "off", durability="off")
    off.append(closes(0, 1))
    with pytest.raises(LogError) as caught:
        off.checkpoint()
    assert caught.value.code == "log.no_checkpoints"
    off.close()
    durable = reopen(tmp_path / "fsync", durability="fsync")
    durable.append(closes(0, 1))
    durable.close()
    assert read_log(tmp_path / "off").note is None and read_log(tmp_path / "fsync").note is not None


@pytest.mark.parametrize("size", [0, 65_536])
def test_entries_have_a_length(tmp_path: Path, size: int) -> None:
    log = reopen(tmp_path)
    with pytest.raises(LogError) as caught:
        log.append([bytes(size)])
    assert caught.value.code == "log.entry_size" and log.size == 0
    log.close()


def test_origins_are_read_strictly() -> None:
    assert str(parse_origin(ORIGIN)) == ORIGIN and parse_origin(ORIGIN).node == "carol"
    for bad in ("agentbus.local.test/carol", "agentbus.Local/carol/1", "agentbus.a/b/0", "x/carol/1", ORIGIN + "\n"):
        with pytest.raises(Malformed):
            parse_origin(bad)


WRITER = """
import sys
from pathlib import Path
from agentbus.crypto.keys import SigningKey
from agentbus.log import entry
from agentbus.logstore.files import FileLog
log = FileLog.open(Path(sys.argv[1]), key=SigningKey(b"l" * 32), origin=sys.argv[2], now=1)
while True:
    digest = log.put_blob(b"blob %d" % log.size)
    log.append([entry.unsent(log.size + at, 1, digest=digest, reason="x") for at in range(8)])
    sys.stdout.write(f"{log.size} {digest.hex()}\\n")
    sys.stdout.flush()
    if log.size % 800 == 0:
        log.checkpoint()
"""


@pytest.mark.parametrize("after", [0.1, 0.3])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, after: float) -> None:
    root = Path(__file__).resolve().parents[2]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), ORIGIN],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert writer.stdout is not None
    lines = [writer.stdout.readline()]
    until = time.monotonic() + after
    while time.monotonic() < until:
        lines.append(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    lines += writer.stdout.read().splitlines(keepends=True)
    writer.stdout.close()
    assert writer.wait() == -signal.SIGKILL
    acknowledged = [line.split() for line in lines if line.endswith(b"\n")]
    log = reopen(tmp_path)
    assert log.size >= int(acknowledged[-1][0])
    for _, digest in acknowledged:
        assert log.blob(bytes.fromhex(digest.decode())) is not None
    log.close()
    read = read_log(tmp_path)
    found = list(read.entries())
    assert all(isinstance(item, Numbered) for item in found) and not read.damage
    verify_checkpoint(read.note or b"", ORIGIN, KEY.public)


def test_a_lab_log_of_real_messages_fits_in_memory_too() -> None:
    lab = Lab()
    store = MemoryLog(key=lab.key, origin=ORIGIN)
    lab.write(store)
    assert [decode_entry(data).kind for data in store] == [9, 2, 2, 1, 1, 5, 10]
