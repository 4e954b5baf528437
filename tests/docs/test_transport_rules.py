"""Each rule of docs/reference/transport.md names the tests that show it, and they exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "reference" / "transport.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| seen ")
]


def test_every_row_was_read() -> None:
    assert len(ROWS) == 13
    assert all(len(row) == 3 and all(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_a_rule_is_shown_by_tests_that_exist(row: list[str]) -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row[2])
    assert named and len(named) == row[2].count("::")
    for path, name in named:
        assert re.search(rf"def {name}\b", (ROOT / path).read_text("utf-8")), name
