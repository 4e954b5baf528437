"""Where blobs and boxes are, in few bytes each: everything is found again, once, however much there is."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest
from loglab import Lab

from agentbus.errors import LogError
from agentbus.log.index import Index
from agentbus.log.read import read_log
from agentbus.log.records import blob_segment, box_segment
from agentbus.logstore import blobs as blobs_module
from agentbus.logstore import segments
from agentbus.logstore.blobs import Blobs
from agentbus.logstore.segments import Position


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.mark.parametrize("segment", [1 << 26, 2000])
def test_each_blob_is_kept_once_and_found_again(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment: int
) -> None:
    """Those of this start and of earlier ones, the newest and those whose digests were let go of."""
    monkeypatch.setattr(segments, "SEGMENT", segment)
    monkeypatch.setattr(blobs_module, "RECENT", 16)
    data = [b"blob %d" % at for at in range(300)]
    digests = [hashlib.sha256(one).digest() for one in data]
    for end in (100, 200, 300, 300):  # four starts, each of which puts what was put before, too
        log = lab.open(tmp_path)
        for at, one in enumerate(data[:end]):
            assert log.put_blob(one) == digests[at]
            if at % 7 == 0:
                log.sync()
        for at in range(end):
            assert log.blob(digests[at]) == data[at]
        assert len(log._blobs._recent) <= 16 + 7
        assert log.blob(bytes(32)) is None
        log.close()
    read = read_log(tmp_path)
    assert sorted(read.digests()) == sorted(digests) and not read.damage
    assert (tmp_path / blob_segment(1)).exists() is (segment == 2000)


def test_a_digest_that_begins_like_another_is_not_taken_for_it(tmp_path: Path) -> None:
    """Mallory makes two chains whose digests begin alike, so that one is kept and the other thought to be."""
    blobs = Blobs(tmp_path, Position(0, 0), Index([]))
    one, other = bytes(8) + b"a" * 24, bytes(8) + b"b" * 24
    blobs.put(one, b"one")
    blobs.write()
    blobs._settle()
    assert blobs.has(one) and not blobs.has(other) and blobs.get(other) is None
    blobs.close()


def test_what_each_start_of_a_node_adds_is_kept_in_few_bytes(lab: Lab, tmp_path: Path) -> None:
    """A start brings a statement and its chains; after a thousand of them memory holds 16 bytes of each."""
    log = lab.open(tmp_path)
    for at in range(6000):
        log.put_blob(b"a statement of start %d" % at)
    log.close()
    tracemalloc.start()
    log = lab.open(tmp_path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(log._blobs._index) == 6000 and held < 6000 * 40, held
    log.close()


def test_boxes_are_found_while_others_are_written(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT", 3000)
    log, names = lab.open(tmp_path), {}
    for at in range(120):
        names[log.put_box(b"box %d" % at)] = b"box %d" % at
        if at % 5 == 0:
            log.sync()
            assert all(log.box(name) == data for name, data in names.items())
    assert log.box(bytes(32)) is None and not log.erase(bytes(32))
    first = next(iter(names))
    assert log.erase(first) and log.box(first) is None and not log.erase(first)
    assert len(log._boxes._index.pieces) < 120
    log.close()


def test_a_damaged_box_is_named_when_one_is_looked_for(lab: Lab, tmp_path: Path) -> None:
    log = lab.open(tmp_path)
    names = [log.put_box(b"box %d" % at) for at in range(3)]
    log.sync()
    path = tmp_path / box_segment(0)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(LogError) as caught:
        log.box(names[2])
    assert caught.value.code == "log.damaged"
    log.close()
