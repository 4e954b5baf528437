"""A log that is being written is never called damaged, however unlucky the moment; real damage still is."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from directories import write_directory
from loglab import Lab

from agentbus.audit import Evidence
from agentbus.audit.export import export
from agentbus.crypto.merkle import leaf_hash
from agentbus.log.checkpoint import read_checkpoint
from agentbus.log.cut import cut_where_they_agree
from agentbus.log.history import History, Statements
from agentbus.log.read import look, read_log
from agentbus.log.reconcile import reconcile_logs
from agentbus.log.records import blob_segment, box_segment, entry_segment
from agentbus.log.redact import redact
from agentbus.log.sweep import statement_blobs
from agentbus.log.verify import Verification
from agentbus.logstore.files import FileLog
from agentbus.testing.draw import NOON
from agentbus.wire.frame import decode_frame
from agentbus.wire.limits import LIMITS


@pytest.fixture
def lab() -> Lab:
    return Lab()


def begun(lab: Lab, folder: Path) -> FileLog:
    log = lab.open(folder)
    for name in ("erin", "carol"):
        log.put_blob(lab.statements[name])
    return log


def evidence(lab: Lab, folder: Path, *logs: str) -> Evidence:
    paths = [folder / name for name in logs or ("carol",)]
    return Evidence.open(*paths, directory=folder / "directory", root=lab.world.root.id)


def test_a_log_has_a_checkpoint_before_its_first_entry(lab: Lab, tmp_path: Path) -> None:
    log = begun(lab, tmp_path)
    said = read_log(tmp_path).said
    assert said is not None and said.size == 0 and log.size == 0
    lab.log(log, lab.request(), "dave", sent=False)
    report = lab.verify(tmp_path)
    assert report.ok and report["INTACT"].ok and "2 entries after the checkpoint" in report["INTACT"].reason
    (tmp_path / "checkpoint").unlink()
    assert lab.verify(tmp_path)["INTACT"].ok is False  # it was taken away: there is no log so young
    log.close()


def test_a_record_that_is_half_written_behind_the_checkpoint_is_no_damage(lab: Lab, tmp_path: Path) -> None:
    """At every byte of an entry, a blob and a box: what a writer leaves for a moment, and a crash for good."""
    log = begun(lab, tmp_path / "x")
    lab.log(log, lab.request(), "dave", sent=False)
    log.checkpoint()
    names = [name(0) for name in (entry_segment, blob_segment, box_segment)]
    ends = {name: (tmp_path / "x" / name).stat().st_size for name in names}
    lab.log(log, lab.answer()[:1], "carol", sent=True)
    grown = {name: (tmp_path / "x" / name).read_bytes() for name in names}
    shutil.copytree(tmp_path / "x", tmp_path / "y")
    log.close()
    seen = 0
    for at, name in enumerate(names):
        for other in names[:at]:  # a writer comes to entries last: where a box is half there, its entry is not
            (tmp_path / "y" / other).write_bytes(grown[other][: ends[other]])
        for end in range(ends[name] + 1, len(grown[name]), 7):
            (tmp_path / "y" / name).write_bytes(grown[name][:end])
            report = lab.verify(tmp_path / "y")
            assert report.ok and f"{name} at byte {ends[name]}" in report["INTACT"].reason, (name, end, report)
            seen += 1
        (tmp_path / "y" / name).write_bytes(grown[name][: ends[name]])
        assert lab.verify(tmp_path / "y").ok
    assert seen > 100


def test_a_record_that_is_cut_within_what_the_checkpoint_covers_is_damage(lab: Lab, tmp_path: Path) -> None:
    log = begun(lab, tmp_path / "x")
    lab.log(log, lab.request(), "dave", sent=False)
    lab.log(log, lab.answer(), "carol", sent=True)
    log.close()
    for number, name in enumerate((entry_segment(0), blob_segment(0), box_segment(0))):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "x", folder)
        (folder / name).write_bytes((folder / name).read_bytes()[:-3])
        verdict = lab.verify(folder)["INTACT"]
        assert verdict.ok is False and any(name in text for text in verdict.problems), verdict


def test_a_body_that_is_erased_while_the_log_is_read_is_redacted_and_not_missing(lab: Lab, tmp_path: Path) -> None:
    log = begun(lab, tmp_path)
    frames = lab.request()
    lab.log(log, frames, "dave", sent=False)
    log.checkpoint()
    read = read_log(tmp_path)
    digest = leaf_hash(decode_frame(frames[0], LIMITS).header)
    assert redact(log, digest, authority="user/alice", reason="gdpr-17", now=NOON) == 1
    report = Verification(read, History(lab.world.entries, lab.world.root.id)).run()
    assert report.ok and report["MISSING"].ok and report["REDACTED"].checked == 1
    log.close()


def test_the_directory_is_read_after_the_log_that_was_judged_under_it(lab: Lab, tmp_path: Path) -> None:
    """It grows between an auditor's two looks; whoever follows sees messages under entries that are younger still."""
    log = begun(lab, tmp_path / "carol")
    directory = write_directory(tmp_path / "directory", lab.world.entries) / "directory.sqlite"

    def grow() -> None:
        before = len(lab.world.entries)
        lab.world.revoke("instance", b"somebody else %d" % before)
        with closing(sqlite3.connect(directory)) as db, db:
            db.executemany("INSERT INTO entries VALUES (?, ?)", enumerate(lab.world.entries[before:], before))
        lab.log(log, lab.request(), "dave", sent=False)

    of = evidence(lab, tmp_path)
    grow()
    assert of.verify()["KEY-VALID"].ok

    class Enough(Exception):
        pass

    def stop() -> None:
        raise Enough

    waits = iter((grow, grow, stop))
    followed: list[str] = []
    with pytest.raises(Enough):
        for _, problem in of.follow(wait=lambda: next(waits)()):
            followed.append(problem)
    assert followed == [""] * 4
    log.close()


