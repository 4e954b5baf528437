"""What a long-running command asks of the system."""

from __future__ import annotations

import resource
from typing import Final

WANTED: Final = 65_536  # descriptors: a connection each, and three for each that was dialled


def raise_descriptors() -> None:
    """Take as many descriptors as the system lets this process have: the usual 1,024 would be 512 agents."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
