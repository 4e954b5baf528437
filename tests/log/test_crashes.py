"""The machine fails at the worst moment: at every write, sync and rename of an append, or for want of space.

What was acknowledged is there afterwards, the log verifies, and no second history of one size was ever signed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loglab import ORIGIN, Lab

from agentbus.errors import LogError
from agentbus.log import entry
from agentbus.log.checkpoint import read_checkpoint
from agentbus.log.history import History
from agentbus.log.read import read_log
from agentbus.log.verify import Verification
from agentbus.log.witness import Notes
from agentbus.testing.draw import NOON
from tests.tools import need

ROOT = Path(__file__).resolve().parents[2]
CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "openat", "ftruncate")
"""What touches the disk when a group is appended and signed over; SQLite's own calls are among them."""

APPENDER = """
import os, sys
from pathlib import Path
from agentbus.crypto.keys import SigningKey
from agentbus.log import entry
from agentbus.logstore.files import FileLog
folder, seed, origin, now = Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3], int(sys.argv[4])
os.write(1, b"start\\n")
log = FileLog.open(folder, key=SigningKey(seed), origin=origin, now=now)
for turn in range(2):
    name = log.put_box(b"body %d" % turn)
    blob = log.put_blob(b"blob %d %d" % (turn, log.size))
    log.append([entry.unsent(log.size + at, now, digest=blob, reason="x%d" % at) for at in range(3)])
    os.write(1, b"ack %d %s\\n" % (log.size, name.hex().encode()))
    note = log.checkpoint()
    os.write(1, b"signed %s\\n" % note.hex().encode())
log.close()
os.write(1, b"closed\\n")
"""


class Bench:
    """A small log, and a program that appends to it under strace."""

    def __init__(self, folder: Path) -> None:
        self.lab, self.base, self.folder = Lab(), folder / "base", folder
        log = self.lab.open(self.base)
        self.lab.write(log)
        log.close()
        self.history = History(self.lab.world.entries, self.lab.world.root.id)
        self.before = (self.base / "checkpoint").read_bytes()
        self.count = 0

    def run(self, *inject: str) -> tuple[Path, list[bytes], str]:
        """Append to a copy; what it said until it ended, and what strace saw."""
        self.count += 1
        folder, seen = self.folder / str(self.count), self.folder / f"{self.count}.strace"
        shutil.copytree(self.base, folder)
        command = [
            "strace", "-f", "-qq", "-o", str(seen), "-e", f"trace={','.join(CALLS)}",
            *(part for one in inject for part in ("-e", f"inject={one}")),
            sys.executable, "-c", APPENDER, str(folder), self.lab.key.seed.hex(), ORIGIN, str(NOON),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)
        return folder, done.stdout.splitlines(), seen.read_text("utf-8", "replace")

    def calls(self) -> list[tuple[str, int]]:
        """Every call that touches the log's folder: its name, and the how-manieth of that name it is."""
        folder, said, seen = self.run()
        assert said[-1] == b"closed"
        found, counts, started = [], dict.fromkeys(CALLS, 0), False
        for line in seen.splitlines():
            match = re.match(r"\d+\s+(\w+)\(", line)
            if match is None:
                continue
            name = match[1]
            counts[name] = counts.get(name, 0) + 1
            started = started or 'write(1, "start' in line
            if started and (name != "openat" or ("O_CREAT" in line and str(folder) in line)):
                found.append((name, counts[name]))
        return found

    def check(self, folder: Path, said: list[bytes], what: str) -> None:
        """Nothing acknowledged is lost, what was signed is one history, and the log goes on."""
        notes = [self.before, *(bytes.fromhex(line.split()[1].decode()) for line in said if line.startswith(b"signed"))]
        acks = [line.split() for line in said if line.startswith(b"ack") and len(line.split()) == 3]
        log = self.lab.open(folder)
        try:
            assert log.size >= max([7, *(int(ack[1]) for ack in acks)]), what
            for ack in acks:
                assert log.box(bytes.fromhex(ack[2].decode())) is not None, what
            log.append([entry.closed(log.size, NOON)])
            notes.append(log.checkpoint())
        finally:
            log.close()
        held = Notes({"carol": [(self.lab.world["carol"].id, self.lab.key.public.raw)]})
        for at, note in enumerate([*notes, (folder / "checkpoint").read_bytes()]):
            held.add("peer", at, note)
        assert [read_checkpoint(note).size for note in notes] == sorted(read_checkpoint(note).size for note in notes)
        report = Verification(read_log(folder), self.history, held.of(ORIGIN)).run()
        assert report.ok and report["INTACT"].ok and report["NOT-FORKED"].ok and report["NOT-TRUNCATED"].ok, (
            what, report.as_dict(),
        )  # fmt: skip
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    need("strace", packages=("strace",))
    return Bench(tmp_path_factory.mktemp("crashes"))


