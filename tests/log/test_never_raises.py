"""An auditor is handed anything: verifying says what is wrong with it and never falls over it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from loglab import Lab
from mutants import entries_of, rebuild, renumber, resign

from agentbus.errors import AgentBusError
from agentbus.log.decoding import decode_entry
from agentbus.log.history import History
from agentbus.log.read import read_log
from agentbus.log.verify import Verification
from agentbus.wire.codec import pack, unpack_array

ORIGIN = "agentbus.local.test/carol/1"


def twist(value: Any, random: Random) -> Any:
    """Another value of the same type; headers and proofs are twisted within where they can be read."""
    if isinstance(value, bytes):
        if random.random() < 0.5:
            try:
                row = unpack_array(value)
            except AgentBusError:
                row = []
            if row:
                at = random.randrange(len(row))
                row[at] = twist(row[at], random)
                return bytes(pack(row))
        if len(value) in (16, 32) or not value:
            return random.randbytes(len(value) or 32)
        return random.choice([b"", value[:-1], value + b"\0", random.randbytes(len(value))])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice([0, 1, value + 1, max(0, value - 1), (1 << 63) - 1, random.getrandbits(40)])
    if isinstance(value, str):
        return random.choice(["", "x", value + "x", "ok", "reject.x", "spiffe://local.test/agent/dave"])
    if isinstance(value, list):
        return [*value, [1, False, b"x"]]
    return random.choice([None, random.randbytes(32), random.randbytes(16)])


@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.campaign)])
def test_whatever_stands_in_an_entry_verifying_gives_verdicts(tmp_path: Path, count: int) -> None:
    """The owner of a node, log key and all, writes what he likes in fields of the right types."""
    lab, random = Lab(), Random(20260101)
    log = lab.open(tmp_path / "carol")
    lab.write(log)
    log.close()
    good, history = entries_of(tmp_path / "carol"), History(lab.world.entries, lab.world.root.id)
    wrong = 0
    for number in range(count):
        rows = [list(decode_entry(data)) for data in good]
        for _ in range(random.choice((1, 1, 2))):
            row = random.choice(rows)
            at = random.randrange(2, len(row))
            row[at] = twist(row[at], random)
        entries = [bytes(pack(row)) for row in rows]
        note = resign(entries, ORIGIN, lab.key)
        folder = rebuild(tmp_path / "carol", tmp_path / str(number), entries, note, len(entries))
        report = Verification(read_log(folder), history).run()
        wrong += not report.ok
        assert report.as_dict()["verdicts"].keys() == report.keys()
    assert wrong > count // 3  # many fields are nobody's business but the log owner's, such as reasons


def test_lengths_and_files_of_any_kind_are_read(tmp_path: Path) -> None:
    lab, random = Lab(), Random(20260101)
    log = lab.open(tmp_path / "carol")
    lab.write(log)
    log.close()
    history, good = History(lab.world.entries, lab.world.root.id), entries_of(tmp_path / "carol")
    assert renumber(good) == good
    for name in (
        "00000000.seg",
        "blobs-00000000.seg",
        "boxes-00000000.seg",
        "box-keys",
        "checkpoint",
        "tile/0/000.p/7",
    ):
        path = tmp_path / "carol" / name
        whole = path.read_bytes()
        for junk in (b"", b"\0" * 100, b"\xff" * 100, random.randbytes(300), whole[:50], whole[9:]):
            path.write_bytes(junk)
            if name == "box-keys" and len(junk) > len(whole):
                continue  # keys behind those that are used belong to no box
            report = Verification(read_log(tmp_path / "carol"), history).run()
            assert not report.ok or report["INTACT"].ok is None, (name, junk[:20])
        path.write_bytes(whole)
    assert Verification(read_log(tmp_path / "carol"), history).run().ok
