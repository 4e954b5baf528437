"""Whatever is done to a log is found, by the verdict that names it.

Whoever has the disk repairs lengths, checksums, positions and tiles. Whoever has the log key as well signs anew: then
only what peers keep is left to tell, as far as it goes, and what lies behind is named.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from loglab import ORIGIN, Lab
from mutants import entries_of, mutate, rebuild, resign

from agentbus.log.checkpoint import read_checkpoint
from agentbus.log.history import History
from agentbus.log.read import read_log
from agentbus.log.report import Report
from agentbus.log.verify import Verification
from agentbus.log.witness import Notes

SEED = 20260101
CHANGES = ("delete", "insert", "reorder", "modify")


class Scene:
    """Carol's log of 40 entries, and dave who keeps her checkpoints over 8, 16, 24 and 32 of them."""

    def __init__(self, folder: Path) -> None:
        self.lab = lab = Lab()
        log = lab.open(folder / "carol")
        for name in ("erin", "carol"):
            log.put_blob(lab.statements[name])
        self.notes: list[bytes] = []
        while log.size < 40:
            lab.log(log, lab.request(), "dave", sent=False)
            lab.log(log, lab.answer(), "carol", sent=True)
            if log.size % 8 == 0 and log.size <= 32:
                self.notes.append(log.checkpoint())
        self.newest = log.checkpoint()
        log.close()
        self.folder, self.work = folder / "carol", folder / "work"
        self.work.mkdir()
        self.entries = entries_of(self.folder)
        self.history = History(lab.world.entries, lab.world.root.id)
        self.count = 0

    def judge(self, entries: list[bytes], note: bytes | None, covered: int, held: list[bytes]) -> Report:
        """What an auditor says who was given this log and has these notes of it."""
        self.count += 1
        folder = rebuild(self.folder, self.work / str(self.count), entries, note, covered)
        notes = Notes({"carol": [(self.lab.world["carol"].id, self.lab.key.public.raw)]})
        for at, one in enumerate(held):
            notes.add("dave", at, one)
        return Verification(read_log(folder), self.history, notes.of(ORIGIN)).run()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("mutations"))


counts = pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.campaign)])


def test_the_log_itself_is_good(scene: Scene) -> None:
    report = scene.judge(scene.entries, scene.newest, 40, scene.notes)
    assert report.ok and report["NOT-FORKED"].checked == report["NOT-TRUNCATED"].checked == 4
    assert "8 entries behind it are not covered" in report["NOT-FORKED"].reason


@counts
@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_by_who_has_the_disk_is_found_by_intact(scene: Scene, kind: str, count: int) -> None:
    random = Random(f"{SEED} {kind}")
    for _ in range(count):
        made = mutate(kind, scene.entries, random, 40)
        if made[:40] == scene.entries:
            continue  # a copy of the last entry behind it: nothing that was signed over has changed
        covered = min(len(made), 40)
        report = scene.judge(made, scene.newest, covered, [])
        assert report["INTACT"].ok is False, (SEED, kind)


@counts
def test_records_cut_off_are_found_by_intact_and_an_older_whole_log_by_not_truncated(scene: Scene, count: int) -> None:
    random = Random(f"{SEED} truncate")
    for _ in range(count):
        left = random.randrange(40)
        assert scene.judge(scene.entries[:left], scene.newest, left, [])["INTACT"].ok is False
        which = random.randrange(3)  # the log as it was when dave was sent one of his first three notes
        size = read_checkpoint(scene.notes[which]).size
        report = scene.judge(scene.entries[:size], scene.notes[which], size, scene.notes)
        assert report["INTACT"].ok and report["NOT-FORKED"].ok and report["NOT-TRUNCATED"].ok is False
        assert "32 entries" in report["NOT-TRUNCATED"].problems[-1]


@counts
def test_signed_anew_with_the_stolen_log_key_it_is_found_as_far_as_peers_hold_notes(scene: Scene, count: int) -> None:
    random = Random(f"{SEED} re-sign")
    for _ in range(count):
        kind = random.choice(CHANGES)
        made = mutate(kind, scene.entries, random, 32)
        if made[:32] == scene.entries[:32]:
            continue
        report = scene.judge(made, resign(made, ORIGIN, scene.lab.key), len(made), scene.notes)
        assert report["NOT-FORKED"].ok is False, (SEED, kind)
        assert any("dave entry" in text for text in report["NOT-FORKED"].problems)


@counts
def test_what_the_thief_changes_behind_the_newest_note_is_named_not_covered(scene: Scene, count: int) -> None:
    random = Random(f"{SEED} not covered")
    for _ in range(count):
        made = [*scene.entries[:33], *mutate("delete", scene.entries[33:], random, 7)]
        report = scene.judge(made, resign(made, ORIGIN, scene.lab.key), len(made), scene.notes)
        assert report["NOT-FORKED"].ok and report["NOT-TRUNCATED"].ok
        assert f"{len(made) - 32} entries behind it are not covered" in report["NOT-FORKED"].reason


@counts
def test_two_histories_that_were_shown_to_two_peers_are_found_whichever_is_handed_in(scene: Scene, count: int) -> None:
    random = Random(f"{SEED} fork")
    for _ in range(count):
        size = random.choice((16, 24, 32))
        other = mutate(random.choice(("reorder", "modify")), scene.entries[:size], random, size)
        if other == scene.entries[:size]:
            continue
        shown = resign(other, ORIGIN, scene.lab.key)
        for entries, note, held in (
            (scene.entries, scene.newest, [*scene.notes, shown]),
            (other, shown, [scene.notes[size // 8 - 1]]),
        ):
            report = scene.judge(entries, note, len(entries), held)
            assert report["NOT-FORKED"].ok is False, SEED
