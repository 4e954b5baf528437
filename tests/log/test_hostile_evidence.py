"""Logs and proofs that were made to deceive, crash, hang or rob whoever reads them."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from directories import write_directory
from loglab import ORIGIN, Lab
from mutants import entries_of, rebuild, renumber, resign

from agentbus.audit import Evidence, read_events
from agentbus.audit.export import copy_log
from agentbus.audit.files import read_notes
from agentbus.cli.main import cli
from agentbus.errors import LogError
from agentbus.log import entry
from agentbus.log.decoding import decode_entry
from agentbus.log.messageproof import check_message_proof, prove_message
from agentbus.log.read import read_log
from agentbus.log.records import MAX_RECORD, encode_records
from agentbus.log.scanning import scan_file
from agentbus.testing.draw import chain_bytes, draw_chain, standing
from agentbus.wire.codec import pack
from agentbus.wire.header import Kind
from agentbus.wire.ids import b64
from agentbus.wire.limits import SECOND

FAR = (1 << 63) - 1  # an instant beyond every calendar


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def folder(lab: Lab, tmp_path: Path) -> Path:
    log = lab.open(tmp_path / "carol")
    lab.write(log)
    log.close()
    write_directory(tmp_path / "directory", lab.world.entries)
    return tmp_path / "carol"


def evidence(lab: Lab, *logs: Path) -> Evidence:
    return Evidence.open(*logs, directory=logs[0].parent / "directory", root=lab.world.root.id)


# ── whose fault, and whose word ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("like", ["instance-id", "node"])
@pytest.mark.parametrize("handed_in", [True, False])
def test_nobody_is_blamed_for_what_a_namesake_signed(lab: Lab, tmp_path: Path, like: str, handed_in: bool) -> None:
    """Erin starts with dave's instance id, or says that she lives in his node, and leaves out what she sent carol."""
    if like == "node":
        lab.restart("erin", salt="again", node="dave")
    else:
        lab.restart("erin", salt="again", instance_id=lab.world["dave"].running.instance_id)
    carols = lab.open(tmp_path / "carol")
    carols.put_blob(lab.statements["carol"])
    own = chain_bytes(standing(lab.world, "erin"))
    lab.log(carols, lab.envelope("erin", "carol", Kind.REQUEST, own, b"{}")[:1], "erin", sent=False)
    frames = lab.request("alice -[quote]-> dave")[:1]
    lab.log(carols, frames, "dave", sent=False)
    carols.close()
    daves = lab.open_peer(tmp_path / "dave")
    lab.log(daves, frames, "dave", sent=True)
    daves.close()
    erins = lab.open_peer(tmp_path / "erin", "erin")
    erins.append([entry.opened(0, lab.world.now, node="erin", domain="local.test", software="test")])
    erins.close()
    write_directory(tmp_path / "directory", lab.world.entries)
    logs = [tmp_path / name for name in (("erin",) if handed_in else ()) + ("carol", "dave")]
    of = evidence(lab, *logs)
    of.verify()
    found = of.reconcile()
    assert not [str(one) for one in found.findings if one.party == "dave"]
    assert found.joined and (found.unjoined or [one.party for one in found.findings] == ["erin"])


def test_nobody_proves_that_another_accepted_a_message(lab: Lab, tmp_path: Path) -> None:
    """Dave asks carol, and writes into a log of his own that she said yes."""
    log = lab.open_peer(tmp_path / "dave")
    lab.log(log, lab.request("alice -[quote]-> dave")[:1], "dave", sent=False)
    log.close()
    proof = prove_message(read_log(tmp_path / "dave"), "0", events=lab.world.entries, root=lab.world.root.id)
    report, shown = check_message_proof(proof.encode(), root=lab.world.root.id)
    assert report["INTACT"].ok is False and "carol" in report["INTACT"].problems[0]
    assert shown.facts()["kept by"].endswith("/dave")
    assert lab.verify(tmp_path / "dave")["INTACT"].ok is False  # nor does a whole log


