"""What a log in files keeps of other logs, and what it says of its own past."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash, root_of
from agentbus.errors import LogError
from agentbus.log import entry
from agentbus.log.base import FORKS_BY, FORKS_OF, KeptNote
from agentbus.logstore.epochs import end_epoch, open_epoch
from agentbus.logstore.files import FileLog
from agentbus.testing.draw import NOON

KEY, ORIGIN = SigningKey(b"l" * 32), "agentbus.local.test/carol/1"
DAVE, MALLORY = "spiffe://local.test/agent/dave", "spiffe://local.test/agent/mallory"
OTHER = "agentbus.local.test/dave/1"


def reopen(folder: Path) -> FileLog:
    return open_epoch(folder, key=KEY, domain="local.test", node="carol", now=NOON)


def write(log: FileLog, count: int) -> None:
    log.append([entry.closed(log.size + at, NOON, reason=f"r{log.size + at}") for at in range(count)])


def kept(key: bytes, size: int, by: str = DAVE, origin: str = OTHER) -> KeptNote:
    return KeptNote(origin, key * 32, by, size, b"note %d" % size)


def test_the_newest_note_of_each_log_is_kept_and_a_log_is_its_origin_and_its_key(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    log.keep_note(kept(b"m", 10**12, MALLORY))
    for size in (5, 9, 7):
        log.keep_note(kept(b"d", size))
    log.close()
    log = reopen(tmp_path)
    assert log.kept_notes() == [kept(b"d", 9), kept(b"m", 10**12, MALLORY)]
    log.drop_note(OTHER, b"m" * 32)
    log.close()
    assert end_epoch(tmp_path) is not None
    log = reopen(tmp_path)  # a new epoch of ours ends nobody else's history
    assert log.origin.endswith("/2") and log.kept_notes() == [kept(b"d", 9)]
    log.close()


def test_forks_are_bounded_across_restarts(tmp_path: Path) -> None:
    found = 0
    for size in range(1, 9):
        log = reopen(tmp_path)
        for other in (b"x", b"y", b"z"):
            found += log.keep_fork(kept(b"m", size, MALLORY), other)
        log.close()
    assert found == FORKS_OF
    log = reopen(tmp_path)
    for key in range(100):
        log.keep_fork(kept(bytes([key]), 1, MALLORY), b"other")
    assert len(list(tmp_path.glob("fork-*.notes"))) == FORKS_BY
    assert log.keep_fork(kept(b"d", 1), b"other")  # what one shows leaves everybody else's room
    log.close()
    assert b"note 1\nother" in [path.read_bytes() for path in tmp_path.glob("fork-*.notes")]


def test_the_root_of_every_size_is_told_before_and_after_checkpoints(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    for _ in range(4):
        write(log, 90)
        leaves = [leaf_hash(data) for data in log]
        for size in range(log.size + 1):
            assert log.root_at(size) == root_of(leaves[:size])
        assert log.root_at(log.size + 1) is None and log.root_at(10**12) is None
        log.checkpoint()
    log.close()


@pytest.mark.parametrize("harm", ["missing", "short", "changed", "a folder"])
def test_a_tile_that_cannot_be_read_is_damage_and_no_other_history(tmp_path: Path, harm: str) -> None:
    """What None means ends a node: so it is said of nothing but a log that is shorter."""
    log = reopen(tmp_path)
    write(log, 600)
    log.checkpoint()
    write(log, 10)
    leaves = [leaf_hash(data) for data in log]
    for path in [path for path in (tmp_path / "tile").rglob("*") if path.is_file() and "entries" not in path.parts]:
        data = path.read_bytes()
        path.unlink()
        if harm == "short":
            path.write_bytes(data[:-1])
        elif harm == "changed":
            path.write_bytes(bytes(len(data)))
        elif harm == "a folder":
            path.mkdir()
    for size in (1, 200, 256, 300, 599):
        with pytest.raises(LogError) as caught:
            log.root_at(size)
        assert caught.value.code == "log.damaged"
    assert log.root_at(600) == root_of(leaves[:600]) and log.root_at(605) == root_of(leaves[:605])
    assert log.root_at(611) is None
    with suppress(LogError):  # where a folder stands in a tile's place, there is nothing to be signed
        log.close()
