"""One process that reads parts of a log for :mod:`agentbus.audit.workers`, until its pipe is closed."""

from __future__ import annotations

import gc
import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress

from agentbus.audit.workers import read_message, write_message
from agentbus.log.history import History
from agentbus.log.index import Piece
from agentbus.log.part import Part
from agentbus.log.read import Indexed, LogFolder
from agentbus.log.scanning import Unit
from agentbus.log.sweep import Sweep


class Worker:
    """What it does; each method is one question of :class:`agentbus.audit.workers.Workers`.

    Args:
        events: The directory's log.
        root: The pinned root key's thumbprint.
    """

    def __init__(self, events: Sequence[bytes], root: bytes) -> None:
        self._history = History(events, root)

    def open(self, log: LogFolder) -> None:
        """What comes next is about this log."""
        self._log = log
        self._pieces: list[tuple[Indexed, Piece]] = []

    def index(self, part: Indexed) -> Piece:
        """The index of one segment."""
        return self._log.index(part)

    def take(self, part: Indexed, piece: Piece) -> None:
        """The index of one segment, whoever made it."""
        self._pieces.append((part, piece))

    def begin(self, sizes: Sequence[int]) -> None:
        """All of the index is here; roots are wanted at these sizes."""
        self._log.adopt(self._pieces)
        self._sweep = Sweep(self._log, self._history, sizes)

    def read(self, unit: Unit) -> Part:
        """What one part holds."""
        return self._sweep.read(unit)


def main() -> None:
    """Take the job, then questions; give answers. Only the process that started this one writes to the pipe."""
    source, out = sys.stdin.buffer, sys.stdout.buffer
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        worker = Worker(*pickle.loads(read_message(source)))
        gc.freeze()  # what is here stays: the collector need not look at it again and again
        while True:
            method, *values = pickle.loads(read_message(source))
            write_message(out, pickle.dumps(getattr(worker, method)(*values)))


if __name__ == "__main__":
    main()
