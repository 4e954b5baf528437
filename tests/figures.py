"""Figures that tests report and never assert: ``figure("what", 12.3, "MiB")``; printed at the end of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

_reported: list[str] = []


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, float, str], None]:
    """Reports one number of this test."""

    def report(what: str, value: float, unit: str) -> None:
        _reported.append(f"{request.node.nodeid}: {what} {value:.1f} {unit}")

    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _reported:
        terminalreporter.section("figures, which gate nothing")
        for line in _reported:
            terminalreporter.write_line(line)