def every(bench: Bench, step: int) -> Iterator[tuple[str, int]]:
    calls = bench.calls()
    assert len({name for name, _ in calls}) >= 5 and len(calls) > 40, calls
    yield from calls[::step]


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.campaign)])
def test_killed_at_every_write_sync_and_rename_of_an_append(bench: Bench, step: int) -> None:
    killed = 0
    for name, number in every(bench, step):
        folder, said, _ = bench.run(f"{name}:signal=KILL:when={number}")
        killed += said[-1:] != [b"closed"]
        bench.check(folder, said, f"SIGKILL at {name} {number}")
    assert killed


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_refused_at_every_write_sync_and_rename_of_an_append(bench: Bench, step: int, error: str) -> None:
    """The disk breaks or is full from one call on: nothing more is acknowledged, and opened again it goes on."""
    stopped = 0
    for name, number in every(bench, step):
        if name in ("unlink", "openat"):
            continue
        folder, said, _ = bench.run(f"{name}:error={error}:when={number}+")
        stopped += said[-1:] != [b"closed"]
        bench.check(folder, said, f"{error} at {name} {number}")
    assert stopped


def append_to(lab: Lab, folder: Path) -> None:
    """Open a log, append to it, sign, and let go of it."""
    log = lab.open(folder)
    try:
        log.append(
            [entry.rejected(log.size, NOON, connection=None, code="x", digest=bytes(32), sample=bytes(256))] * 40
        )
        log.checkpoint()
    finally:
        log.close()


def test_a_full_disk_is_a_typed_error_acknowledges_nothing_and_resumes(tmp_path: Path) -> None:
    """A file system of one megabyte, filled to the last byte."""
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("not run: mounting a tmpfs needs root and a kernel that allows it")
    try:
        lab, acknowledged = Lab(), 0
        log = lab.open(small / "log")
        lab.write(log)
        log.checkpoint()
        filler = small / "filler"
        filler.write_bytes(bytes(300_000))
        with pytest.raises(LogError) as caught:
            for _ in range(10_000):
                name = log.put_box(bytes(1000))
                log.append([entry.unsent(log.size, NOON, digest=name, reason="x")])
                acknowledged = log.size
        assert caught.value.code == "log.write" and "No space left" in str(caught.value)
        with pytest.raises(LogError):
            log.append([entry.closed(log.size, NOON)])
        with pytest.raises(LogError):
            log.checkpoint()
        log.close()
        with pytest.raises(LogError):
            append_to(lab, small / "log")  # still full
        filler.unlink()
        log = lab.open(small / "log")
        assert log.size >= acknowledged
        log.append([entry.closed(log.size, NOON)])
        log.checkpoint()
        log.close()
        report = lab.verify(small / "log")
        assert report.ok and report["INTACT"].ok
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def small(folder: Path) -> tuple[Lab, Path]:
    """A log of a few hundred bytes: three entries, a blob and a box, all covered by its checkpoint."""
    lab = Lab()
    log = lab.open(folder)
    log.put_blob(b"blob")
    log.put_box(b"body")
    log.append([entry.closed(at, NOON) for at in range(3)])
    log.close()
    return lab, folder


def test_a_flip_of_any_covered_byte_makes_the_log_read_only_and_nothing_is_cut(tmp_path: Path) -> None:
    lab, folder = small(tmp_path / "log")
    flips = 0
    for name in ("00000000.seg", "blobs-00000000.seg", "boxes-00000000.seg", "checkpoint", "tile/0/000.p/3"):
        path = folder / name
        good = path.read_bytes()
        for at in range(len(good)):
            bad = bytearray(good)
            bad[at] ^= 1 << at % 8
            path.write_bytes(bytes(bad))
            with pytest.raises(LogError) as caught:
                lab.open(folder)
            assert caught.value.code in ("log.damaged", "log.key", "log.forked"), (name, at)
            assert path.read_bytes() == bytes(bad) and not list(folder.glob("*.torn"))
            flips += 1
        path.write_bytes(good)
    assert flips > 400
    log = lab.open(folder)
    assert log.size == 3
    log.close()


@pytest.mark.parametrize("name", ["00000000.seg", "blobs-00000000.seg", "boxes-00000000.seg", "box-keys"])
def test_a_tail_torn_at_any_byte_is_cut_wherever_it_is(tmp_path: Path, name: str) -> None:
    """Power fails between two writes: any file may end anywhere behind what was synced."""
    lab, folder = small(tmp_path / "log")
    covered = (folder / name).stat().st_size
    log = lab.open(folder)
    log.put_blob(b"another blob")
    log.put_box(b"another body")
    log.append([entry.closed(3, NOON)])
    log._failed = "killed"
    log.close()
    whole = (folder / name).read_bytes()
    assert len(whole) > covered
    for length in range(covered, len(whole)):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        (copy / name).write_bytes(whole[:length])
        again = lab.open(copy)
        assert again.size >= 3
        found = again.put_box(b"after")
        again.append([entry.closed(again.size, NOON)])
        assert again.box(found) == b"after"
        again.close()
        assert not read_log(copy).damage
        shutil.rmtree(copy)
