"""What logs keep of each other is evidence about them, and what nobody's key signed is none."""

from __future__ import annotations

import shutil
import threading
from itertools import islice
from pathlib import Path

import pytest
from directories import write_directory
from loglab import ORIGIN, Lab

from agentbus.audit import Evidence
from agentbus.audit.workers import Workers
from agentbus.crypto.keys import SigningKey
from agentbus.errors import LogError
from agentbus.log import entry
from agentbus.log.checkpoint import sign_checkpoint
from agentbus.log.read import read_log
from agentbus.log.verify import verify_log
from agentbus.testing.draw import NOON, chain_bytes, standing
from agentbus.wire.header import Kind
from agentbus.wire.limits import SECOND


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def data(lab: Lab, tmp_path: Path) -> Path:
    """Carol's log in two steps; dave keeps her checkpoint after each."""
    carol, dave = lab.open(tmp_path / "carol"), lab.open_peer(tmp_path / "dave")
    for _ in range(2):
        lab.write(carol)
        lab.keep(dave, carol.checkpoint())
        shutil.copytree(tmp_path / "carol", tmp_path / f"carol-{carol.size}")
    for log in (carol, dave):
        log.close()
    write_directory(tmp_path / "directory", lab.world.entries)
    return tmp_path


def judged(lab: Lab, data: Path, *names: str, **options: int) -> dict[str, bool | None]:
    evidence = Evidence.open(*(data / n for n in names), directory=data / "directory", root=lab.world.root.id)
    return {name: verdict.ok for name, verdict in evidence.verify(**options).items()}


def test_an_honest_log_agrees_with_its_peer(lab: Lab, data: Path) -> None:
    found = judged(lab, data, "carol", "dave")
    assert found["NOT-FORKED"] and found["NOT-TRUNCATED"]
    assert found.pop("COMPLETE") is False  # this dave's log holds what he keeps of carol, and nothing that he sent her
    assert False not in found.values()
    assert judged(lab, data, "carol")["NOT-TRUNCATED"] is None


def test_a_log_that_was_set_back_is_shorter_than_its_peer_knows(lab: Lab, data: Path) -> None:
    found = judged(lab, data, "carol-7", "dave")
    assert found["INTACT"] and found["NOT-FORKED"] and found["NOT-TRUNCATED"] is False


def test_two_histories_that_two_peers_keep_are_found_without_the_log_itself(lab: Lab, data: Path) -> None:
    """Carol has vanished with her disk; dave and erin compare what she signed."""
    erin = lab.open_peer(data / "erin", "erin")
    erin.put_blob(lab.statements["carol"])
    lab.keep(erin, sign_checkpoint(ORIGIN, 14, b"r" * 32, lab.key))
    erin.close()
    evidence = Evidence.open(data / "dave", data / "erin", directory=data / "directory", root=lab.world.root.id)
    verdict = evidence.verify()["NOT-FORKED"]
    assert verdict.ok is False and ORIGIN in verdict.problems[0] and "erin entry 0" in verdict.problems[0]


def test_a_note_that_the_log_key_did_not_sign_is_no_evidence(lab: Lab, data: Path) -> None:
    """Mallory writes notes about carol's log into a log of her own."""
    erin = lab.open_peer(data / "erin", "erin")
    forged = sign_checkpoint(ORIGIN, 14, b"r" * 32, SigningKey(b"m" * 32))
    lab.keep(erin, forged, b"junk", sign_checkpoint("agentbus.local.test/carol/2", 99, b"r" * 32, lab.key))
    erin.close()
    found = judged(lab, data, "carol", "erin")
    assert found["NOT-FORKED"] is None and found["NOT-TRUNCATED"] is None


def test_nobody_frames_a_log_by_giving_its_nodes_name_to_a_key_of_its_own(lab: Lab, data: Path) -> None:
    """Dave's own statement says that his node is called carol, too; with that key he signs what he likes."""
    mallory = SigningKey(b"m" * 32)
    lab.restart("dave", node="carol", log_key=mallory.public.raw)
    erin = lab.open_peer(data / "erin", "erin")
    erin.put_blob(lab.statements["dave"])
    lab.keep(erin, *(sign_checkpoint(ORIGIN, size, root * 32, mallory) for size, root in ((14, b"r"), (10**9, b"s"))))
    erin.close()
    found = judged(lab, data, "carol", "erin")
    assert found["NOT-FORKED"] is None and found["NOT-TRUNCATED"] is None
    evidence = Evidence.open(data / "carol", data / "erin", directory=data / "directory", root=lab.world.root.id)
    assert "2 checkpoints of its name under other log keys do not count" in evidence.verify()["NOT-FORKED"].reason
    with_dave = judged(lab, data, "carol-7", "dave", "erin")
    assert with_dave["NOT-FORKED"] and with_dave["NOT-TRUNCATED"] is False  # what carol's own key signed counts on


