"""What an auditor concludes, and from what an attacker did."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from loglab import ORIGIN, Lab

from agentbus.crypto.keys import SigningKey
from agentbus.log import entry
from agentbus.log.checkpoint import sign_checkpoint
from agentbus.log.history import History
from agentbus.log.read import read_log
from agentbus.log.records import encode_records
from agentbus.log.verify import Verification, verify_log
from agentbus.testing.draw import NOON
from agentbus.wire.frame import decode_frame
from agentbus.wire.header import decode_header
from agentbus.wire.limits import LIMITS, SECOND

POSITIVE = ("AUTHENTIC", "KEY-VALID", "AUTHORISED", "INTACT", "MISSING", "REDACTED")


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def folder(lab: Lab, tmp_path: Path) -> Path:
    log = lab.open(tmp_path / "carol")
    lab.write(log)
    log.close()
    return tmp_path / "carol"


def test_an_honest_log_is_good_in_every_respect(lab: Lab, folder: Path) -> None:
    report = lab.verify(folder)
    assert {name: report[name].ok for name in POSITIVE} == dict.fromkeys(POSITIVE, True), report.as_dict()
    assert report["AUTHENTIC"].checked == 4 and report["INTACT"].checked == 7
    assert report["COMPLETE"].ok and report["COMPLETE"].checked == 2 and report["REPLAYABLE"].ok
    assert report["NOT-FORKED"].ok is None and report["NOT-TRUNCATED"].reason
    assert report.ok


def test_a_flip_of_any_byte_of_any_segment_is_seen(lab: Lab, tmp_path: Path) -> None:
    """Somebody with the disk changes one byte, anywhere."""
    folder = tmp_path
    log = lab.open(folder)
    lab.write_small(log)
    log.close()
    assert lab.verify(folder).ok
    flips, history = 0, History(lab.world.entries, lab.world.root.id)
    for path in [*sorted(folder.glob("*.seg")), folder / "box-keys"]:
        good = path.read_bytes()
        for at in range(len(good)):
            bad = bytearray(good)
            bad[at] ^= 1 << (at % 8)
            path.write_bytes(bytes(bad))
            assert Verification(read_log(folder), history).run()["INTACT"].ok is False, f"{path.name} byte {at}"
            flips += 1
        path.write_bytes(good)
    assert flips > 1000
    assert lab.verify(folder).ok


def test_a_cut_at_any_byte_is_seen(lab: Lab, folder: Path) -> None:
    path = folder / "00000000.seg"
    good = path.read_bytes()
    for length in range(0, len(good), 11):
        path.write_bytes(good[:length])
        assert lab.verify(folder)["INTACT"].ok is False, length


def test_dropping_a_record_with_its_checksum_is_seen(lab: Lab, folder: Path) -> None:
    """The attacker repairs lengths and checksums: only the signed root is left to tell."""
    kept = [item.data for item in read_log(folder).entries()]  # type: ignore[union-attr]
    (folder / "00000000.seg").write_bytes(encode_records([*kept[:2], *kept[3:]]))
    assert lab.verify(folder)["INTACT"].ok is False


def test_a_log_signed_by_another_key_is_not_this_nodes(lab: Lab, folder: Path) -> None:
    """The attacker writes the whole log anew, with a checkpoint of its own."""
    said = read_log(folder).said
    assert said is not None
    (folder / "checkpoint").write_bytes(sign_checkpoint(ORIGIN, said.size, said.root, SigningKey(b"m" * 32)))
    verdict = lab.verify(folder)["INTACT"]
    assert verdict.ok is False and "no log key" in verdict.problems[0]


def test_without_a_checkpoint_nothing_vouches(lab: Lab, folder: Path) -> None:
    (folder / "checkpoint").unlink()
    assert lab.verify(folder)["INTACT"].ok is False


def test_another_root_key_makes_everything_negative(lab: Lab, folder: Path) -> None:
    report = verify_log(read_log(folder), events=lab.world.entries, root=bytes(32))
    assert report["AUTHENTIC"].ok is False and report["KEY-VALID"].ok is False and not report.ok
    assert any("is it the pinned one?" in problem for problem in report["INTACT"].problems)


def test_a_chain_that_widens_is_not_authorised(lab: Lab, tmp_path: Path) -> None:
    """Carol's node says it accepted what it never should have."""
    log = lab.open(tmp_path / "x")
    log.put_blob(lab.statements["erin"])
    log.put_blob(lab.statements["carol"])
    lab.log(log, lab.request("alice -[quote]-> erin -[quote,pay]-> dave"), "dave", sent=False)
    log.close()
    report = lab.verify(tmp_path / "x")
    assert report["AUTHENTIC"].ok and report["INTACT"].ok and report["KEY-VALID"].ok
    assert report["AUTHORISED"].ok is False and "reject.grant_widens" in report["AUTHORISED"].problems[0]


