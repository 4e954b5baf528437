"""Every command speaks JSON to programs: what it answers, and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest

from agentbus.cli.main import cli, main


def leaves(command: click.Command, path: tuple[str, ...], parent: click.Context) -> Iterator[tuple[str, ...]]:
    """Every command that does something, by its words."""
    context = click.Context(command, info_name=path[-1] if path else "agentbus", parent=parent)
    if not isinstance(command, click.Group):
        yield path
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from leaves(child, (*path, name), context)


ROOT = click.Context(cli, info_name="agentbus")
COMMANDS = sorted(leaves(cli, (), ROOT))


def test_there_are_commands_to_walk() -> None:
    assert {("dev",), ("run",), ("agent", "create"), ("log", "verify"), ("grant", "revoke")} <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_takes_json_and_says_in_it_what_is_wrong(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*words, "--no-such-option", "--json"])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and err == ""
    error = json.loads(out)["error"]
    assert error["code"] == "usage.command_line" and "--no-such-option" in error["message"]
    assert f"agentbus {' '.join(words)} --help" in error["message"]

    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    assert "--json" in capsys.readouterr().out, "every command takes --json"
