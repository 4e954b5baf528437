"""The public Evidence: who did what for whom."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from directories import write_directory
from loglab import Lab

from agentbus.audit import VERDICTS, Evidence
from agentbus.errors import ConfigError, LogError, Malformed, NotVerified
from agentbus.wire.ids import b64


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def data(lab: Lab, tmp_path: Path) -> Path:
    log = lab.open(tmp_path / "carol")
    lab.write(log)
    log.close()
    write_directory(tmp_path / "directory", lab.world.entries)
    return tmp_path


def opened(lab: Lab, data: Path, *logs: str) -> Evidence:
    paths = [data / name for name in logs or ("carol",)]
    return Evidence.open(*paths, directory=data / "directory", root=b64(lab.world.root.id))


def test_nothing_is_shown_before_it_was_verified(lab: Lab, data: Path) -> None:
    evidence = opened(lab, data)
    for read in (evidence.messages, evidence.rows):
        with pytest.raises(NotVerified):
            read()
    report = evidence.verify()
    assert report.ok and set(report) == set(VERDICTS) and report["INTACT"].checked == 7
    assert report.as_dict()["verdicts"]["AUTHENTIC"] == {"ok": True, "checked": 4, "problems": [], "reason": ""}


def test_messages_can_be_asked_for(lab: Lab, data: Path) -> None:
    evidence = opened(lab, data)
    evidence.verify()
    assert len(list(evidence.messages())) == 4
    for_alice = list(evidence.messages(user="alice", accepted=True))
    assert [m.direction for m in for_alice] == ["received", "received"]
    first = for_alice[0]
    assert first.user == "spiffe://local.test/user/alice" and first.body == b'{"n": 1}' and first.action == "Quote"
    assert [who.short for who in first.path] == ["user/alice", "erin", "dave"]
    assert len(list(evidence.messages(agent="dave"))) == 4 and not list(evidence.messages(agent="frank"))
    assert len(list(evidence.messages(action="Quote", conversation=first.conversation))) == 4
    assert not list(evidence.messages(accepted=False)) and not list(evidence.messages(user="user/bob"))
    row = next(evidence.rows())
    assert row["user"].endswith("/alice") and row["accepted"] is True and row["kind"] == "request"


def test_several_logs_make_one_report_and_one_bad_one_makes_it_negative(lab: Lab, data: Path) -> None:
    log = lab.open(data / "other")
    lab.write(log)
    log.close()
    assert opened(lab, data, "carol", "other").verify()["AUTHENTIC"].checked == 8
    path = data / "other" / "00000000.seg"
    path.write_bytes(path.read_bytes()[:-1])
    report = opened(lab, data, "carol", "other").verify()
    assert not report.ok and all(text.startswith("other: ") for text in report["INTACT"].problems)


def test_what_is_missing_is_named(lab: Lab, data: Path) -> None:
    with pytest.raises(ConfigError):
        Evidence.open(data / "carol", directory=data / "directory")
    with pytest.raises(Malformed, match="'THUMBPRINT' is no thumbprint: 43 characters, as in a bus URL"):
        Evidence.open(data / "carol", directory=data / "directory", root="THUMBPRINT")
    with pytest.raises(LogError, match="no_directory"):
        Evidence.open(data / "carol", directory=data / "carol", root=lab.world.root.id)
    with pytest.raises(LogError, match=r"log\.missing"):
        opened(lab, data, "nowhere")


def test_a_folder_named_by_mistake_is_not_written_to(lab: Lab, data: Path) -> None:
    """A database that was only looked for must not be there afterwards: the next reader would take it for a log."""
    (data / "empty").mkdir()
    with pytest.raises(LogError, match=r"no_directory.* holds no directory\.sqlite; name"):
        Evidence.open(data / "carol", directory=data / "empty", root=lab.world.root.id)
    opened(lab, data).verify()
    assert list((data / "empty").iterdir()) == [] and not (data / "carol" / "directory.sqlite").exists()


def test_the_directorys_data_may_be_named_as_well_as_the_folder_in_it(lab: Lab, data: Path) -> None:
    """``agentbus up`` prints the outer one, and so it is what people have at hand."""
    evidence = Evidence.open(data / "carol", directory=data, root=lab.world.root.id)
    assert evidence.verify().ok


def test_a_directory_log_that_was_tampered_with_is_a_negative_verdict(lab: Lab, data: Path) -> None:
    with closing(sqlite3.connect(data / "directory" / "directory.sqlite")) as db, db:
        db.execute("UPDATE entries SET statement = ? WHERE seq = 7", (lab.world.entries[6],))
    report = opened(lab, data).verify()
    assert report["KEY-VALID"].ok is False and "good up to entry 7" in report["KEY-VALID"].problems[0]
