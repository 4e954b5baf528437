"""Reading a log on: what was read is not read again, and nothing else comes out than when all of it is read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from directories import write_directory
from loglab import Lab

from agentbus.audit import Evidence
from agentbus.log import index as indexing
from agentbus.log.read import LogFolder, read_log
from agentbus.log.records import blob_segment, box_segment, entry_segment
from agentbus.log.sweep import statement_blobs
from agentbus.logstore import segments
from agentbus.logstore.files import FileLog


@pytest.fixture
def lab() -> Lab:
    return Lab()


def begun(lab: Lab, folder: Path) -> FileLog:
    log = lab.open(folder)
    for name in ("erin", "carol"):
        log.put_blob(lab.statements[name])
    lab.log(log, lab.request(), "dave", sent=False)
    log.checkpoint()
    return log


def told(log: LogFolder) -> dict[str, Any]:
    """Everything that reading a log says."""
    names = [entry.body for entry, _ in log.messages() if entry.body is not None]
    return {
        "entries": list(log.entries()),
        "outline": log.outline(),
        "damage": log.damage,
        "unfinished": log.unfinished,
        "statements": sorted(statement_blobs(log)),
        "blobs": {digest: log.blob(digest) for digest in log.digests()},
        "boxes": {name: log.box(name) for name in names},
        "places": [sorted((p.segment, o) for p in index.pieces for o in p.offsets) for index in log._indexes],
    }


@pytest.mark.parametrize("segment", [1 << 26, 3000])
def test_reading_on_tells_what_reading_all_of_it_tells(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment: int
) -> None:
    """Over many looks, with entries, blobs and boxes of several segments."""
    monkeypatch.setattr(segments, "SEGMENT", segment)
    log = begun(lab, tmp_path)
    peer = lab.open_peer(tmp_path / "dave")
    read = read_log(tmp_path)
    for at in range(40):
        if at % 5 == 0:
            lab.restart("dave")
            lab.keep(log, peer.checkpoint())
        for _ in range(at % 4):
            lab.log(log, lab.request(body=b'{"n": %d}' % at), "dave", sent=False)
        if at % 7 == 0:
            log.checkpoint()
        read = read.grown()
        assert told(read) == told(read_log(tmp_path))
    assert (len(read.extents) > 3) is (segment == 3000)
    assert len(read.pieces) < 10 + 3 * sum(1 for path in tmp_path.glob("*-*") if path.suffix)
    log.close()
    peer.close()


def test_a_look_reads_what_was_written_since_the_last_one(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = begun(lab, tmp_path)
    for _ in range(50):
        lab.log(log, lab.request(), "dave", sent=False)
    read, spans = read_log(tmp_path), []
    assert read.pieces
    stretches = indexing.stretches

    def counted(file: Any, start: int, end: int) -> Iterator[Any]:
        spans.append(end - start)
        return stretches(file, start, end)

    monkeypatch.setattr(indexing, "stretches", counted)
    before = sum((tmp_path / name(0)).stat().st_size for name in (blob_segment, box_segment))
    for _ in range(20):
        lab.log(log, lab.request(), "dave", sent=False)
        read = read.grown()
    after = sum((tmp_path / name(0)).stat().st_size for name in (blob_segment, box_segment))
    assert sum(spans) == after - before
    assert len(read.pieces) < 12
    log.close()


def test_a_look_at_any_moment_of_a_write_reads_on_as_if_it_were_the_first(lab: Lab, tmp_path: Path) -> None:
    """Every file ends anywhere within what is written next, then all of it is there."""
    log = begun(lab, tmp_path / "x")
    names = [name(0) for name in (blob_segment, box_segment, entry_segment)]
    ends = {name: (tmp_path / "x" / name).stat().st_size for name in names}
    shutil.copytree(tmp_path / "x", tmp_path / "y")
    first = read_log(tmp_path / "y")
    assert first.pieces
    lab.restart("dave")
    lab.log(log, lab.request(), "dave", sent=False)
    grown = {name: (tmp_path / "x" / name).read_bytes() for name in names}
    for at, name in enumerate(names):
        for end in range(ends[name], len(grown[name]) + 1, 11):
            for before in names[:at]:
                (tmp_path / "y" / before).write_bytes(grown[before])
            for behind in names[at + 1 :]:
                (tmp_path / "y" / behind).write_bytes(grown[behind][: ends[behind]])
            (tmp_path / "y" / name).write_bytes(grown[name][:end])
            half = first.grown()
            assert told(half) == told(read_log(tmp_path / "y"))
            for each in names:
                (tmp_path / "y" / each).write_bytes(grown[each])
            assert told(half.grown()) == told(read_log(tmp_path / "y"))
    log.close()


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 5])
def test_behind_an_entry_that_cannot_be_read_everything_is_read_again(lab: Lab, tmp_path: Path, length: int) -> None:
    """Where a length is wrong nobody knows where the next entry begins: what looks whole behind it is not counted."""
    log = begun(lab, tmp_path)
    path = tmp_path / entry_segment(0)
    whole = path.stat().st_size
    lab.log(log, lab.request(), "dave", sent=False)
    log.checkpoint()
    data = bytearray(path.read_bytes())
    data[whole : whole + 4] = length.to_bytes(4, "big")
    path.write_bytes(data)
    read = read_log(tmp_path)
    lab.log(log, lab.request(), "dave", sent=False)
    assert told(read.grown()) == told(read_log(tmp_path))
    log.close()


class Stop(Exception):
    """Whoever follows has seen enough."""


def test_another_log_in_the_same_place_is_shown_from_its_beginning(lab: Lab, tmp_path: Path) -> None:
    """The epoch ends while somebody follows: what the next one holds is not taken for what was shown already."""
    folder = tmp_path / "carol"
    write_directory(tmp_path / "directory", lab.world.entries)
    log = begun(lab, folder)
    evidence = Evidence.open(folder, directory=tmp_path / "directory", root=lab.world.root.id)
    assert evidence.verify().ok
    turns = iter(range(3))

    def wait() -> None:
        turn = next(turns, None)
        if turn is None:
            raise Stop
        if turn == 1:
            log.close()
            shutil.move(folder, tmp_path / "aside")
        else:
            fresh = begun(lab, folder) if turn else log
            for _ in range(2 * turn):
                lab.log(fresh, lab.request(), "dave", sent=False)
            lab.log(fresh, lab.request(), "dave", sent=False)
            if turn:
                fresh.close()

    seen = []
    with pytest.raises(Stop):
        for message, problem in evidence.follow(wait=wait):
            seen.append((message.position, problem))
    assert seen == [(position, "") for position in (2, 3, *range(12))]
