"""The programs of ``examples/`` as modules, and a model that they may ask."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.model import Model, running_model

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """They import each other as they do where they lie."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for name in [path.stem for path in EXAMPLES.glob("*.py")]:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    with running_model() as server:
        yield server