def test_a_refused_message_is_shown_with_nobodys_authority_and_no_body_but_its_own(lab: Lab, tmp_path: Path) -> None:
    """Carol's node refuses dave, and names a chain of alice's and a text of its own as if he had sent them."""
    log = lab.open(tmp_path / "carol")
    log.put_blob(lab.statements["carol"])
    own = chain_bytes(standing(lab.world, "dave"))
    alices = chain_bytes(draw_chain("alice -[pay]-> dave", world=lab.world))
    frames = lab.envelope("dave", "carol", Kind.REQUEST, own, b"{}")[:1]
    made_up = log.put_box(bytes(32) + b"I pay a million")
    lab.log(
        log, frames, "dave", sent=False, code="denied.scope", chain=log.put_blob(alices), body=made_up, bodies=False
    )
    log.close()
    write_directory(tmp_path / "directory", lab.world.entries)
    of = evidence(lab, tmp_path / "carol")
    assert of.verify()["INTACT"].ok is False
    (message,) = of.messages()
    assert message.user is None and message.body is None and message.path == ()
    proof = prove_message(
        read_log(tmp_path / "carol"), "0", events=lab.world.entries, root=lab.world.root.id, with_body=False
    )
    _, shown = check_message_proof(proof.encode(), root=lab.world.root.id)
    facts = shown.facts()
    assert facts["verdict"] == "denied.scope" and not facts["on behalf of"] and not facts["path"]


# ── what a file does to its reader ───────────────────────────────────────────────────────────────────────────────────


def test_verifying_imports_nothing_from_the_folder_it_is_started_in(
    lab: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export says `verify from here`: a module of a name that agentbus imports lies beside the logs."""
    trap = 'open("taken", "w").close()\n'
    for name in ("msgpack.py", "pickle.py", "gc.py", "struct.py"):
        (folder.parent / name).write_text(trap)
    monkeypatch.chdir(folder.parent)
    assert evidence(lab, folder).verify(processes=2).ok
    assert not Path("taken").exists()


def test_an_entry_that_no_bundle_holds_is_a_verdict_and_no_crash(lab: Lab, folder: Path) -> None:
    note = pack((10, 7, lab.world.now, "x" * 70_000))
    entries = [*entries_of(folder), bytes(note)]
    (folder / "00000000.seg").write_bytes(encode_records(entries))
    (folder / "checkpoint").write_bytes(resign(entries, ORIGIN, lab.key))
    report = lab.verify(folder)
    assert report["INTACT"].ok is False and any("70017 bytes" in text for text in report["INTACT"].problems)


def test_instants_beyond_the_calendar_hide_no_log(lab: Lab, folder: Path, tmp_path: Path) -> None:
    """What was refused may be dated to anything: whoever lists or exports all logs must not fall over one of them."""
    rows = [list(decode_entry(data)) for data in entries_of(folder)]
    for row in rows:
        if row[0] in (2, 5):
            row[2] = FAR
        if row[0] == 2:
            row[11] = "reject.x"
    entries = [bytes(pack(row)) for row in rows]
    far = rebuild(folder, tmp_path / "far", entries, resign(entries, ORIGIN, lab.key), len(entries))
    arguments = [str(far), "--directory", str(tmp_path / "directory"), "--root", b64(lab.world.root.id)]
    for command in (
        ["show"],
        ["report", "--out", str(tmp_path / "page.html")],
        ["export", "--out", str(tmp_path / "out")],
    ):
        done = CliRunner().invoke(cli, ["log", *command, *arguments])
        assert "fault" not in done.output and not isinstance(done.exception, ValueError), (command, done.output)
    assert (tmp_path / "out" / "messages.jsonl").read_text().count("9999-12-31") == 2
    proof = prove_message(read_log(far), "1", events=lab.world.entries, root=lab.world.root.id)
    assert check_message_proof(proof.encode(), root=lab.world.root.id)[1].facts()["judged"].startswith("9999")


@pytest.mark.parametrize("what", ["zeros", "length"])
def test_a_segment_of_a_terabyte_takes_no_more_memory_than_a_record(tmp_path: Path, what: str) -> None:
    """A hole costs whoever sends it nothing."""
    path = tmp_path / "00000000.seg"
    path.write_bytes(b"\0" * 8 if what == "zeros" else MAX_RECORD.to_bytes(4, "big") + b"abcd")
    os.truncate(path, 1 << 40)
    tracemalloc.start()
    with path.open("rb") as file:
        found = next(scan_file(file, 0, 1 << 40))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "record" in str(found) and most < 8 * MAX_RECORD


def test_a_million_bad_records_cost_one_reading(tmp_path: Path) -> None:
    class Counted(io.BytesIO):
        read_bytes = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.read_bytes += len(data)
            return data

    junk = (b"\0\0\0\1" + b"crc!" + b"x") * 100_000
    file = Counted(junk)
    assert sum(1 for _ in scan_file(file, 0, len(junk))) == 100_000
    assert file.read_bytes < 3 * len(junk)


def test_links_pipes_and_devices_in_a_log_are_neither_read_nor_exported(lab: Lab, folder: Path, tmp_path: Path) -> None:
    """An export of somebody's log must not carry the exporter's own files away, nor wait for a pipe."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"private key")
    for name in ("box-keys", "checkpoint"):
        (folder / name).unlink()
    (folder / "box-keys").symlink_to(secret)
    (folder / "checkpoint").symlink_to("/dev/zero")
    (folder / "blobs-00000001.seg").symlink_to(secret)
    (folder / "tile" / "stolen").symlink_to(secret)
    os.mkfifo(folder / "tile" / "never")
    os.mkfifo(folder / "state.sqlite.new")
    log = read_log(folder)
    assert lab.verify(folder)["INTACT"].ok is False
    copy_log(log, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_symlink() and (path.is_dir() or b"private key" not in path.read_bytes()), path
    shutil.rmtree(folder / "tile")
    (tmp_path / "home").mkdir()
    secret = secret.rename(tmp_path / "home" / "secret")
    (folder / "tile").symlink_to(tmp_path / "home")
    copy_log(read_log(folder), tmp_path / "again")
    assert not (tmp_path / "again" / "tile").exists()
    (folder / "00000000.seg").unlink()
    (folder / "00000000.seg").symlink_to(secret)
    with pytest.raises(LogError):
        read_log(folder)


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE {0}(seq INTEGER, origin TEXT, {1}); INSERT INTO {0} VALUES (1, '', 1 << 40)",
        "CREATE TABLE {0}(seq INTEGER, origin TEXT, {1}); INSERT INTO {0} VALUES (1, '', 'text')",
        "CREATE VIEW {0} AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
        " SELECT x AS seq, '' AS origin, x'00' AS {1} FROM n",
        "CREATE TABLE {0}(seq INTEGER, origin TEXT, {1} AS (zeroblob(900000000))); INSERT INTO {0} VALUES (1, '')",
    ],
)
def test_a_database_that_is_a_trap_is_no_evidence(tmp_path: Path, schema: str) -> None:
    """A number that becomes a terabyte of zeros, a view that never ends, a column that is computed."""
    for name, table, column in (("directory.sqlite", "entries", "statement"), ("state.sqlite", "peers", "note")):
        with closing(sqlite3.connect(tmp_path / name)) as db:
            db.executescript(schema.format(table, column))
    with pytest.raises(LogError) as caught:
        read_events(tmp_path)
    assert caught.value.code == "evidence.no_directory"
    assert read_notes(tmp_path) == []