def test_logs_that_are_written_while_they_are_read_one_after_the_other_agree(lab: Lab, tmp_path: Path) -> None:
    """Both orders: what one log says of the other beyond the moment at which that was read is left out."""
    carol, dave = begun(lab, tmp_path / "carol"), lab.open_peer(tmp_path / "dave")

    def ask() -> None:
        frames = lab.request()
        lab.log(dave, frames, "dave", sent=True)
        lab.log(carol, frames, "dave", sent=False)
        answers = lab.answer()
        lab.log(carol, answers, "carol", sent=True)
        lab.log(dave, answers, "carol", sent=False)
        lab.keep(dave, carol.checkpoint())

    ask()
    ends = []
    for order in (("carol", "dave"), ("dave", "carol")):
        early = {name: look(tmp_path / name) for name in order}
        logs = {}
        for name in order:
            logs[name] = read_log(tmp_path / name, early[name])
            ask()
        assert any(log.size > log.settled for log in logs.values())
        history = History(lab.world.entries, lab.world.root.id)
        statements = [one for log in logs.values() for one in Statements(statement_blobs(log), history)]
        cut_where_they_agree(logs, statements)
        assert all(log.size >= log.settled for log in logs.values())
        found = reconcile_logs(logs, statements)
        assert found.ok and found.joined >= 8 * len(ends), order
        said = [read_checkpoint(note).size for _, note, _ in logs["dave"].notes()]
        assert said and max(said) <= logs["carol"].size
        ends.append(logs["dave"].size)
    carol.close()
    dave.close()


def test_what_was_there_at_the_first_look_is_never_cut_away(lab: Lab, tmp_path: Path) -> None:
    """Dave's log leaves out a message that carol took: it does not help him that carol's log goes on."""
    carol, dave = begun(lab, tmp_path / "carol"), lab.open_peer(tmp_path / "dave")
    frames = lab.request()
    lab.log(dave, frames[:1], "dave", sent=True)
    lab.log(carol, frames, "dave", sent=False)
    early = {name: look(tmp_path / name) for name in ("carol", "dave")}
    lab.log(carol, lab.request(), "dave", sent=False)  # this one dave's log may not have yet
    logs = {name: read_log(tmp_path / name, early[name]) for name in early}
    history = History(lab.world.entries, lab.world.root.id)
    statements = [one for log in logs.values() for one in Statements(statement_blobs(log), history)]
    cut_where_they_agree(logs, statements)
    assert logs["carol"].size == logs["carol"].settled == 2
    found = reconcile_logs(logs, statements)
    assert [(one.what, one.blame, one.party) for one in found.findings] == [("extra", "party", "dave")]
    carol.close()
    dave.close()


def test_an_export_of_a_log_that_goes_on_verifies_by_itself(lab: Lab, tmp_path: Path) -> None:
    log = begun(lab, tmp_path / "carol")
    write_directory(tmp_path / "directory", lab.world.entries)
    for _ in range(70):
        lab.log(log, lab.answer(), "carol", sent=True)
    log.checkpoint()
    of = evidence(lab, tmp_path)
    report = of.verify()
    lab.world.revoke("instance", b"somebody else")  # what is logged from here on was judged under more
    for _ in range(70):
        lab.log(log, lab.answer(), "carol", sent=True)
    log.checkpoint()  # and the full tile takes the place of those that the exported checkpoint needs
    counts = export(of, report, tmp_path / "out", root=lab.world.root.id)
    assert counts["messages"] == 140
    out = tmp_path / "out"
    again = Evidence.open(out / "logs" / "carol", directory=out / "directory", root=lab.world.root.id).verify()
    assert again.ok and again["INTACT"].ok and again["AUTHENTIC"].checked == 140, again
    log.close()
