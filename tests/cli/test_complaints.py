"""What went wrong is said of what it was: a name that was given, or the system under it."""

from __future__ import annotations

import json

import pytest

from agentbus.cli.output import complain

CASES = [
    (FileNotFoundError(2, "No such file or directory", "/nowhere/x"), 2, "config.path", "/nowhere/x cannot be used"),
    (PermissionError(13, "Permission denied", "/root/x"), 2, "config.path", "mend its permissions"),
    (TimeoutError(), 1, "unavailable.system", "TimeoutError; try again"),
    (ConnectionResetError(104, "Connection reset by peer"), 1, "unavailable.system", "Connection reset by peer"),
    (OSError(24, "Too many open files"), 1, "unavailable.system", "Too many open files"),
]


@pytest.mark.parametrize(("error", "status", "code", "says"), CASES, ids=lambda of: type(of).__name__)
def test_an_error_of_the_system_blames_no_file_that_was_not_named(
    error: OSError, status: int, code: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complain(error, as_json=True) == status
    told = json.loads(capsys.readouterr().out)["error"]
    assert told["code"] == code
    assert says in told["message"]
    assert "name another" not in told["message"] or code == "config.path"
