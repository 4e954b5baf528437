"""Randomness a page at a time."""

from __future__ import annotations

import os

from agentbus.runtime.entropy import PAGE, Pool


def test_no_byte_is_given_twice() -> None:
    """The source counts: what was handed out, put together, is what it gave, without a repetition."""
    given: list[bytes] = []

    def source(n: int) -> bytes:
        given.append(b"".join(i.to_bytes(4, "big") for i in range(len(given) * PAGE, len(given) * PAGE + n // 4)))
        return given[-1]

    pool = Pool(source)
    taken = [pool(n) for n in [32, 16, 32, 0, 4000, 32, 16, 4096] * 20]
    assert [len(t) for t in taken] == [32, 16, 32, 0, 4000, 32, 16, 4096] * 20
    words = [t[i : i + 4] for t in taken for i in range(0, len(t), 4)]
    assert len(set(words)) == len(words)


def test_more_than_a_page_comes_from_the_source() -> None:
    assert len(Pool()(PAGE + 1)) == PAGE + 1


def test_a_child_process_is_not_given_its_parents_bytes() -> None:
    pool = Pool()
    pool(16)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, pool(32))
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 32)
    os.close(read)
    os.close(write)
    assert len(theirs) == 32 and theirs != pool(32)
