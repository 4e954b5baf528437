"""A long-running command takes the descriptors it may have."""

from __future__ import annotations

import subprocess
import sys

CHILD = """
import resource
from agentbus.cli.limits import WANTED, raise_descriptors
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
raise_descriptors()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def descriptors(soft: int, hard: int) -> list[int]:
    code = CHILD.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return [int(n) for n in done.stdout.split()]


def test_it_takes_what_the_system_lets_it_have_and_no_more() -> None:
    assert descriptors(256, 512) == [512, 512]
    assert descriptors(512, 512) == [512, 512]
