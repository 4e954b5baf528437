"""What can be erased: encrypted under keys of their own, gone when the key is gone, and nowhere in clear."""

from __future__ import annotations

from pathlib import Path

import pytest
from loglab import ORIGIN

from agentbus.crypto.box import ERASED, box_name, close_box, open_box
from agentbus.crypto.keys import SigningKey
from agentbus.errors import LogError
from agentbus.log import entry
from agentbus.log.base import LogStore
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Gap
from agentbus.log.read import read_log
from agentbus.logstore.files import FileLog
from agentbus.logstore.memory import MemoryLog
from agentbus.testing.draw import NOON

KEY = SigningKey(b"l" * 32)


def reopen(folder: Path, boot: str = "first") -> FileLog:
    return FileLog.open(folder, key=KEY, origin=ORIGIN, now=NOON, boot=boot)


def test_a_box_opens_under_its_key_alone() -> None:
    box = close_box(b"a body", b"k" * 32)
    assert open_box(box, b"k" * 32) == b"a body" and b"body" not in box and len(box_name(box)) == 32
    for key in (b"l" * 32, b"k" * 31, b""):
        with pytest.raises(LogError) as caught:
            open_box(box, key)
        assert caught.value.code == "log.box"
    with pytest.raises(LogError):
        close_box(b"x", ERASED)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_a_box_is_read_back_until_it_is_erased(kind: str, tmp_path: Path) -> None:
    log: LogStore = MemoryLog(key=KEY, origin=ORIGIN) if kind == "memory" else reopen(tmp_path)
    names = [log.put_box(b"body %d" % n) for n in range(5)]
    assert len(set(names)) == 5 and log.put_box(b"body 0") not in names  # the same body twice: two keys, two boxes
    log.append([entry.closed(0, NOON)])
    late = log.put_box(b"late")
    assert [log.box(name) for name in (*names, late)] == [b"body %d" % n for n in range(5)] + [b"late"]
    assert log.erase(names[2]) and not log.erase(names[2]) and not log.erase(bytes(32))
    assert log.box(names[2]) is None and log.box(names[3]) == b"body 3" and log.box(bytes(32)) is None
    assert log.erase(late) and log.box(late) is None
    log.close()


def test_nothing_in_a_box_is_in_clear_on_the_disk_and_an_erased_key_is_nowhere(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    names = [log.put_box(b"secret %d" % n) for n in range(3)]
    log.append([entry.closed(0, NOON)])
    log.checkpoint()
    keys = (tmp_path / "box-keys").read_bytes()
    assert not any(b"secret" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert log.erase(names[1])
    log.close()
    lost = keys[32:64]
    assert not any(lost in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert (tmp_path / "box-keys").read_bytes() == keys[:32] + bytes(32) + keys[64:]
    read = read_log(tmp_path)
    assert [read.box(name).data for name in names] == [b"secret 0", None, b"secret 2"]
    assert read.box(names[1]).erased and not read.box(bytes(32)).erased
    again = reopen(tmp_path)
    name = again.put_box(b"after")
    again.append([entry.closed(again.size, NOON)])
    assert again.box(name) == b"after" and again.box(names[0]) == b"secret 0" and again.box(names[1]) is None
    again.close()


def test_a_loss_of_power_is_on_the_record_and_a_kill_is_not(tmp_path: Path) -> None:
    """The machine started anew and the log was not closed: its last entries may be gone, and nobody is to blame."""
    log = reopen(tmp_path)
    log.append([entry.opened(0, NOON, node="carol", domain="local.test", software="x")])
    log.checkpoint()
    log.append([entry.unsent(1, NOON, digest=bytes(32), reason="x")])
    log._failed = "killed"
    log.close()
    same = reopen(tmp_path)
    assert same.size == 2
    same._failed = "killed"
    same.close()
    other = reopen(tmp_path, "second")
    assert decode_entry(list(other)[2]) == Gap(entry.EntryKind.GAP, 2, NOON, "power", 1, 0)
    other.append([entry.closed(3, NOON)])
    other.close()
    clean = reopen(tmp_path, "third")
    assert clean.size == 4
    clean.close()


def test_a_newer_note_of_this_log_stops_it_for_good(tmp_path: Path) -> None:
    """Restored from an old backup; a peer shows what was signed since."""
    import shutil

    log = reopen(tmp_path / "log")
    log.append([entry.closed(0, NOON)])
    log.checkpoint()
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    log.append([entry.closed(1, NOON)])
    newer = log.checkpoint()
    log.close()
    restored = reopen(tmp_path / "backup")
    restored.append([entry.closed(1, NOON, reason="another history")])
    restored.roll_back(newer)
    for call in (restored.checkpoint, lambda: restored.append([entry.closed(2, NOON)])):
        with pytest.raises(LogError) as caught:
            call()
        assert caught.value.code == "log.rolled_back"
    restored.close()
    assert b"\n1\n" in (tmp_path / "backup" / "checkpoint").read_bytes()
    with pytest.raises(LogError) as caught:
        reopen(tmp_path / "backup")
    assert caught.value.code == "log.rolled_back"
