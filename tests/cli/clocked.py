"""``agentbus`` whose clock is off by as many seconds as the file named by CLOCK says at that moment."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from agentbus.cli.main import main
from agentbus.runtime.clock import SystemClock

OFFSET = Path(os.environ["CLOCK"])


def now(self: SystemClock) -> int:
    return time.time_ns() // 1000 + int(OFFSET.read_text() or "0") * 1_000_000


if __name__ == "__main__":
    SystemClock.now = now  # type: ignore[method-assign]
    main(sys.argv[1:])