def test_another_log_of_the_same_principals_is_another_log(lab: Lab, data: Path) -> None:
    """Carol runs twice under one name, with a log key each: what the one signed says nothing of the other."""
    second = SigningKey(b"2" * 32)
    lab.restart("carol", log_key=second.public.raw)
    erin = lab.open_peer(data / "erin", "erin")
    erin.put_blob(lab.statements["carol"])
    lab.keep(erin, *(sign_checkpoint(ORIGIN, size, b"r" * 32, second) for size in (14, 10**9)))
    erin.close()
    found = judged(lab, data, "carol", "erin")
    assert found["NOT-FORKED"] is None and found["NOT-TRUNCATED"] is None and found["INTACT"]
    lab.keep(erin := lab.open_peer(data / "erin", "erin"), sign_checkpoint(ORIGIN, 14, b"s" * 32, second))
    erin.close()
    evidence = Evidence.open(data / "carol", data / "erin", directory=data / "directory", root=lab.world.root.id)
    forked = evidence.verify()["NOT-FORKED"]  # of the other one it is proved all the same
    assert forked.ok is False and all("signed two histories of 14 entries" in one for one in forked.problems)


def test_a_message_for_somebody_else_does_not_say_whose_log_it_is(lab: Lab, data: Path) -> None:
    """Dave sends carol what is erin's: she refuses it, and her log is no less hers."""
    log = lab.open(data / "refusing")
    lab.write_small(log)
    log.put_blob(lab.statements["erin"])
    frames = lab.envelope("dave", "erin", Kind.REQUEST, chain_bytes(standing(lab.world, "dave")), b"{}")
    lab.log(log, frames[:1], "dave", sent=False, code="reject.recipient")
    log.close()
    found = judged(lab, data, "refusing")
    assert found["INTACT"]


def test_several_processes_say_what_one_says(lab: Lab, data: Path, tmp_path: Path) -> None:
    """A log of more than two parts, with a fault in each of two of them."""
    log = lab.open(tmp_path / "long")
    log.put_blob(lab.statements["erin"])
    lab.write(log)
    while log.size < 17_000:
        log.append([entry.closed(at, NOON, reason=f"r{at}") for at in range(log.size, log.size + 1000)])
    log.close()
    seen: list[tuple[int, int]] = []
    for flip in (None, 100_000, 350_000):
        if flip is not None:
            path = tmp_path / "long" / "00000000.seg"
            bad = bytearray(path.read_bytes())
            bad[flip] ^= 1
            path.write_bytes(bytes(bad))
        evidence = Evidence.open(tmp_path / "long", directory=data / "directory", root=lab.world.root.id)
        seen.clear()
        several = evidence.verify(processes=2, progress=lambda done, of: seen.append((done, of)))
        alone = verify_log(read_log(tmp_path / "long"), events=lab.world.entries, root=lab.world.root.id)
        assert several.as_dict() == alone.as_dict()
        assert several["INTACT"].ok is (flip is None) and several["INTACT"].checked > 16_990
        assert seen == [(8192, 17_007), (16_384, 17_007), (17_007, 17_007)]


def test_a_worker_that_dies_is_an_error_and_no_verdict(lab: Lab, data: Path) -> None:
    log = read_log(data / "carol")
    with Workers(2, lab.world.entries, lab.world.root.id) as workers:
        for process in workers._processes:
            process.kill()
        with pytest.raises(LogError) as caught:
            list(workers.read(log, log.units(3), []))
        assert caught.value.code == "evidence.worker"


def test_a_log_is_followed_as_it_is_written(lab: Lab, data: Path) -> None:
    log = lab.open(data / "carol")
    evidence = Evidence.open(data / "carol", directory=data / "directory", root=lab.world.root.id)
    evidence.verify()
    wanted = threading.Event()
    turns = iter(range(100))

    def write_one() -> None:
        assert next(turns) < 99
        lab.log(log, lab.request()[:1], "dave", sent=False)
        wanted.set()

    found = list(islice(evidence.follow(wait=write_one, agent="dave"), 3))
    assert [(m.position, m.action, problem) for m, problem in found] == [(at, "Quote", "") for at in (14, 15, 16)]
    log.close()


def test_an_entry_dated_to_after_its_checkpoint_was_seen_is_not_key_valid(lab: Lab, data: Path) -> None:
    """The log's owner dates messages to tomorrow, when another key will count; dave had their checkpoint today."""
    log, erin = lab.open(data / "late"), lab.open_peer(data / "erin", "erin")
    lab.write(log)
    log.append([entry.closed(log.size, NOON + 3600 * SECOND)])
    lab.keep(erin, log.checkpoint())
    log.close()
    erin.close()
    evidence = Evidence.open(data / "late", data / "erin", directory=data / "directory", root=lab.world.root.id)
    verdict = evidence.verify()["KEY-VALID"]
    assert verdict.ok is False and "3600 s after erin entry 0" in verdict.problems[0]