def test_refused_messages_are_authentic_and_no_more(lab: Lab, tmp_path: Path) -> None:
    log = lab.open(tmp_path / "x")
    log.put_blob(lab.statements["carol"])
    widened = lab.request("alice -[quote]-> erin -[quote,pay]-> dave")
    lab.log(log, widened, "dave", sent=False, code="reject.grant_widens")
    log.close()
    report = lab.verify(tmp_path / "x")
    assert report["AUTHENTIC"].checked == 2 and report["AUTHORISED"].ok is None and report.ok


def test_a_revocation_that_was_known_makes_acceptance_wrong_and_a_later_one_does_not(lab: Lab, tmp_path: Path) -> None:
    before = (lab.world.trust.size, 0)
    frames = lab.request()
    lab.world.revoke("instance", lab.world["dave"].running.handle)
    for name, (size, number), good in (("early", before, True), ("late", (lab.world.trust.size, 1), False)):
        log = lab.open(tmp_path / name)
        log.put_blob(lab.statements["erin"])
        log.put_blob(lab.statements["carol"])
        lab.log(log, frames, "dave", sent=False, directory_size=size, revocation_seq=number)
        log.close()
        assert lab.verify(tmp_path / name)["KEY-VALID"].ok is good


@pytest.mark.parametrize(("since", "good"), [(NOON - 1, False), (NOON, False), (NOON + 1, True)])
def test_a_theft_that_became_known_later_reaches_back(lab: Lab, tmp_path: Path, since: int, good: bool) -> None:
    """Nobody could know it when the message was accepted, so it is authentic; whether its key counted depends on when
    it was stolen. That the key was revoked as well takes nothing back.
    """
    log = lab.open(tmp_path / "x")
    log.put_blob(lab.statements["erin"])
    log.put_blob(lab.statements["carol"])
    lab.log(log, lab.request(), "dave", sent=False)
    log.close()
    dave = lab.world["dave"]
    lab.world.now += SECOND
    lab.world.event("key-state", dave.id, [dave.identity.id, "compromised", since])
    lab.world.event("epoch", dave.id, [2])
    lab.world.revoke("key", dave.identity.id)
    report = lab.verify(tmp_path / "x")
    assert report["KEY-VALID"].ok is good and report["AUTHENTIC"].ok is True


def test_a_body_is_missing_until_a_redaction_says_why(lab: Lab, tmp_path: Path) -> None:
    frames = lab.request()
    log = lab.open(tmp_path / "x")
    log.put_blob(lab.statements["erin"])
    log.put_blob(lab.statements["carol"])
    lab.log(log, frames, "dave", sent=False, bodies=False)
    log.checkpoint()
    assert lab.verify(tmp_path / "x")["MISSING"].ok is False
    for frame in frames:
        header = decode_header(decode_frame(frame, LIMITS).header, LIMITS)
        log.append(
            [entry.redaction(log.size, NOON, commitment=header.body_commitment, authority="user/alice", reason="asked")]
        )
    log.close()
    report = lab.verify(tmp_path / "x")
    assert report["MISSING"].ok and report["REDACTED"].checked == 2 and report.ok


def test_what_came_after_the_checkpoint_is_read_and_said_not_to_be_covered(lab: Lab, tmp_path: Path) -> None:
    log = lab.open(tmp_path / "x")
    lab.write(log)
    log.checkpoint()
    log.append([entry.closed(log.size, NOON)])
    verdict = lab.verify(tmp_path / "x")["INTACT"]
    assert verdict.ok and "1 entries after the checkpoint" in verdict.reason
    shutil.copytree(tmp_path / "x", tmp_path / "y")
    with (tmp_path / "y" / "00000000.seg").open("ab") as file:
        file.write(b"\0\0\0\x09torn")
    verdict = lab.verify(tmp_path / "y")["INTACT"]
    assert verdict.ok and "torn tail" in verdict.reason
    with (tmp_path / "y" / "00000000.seg").open("ab") as file:
        file.write(b"and whole")
    verdict = lab.verify(tmp_path / "y")["INTACT"]
    assert verdict.ok is False and "checksum" in verdict.problems[0]
    log.close()


def test_reading_changes_nothing(lab: Lab, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    lab.verify(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    lab.open(folder).close()


def test_a_message_dated_to_before_the_directory_it_was_judged_under_is_not_key_valid(lab: Lab, tmp_path: Path) -> None:
    """With a stolen key somebody signs today what is to look like last week: the directory's size gives it away."""
    log = lab.open(tmp_path)
    for name in ("erin", "carol"):
        log.put_blob(lab.statements[name])
    lab.world.now += 600 * SECOND
    lab.world.revoke("instance", b"somebody else")
    lab.log(log, lab.request(), "dave", sent=False)  # dated NOON, ten minutes before the directory's newest entry
    log.close()
    verdict = lab.verify(tmp_path)["KEY-VALID"]
    assert verdict.ok is False and "reject.back_dated" in verdict.problems[0]