def test_a_body_writes_no_lines_of_ours_and_gives_a_terminal_no_orders(lab: Lab, tmp_path: Path) -> None:
    log = lab.open(tmp_path / "carol")
    log.put_blob(lab.statements["carol"])
    body = "x\n12:00:00.000 carol 9 request erin → carol Pay ok\x1b]0;title\x07\x9b2J".encode()
    lab.log(log, lab.request("alice -[quote]-> dave", body=body)[:1], "dave", sent=False)
    log.close()
    write_directory(tmp_path / "directory", lab.world.entries)
    arguments = [str(tmp_path / "carol"), "--directory", str(tmp_path / "directory"), "--root", b64(lab.world.root.id)]
    done = CliRunner().invoke(cli, ["log", "show", "--body", *arguments], color=True)
    assert done.exit_code == 0 and "\x1b" not in done.output and "\x9b" not in done.output
    assert [line[:1] for line in done.output.splitlines()].count("1") == 1  # a line of ours begins with a time


def test_what_was_written_anew_behind_an_old_checkpoint_is_not_called_intact(lab: Lab, tmp_path: Path) -> None:
    """Who has the disk and not the log key puts the first checkpoint back, which any peer may have, and rewrites."""
    log = lab.open(tmp_path / "carol")
    first = log.checkpoint()
    lab.write(log)
    later = lab.world.now + 300 * SECOND
    log.append([entry.gap(log.size, later, reason="torn", durable=0, cut=1)])
    log.close()
    assert lab.verify(tmp_path / "carol")["INTACT"].ok is True
    entries = entries_of(tmp_path / "carol")
    changed = renumber([*entries[:5], *entries[6:]])  # without the frame that carol refused
    anew = rebuild(tmp_path / "carol", tmp_path / "anew", changed, first, 0)
    found = lab.verify(anew)["INTACT"]
    assert found.ok is None and "300 s" in found.reason
