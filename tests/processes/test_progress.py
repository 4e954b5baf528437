"""Long work shows how far it is on a terminal, and nothing but its answer in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from agentbus.wire.ids import b64
from tests.log.directories import write_directory
from tests.log.loglab import Lab


def read_all(terminal: int) -> bytes:
    """Everything that is written to a terminal until its other side is closed."""
    found = b""
    while True:
        try:
            data = os.read(terminal, 65_536)
        except OSError:  # how Linux says that the other side is closed
            return found
        if not data:
            return found
        found += data


def test_verifying_shows_its_progress_on_a_terminal_and_not_in_a_pipe(tmp_path: Path) -> None:
    lab = Lab()
    log = lab.open(tmp_path / "carol")
    lab.write(log)
    log.close()
    directory = write_directory(tmp_path / "directory", lab.world.entries)
    words = [sys.executable, "-m", "agentbus.cli.main", "log", "verify", str(tmp_path / "carol")]
    words += ["--directory", str(directory), "--root", b64(lab.world.root.id)]
    piped = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert piped.returncode == 0 and "verifying" not in piped.stdout + piped.stderr, piped
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs) as shown:
            os.close(theirs)
            seen = read_all(ours).decode()
            assert shown.stdout is not None and shown.stdout.read().decode() == piped.stdout
    finally:
        os.close(ours)
    assert shown.returncode == 0 and "verifying" in seen and "100%" in seen, seen
