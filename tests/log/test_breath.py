"""Long work of a log lets the loop have its turns, and comes to the same."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash, root_of
from agentbus.log.checkpoint import verify_checkpoint
from agentbus.logstore import breath
from agentbus.logstore.memory import MemoryLog


@pytest.mark.parametrize("size", [0, 1, breath.GROUP - 1, breath.GROUP, breath.GROUP + 1, 5 * breath.GROUP + 7])
def test_checkpoints_from_several_threads_cover_the_same_entries(size: int) -> None:
    """Two that ran into each other would hash an entry twice, and sign a tree that nobody else can build."""
    key = SigningKey(bytes(32))
    log = MemoryLog(key=key, origin="agentbus.local.test/anna/1")
    entries = [b"entry %d" % n for n in range(size)]
    log.append(entries)
    with ThreadPoolExecutor(4) as pool:
        notes = {done.result() for done in [pool.submit(log.checkpoint) for _ in range(8)]}
    assert len(notes) == 1
    said = verify_checkpoint(notes.pop(), log.origin, key.public)
    assert (said.size, said.root) == (size, root_of([leaf_hash(data) for data in entries]))
    for first in {0, size // 2, size}:
        assert log.root_at(first) == root_of([leaf_hash(data) for data in entries[:first]])
    assert log.root_at(size + 1) is None


def test_whoever_called_it_in_the_main_thread_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[str] = []
    monkeypatch.setattr(breath.time, "sleep", lambda seconds: slept.append(threading.current_thread().name))
    breath.take()
    assert not slept
    other = threading.Thread(target=breath.take, name="other")
    other.start()
    other.join()
    assert slept == ["other"]
