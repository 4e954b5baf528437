"""One process that reads parts of a log for :mod:`agentbus.audit.workers`, until its pipe is closed."""

from __future__ import annotations

import pickle
import sys
from contextlib import suppress

from agentbus.audit.workers import read_message, write_message
from agentbus.log.history import History
from agentbus.log.sweep import Sweep


def main() -> None:
    """Take the job, then units; give parts. Only the process that started this one writes to the pipe."""
    source, out = sys.stdin.buffer, sys.stdout.buffer
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        log, events, root, sizes = pickle.loads(read_message(source))
        sweep = Sweep(log, History(events, root), sizes)
        while True:
            write_message(out, pickle.dumps(sweep.read(pickle.loads(read_message(source)))))


if __name__ == "__main__":
    main()
