"""One message, proved to somebody who has nothing but the pinned root key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from directories import write_directory
from loglab import Lab

from agentbus.cli.main import cli
from agentbus.errors import AgentBusError, LogError, Malformed
from agentbus.log.messageproof import MessageProof, check_message_proof, prove_message
from agentbus.log.read import read_log
from agentbus.wire.ids import b64


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def folder(lab: Lab, tmp_path: Path) -> Path:
    log = lab.open(tmp_path / "carol")
    lab.write(log)
    log.close()
    return tmp_path / "carol"


def made(lab: Lab, folder: Path, wanted: str = "1", *, with_body: bool = True) -> bytes:
    root = lab.world.root.id
    proof = prove_message(read_log(folder), wanted, events=lab.world.entries, root=root, with_body=with_body)
    return proof.encode()


def test_a_proof_holds_with_nothing_but_the_root_key(lab: Lab, folder: Path) -> None:
    for position, direction in ((1, "received"), (3, "sent")):
        report, shown = check_message_proof(made(lab, folder, str(position)), root=lab.world.root.id)
        assert report.ok, report.as_dict()
        judged = {name for name, verdict in report.items() if verdict.ok}
        assert judged == {"AUTHENTIC", "KEY-VALID", "AUTHORISED", "INTACT", "MISSING"}
        assert shown.entry.position == position and shown.size == 7 and shown.origin.endswith("/carol/1")
        facts = shown.facts()
        assert facts["entry"] == f"{position} of 7" and ("judged" in facts) == (direction == "received")
    assert shown.body == b"{}"
    by_id = MessageProof.decode(made(lab, folder, shown.header.message_id.hex()))
    assert by_id == MessageProof.decode(made(lab, folder, b64(shown.digest)))


def test_it_reveals_no_other_message_and_no_body_that_is_not_to_be_shown(lab: Lab, folder: Path) -> None:
    log = read_log(folder)
    entries = [item.data for item in log.entries()]  # type: ignore[union-attr]
    proof = MessageProof.decode(made(lab, folder, "1", with_body=False))
    held = b"".join(
        [proof.entry, proof.chain, proof.handover or b"", *proof.statements, *proof.directory, *proof.log_proof.path]
    )
    for at, data in enumerate(entries):
        assert (data in held) == (at == 1)
    assert proof.salted_body is None and b'{"n": 1}' not in made(lab, folder, "1", with_body=False)
    report, shown = check_message_proof(proof.encode(), root=lab.world.root.id)
    assert report.ok and report["MISSING"].ok is None and shown.body is None


def test_whatever_is_changed_the_proof_does_not_hold(lab: Lab, folder: Path) -> None:
    """Every character of the file in turn: another one, and the file is no proof or says no."""
    good, root = made(lab, folder), lab.world.root.id
    refused = 0
    for at in range(0, len(good), 7):
        bad = bytearray(good)
        bad[at] = ord("B") if bad[at] != ord("B") else ord("C")
        try:
            report, _ = check_message_proof(bytes(bad), root=root)
        except AgentBusError:
            refused += 1
        else:
            assert not report.ok, f"byte {at}: {good[at - 20 : at + 20]!r}"
    assert refused > 100


@pytest.mark.parametrize("part", ["other-entry", "no-revocations", "other-body", "other-root", "cut-directory"])
def test_parts_of_other_proofs_do_not_fit(lab: Lab, folder: Path, part: str) -> None:
    proof, root = MessageProof.decode(made(lab, folder)), lab.world.root.id
    other = MessageProof.decode(made(lab, folder, "2"))
    if part == "other-entry":
        proof = proof._replace(entry=other.entry)
    elif part == "other-body":
        proof = proof._replace(salted_body=bytes(len(other.salted_body or b"")))
    elif part == "cut-directory":
        proof = proof._replace(directory=proof.directory[:-1])
    elif part == "other-root":
        root = bytes(32)
    else:
        lab.world.revoke("instance", lab.world["dave"].running.handle)
        lab.log(store := lab.open(folder.parent / "late"), lab.request(), "dave", sent=False)
        for name in ("erin", "carol"):
            store.put_blob(lab.statements[name])
        store.close()
        proof = MessageProof.decode(made(lab, folder.parent / "late", "0"))
    report, _ = check_message_proof(proof.encode(), root=root)
    assert not report.ok
    asks = any("is it the pinned one?" in text for verdict in report.values() for text in verdict.problems)
    assert asks == (part == "other-root")


def test_what_cannot_be_proved_says_why(lab: Lab, folder: Path) -> None:
    with pytest.raises(LogError) as caught:
        made(lab, folder, "nothing")
    assert caught.value.code == "log.no_message"
    log = lab.open(folder)
    lab.log(log, lab.request()[:1], "dave", sent=False)
    with pytest.raises(LogError) as caught:
        made(lab, folder, "7")
    assert caught.value.code == "log.not_covered"
    log.close()
    assert check_message_proof(made(lab, folder, "7"), root=lab.world.root.id)[0].ok


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x"}', "null", "\xff"])
def test_what_is_no_proof(text: str, lab: Lab) -> None:
    with pytest.raises(Malformed):
        check_message_proof(text.encode("latin-1"), root=lab.world.root.id)


def test_the_commands(lab: Lab, folder: Path) -> None:
    root, directory = b64(lab.world.root.id), write_directory(folder.parent / "directory", lab.world.entries)
    out, run = folder.parent / "one.json", CliRunner()
    arguments = ["log", "prove", str(folder), "1", "--directory", str(directory), "--root", root, "--out", str(out)]
    done = run.invoke(cli, [*arguments, "--json"])
    assert done.exit_code == 0 and json.loads(done.output)["ok"] is True
    done = run.invoke(cli, ["log", "check-proof", str(out), "--root", root])
    assert done.exit_code == 0 and "AUTHENTIC      yes" in done.output and "user/alice → erin → dave" in done.output
    done = run.invoke(cli, ["log", "check-proof", str(out), "--root", b64(bytes(32)), "--json"])
    assert done.exit_code == 1 and json.loads(done.output)["ok"] is False
