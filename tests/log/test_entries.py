"""What an entry may be, and what is counted where it cannot be kept."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from loglab import ORIGIN, Lab

from agentbus.errors import Malformed
from agentbus.log import entry
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Dropped, EntryKind, Open, Refused
from agentbus.logstore.memory import MemoryLog
from agentbus.runtime.record import REJECTED_PER_SECOND, Recorder
from agentbus.testing.draw import NOON
from agentbus.wire.codec import pack
from agentbus.wire.limits import SECOND


def test_an_open_entry_may_name_the_epoch_before() -> None:
    first = entry.opened(0, NOON, node="carol", domain="local.test", software="x")
    assert decode_entry(first) == Open(EntryKind.OPEN, 0, NOON, "carol", "local.test", "x", None)
    later = decode_entry(entry.opened(0, NOON, node="carol", domain="local.test", software="x", previous=b"note"))
    assert isinstance(later, Open) and later.previous == b"note"


@pytest.mark.parametrize(
    "row",
    [
        [],
        ["1"],
        [0, 0, NOON],
        [99, 0, NOON],
        [10, 0, NOON],
        [10, 0, NOON, b"reason"],
        [10, -1, NOON, ""],
        [10, 0, 1 << 63, ""],
        [10, True, NOON, ""],
        [12, 0, NOON, b"short", 1],
        [9, 0, NOON, "n", "d", "s"],
        [11, 0, NOON, "torn", 1, 1, 1],
    ],
)
def test_an_entry_of_another_shape_is_refused(row: list[Any]) -> None:
    with pytest.raises(Malformed) as caught:
        decode_entry(bytes(pack(row)))
    assert caught.value.code == "malformed.entry"


def test_a_flood_of_bad_frames_is_ten_entries_a_second_and_a_number() -> None:
    """Somebody sends a thousand frames in a second that nobody signed."""
    store = MemoryLog(key=Lab().key, origin=ORIGIN)
    recorder = Recorder(store)
    for at in range(1000):
        recorder.rejected(b"junk %d" % at, connection=b"c" * 32, code="reject.x", now=NOON + at)
    recorder.rejected(b"other", connection=None, code="reject.x", now=NOON)
    recorder.rejected(b"later", connection=b"c" * 32, code="reject.x", now=NOON + SECOND)
    recorder.closed(NOON + SECOND)
    found = [decode_entry(data) for data in store]
    refused = [e for e in found if isinstance(e, Refused)]
    assert len(refused) == REJECTED_PER_SECOND + 2
    assert refused[0].digest == hashlib.sha256(b"junk 0").digest() and refused[0].sample == b"junk 0"
    counted = [e for e in found if isinstance(e, Dropped)]
    assert [(e.connection, e.frames) for e in counted] == [(b"c" * 32, 1000 - REJECTED_PER_SECOND)]
