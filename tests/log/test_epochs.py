"""Where a history cannot go on, another begins, and no origin is ever begun twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentbus.cli.main import cli
from agentbus.crypto.keys import SigningKey
from agentbus.errors import LogError
from agentbus.log import entry
from agentbus.log.checkpoint import read_checkpoint
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Open
from agentbus.log.read import read_log
from agentbus.logstore.epochs import current_epoch, end_epoch, open_epoch
from agentbus.logstore.files import FileLog
from agentbus.runtime.record import Recorder
from agentbus.testing.draw import NOON

KEY = SigningKey(b"l" * 32)


def reopen(folder: Path) -> FileLog:
    return open_epoch(folder, key=KEY, domain="local.test", node="carol", now=NOON)


def start(log: FileLog) -> None:
    Recorder(log).opened(NOON, node="carol", domain="local.test", software="x")


def test_a_restored_backup_is_proved_by_a_peer_and_goes_on_in_a_new_epoch(tmp_path: Path) -> None:
    """Carol's disk was restored to yesterday; dave holds a note from today."""
    folder = tmp_path / "carol"
    log = reopen(folder)
    start(log)
    log.checkpoint()
    shutil.copytree(folder, tmp_path / "backup")
    log.append([entry.closed(1, NOON)])
    newer = log.checkpoint()
    log.close()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    restored = reopen(folder)
    assert restored.size == 1
    restored.roll_back(newer)
    restored.close()
    log = reopen(folder)
    assert (log.origin, log.size, log.previous) == ("agentbus.local.test/carol/2", 0, newer)
    start(log)
    first = decode_entry(next(iter(log)))
    assert isinstance(first, Open) and first.previous == newer
    assert read_checkpoint(log.checkpoint()).origin == "agentbus.local.test/carol/2"
    log.close()
    assert read_log(folder / "epochs" / "1").origin == "agentbus.local.test/carol/1"
    again = reopen(folder)
    assert again.size == 1 and again.previous == newer
    again.close()


def test_a_damaged_log_is_left_alone_until_somebody_ends_its_epoch(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    start(log)
    note = log.checkpoint()
    with pytest.raises(LogError) as caught:
        end_epoch(tmp_path)
    assert caught.value.code == "log.locked"
    log.close()
    path = tmp_path / "00000000.seg"
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        with pytest.raises(LogError) as caught:
            reopen(tmp_path)
        assert caught.value.code == "log.damaged" and current_epoch(tmp_path) == 1
    assert end_epoch(tmp_path) == tmp_path / "epochs" / "1"
    log = reopen(tmp_path)
    assert log.origin.endswith("/2") and log.previous == note
    log.close()


def test_an_epoch_that_was_half_put_aside_is_put_aside_first(tmp_path: Path) -> None:
    """The process died between two renames: the old origin is never begun again."""
    log = reopen(tmp_path)
    start(log)
    log.close()
    names = sorted(p.name for p in tmp_path.iterdir() if p.name not in ("lock", "epochs"))
    assert len(names) > 4
    for moved in range(len(names) + 1):
        folder = tmp_path / "copies" / str(moved)
        shutil.copytree(tmp_path, folder, ignore=shutil.ignore_patterns("copies"))
        part = folder / "epochs" / "1.part"
        part.mkdir(parents=True)
        for name in names[:moved]:
            (folder / name).rename(part / name)
        log = reopen(folder)
        assert (log.origin, log.size) == ("agentbus.local.test/carol/2", 0)
        log.close()
        assert {p.name for p in (folder / "epochs" / "1").iterdir()} >= set(names)


def test_the_command_ends_an_epoch_of_a_log_that_nobody_writes(tmp_path: Path) -> None:
    log = reopen(tmp_path)
    start(log)
    done = CliRunner().invoke(cli, ["log", "epoch", str(tmp_path)])
    assert done.exit_code != 0 and isinstance(done.exception, LogError) and done.exception.code == "log.locked"
    log.close()
    done = CliRunner().invoke(cli, ["log", "epoch", str(tmp_path), "--json"])
    assert done.exit_code == 0 and '"epoch": 2' in done.output and current_epoch(tmp_path) == 2
