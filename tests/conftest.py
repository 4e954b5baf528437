"""For every test: whoever runs them keeps their own profile, keys and logs to themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.figures import figure, pytest_terminal_summary  # noqa: F401  # a fixture and a hook for all tests
from tests.unheard import swept, unheard  # noqa: F401  # for every test


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where nothing else is said, agentbus finds an empty folder instead of the user's configuration."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AGENTBUS_")]:
            patch.delenv(name)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield
