"""What several commands take, they read alike: points in time, and whom to believe."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from agentbus.cli.log.group import VERBS
from agentbus.cli.log.options import find_directory
from agentbus.cli.main import cli
from agentbus.cli.naming import Naming, as_named
from agentbus.cli.pin import pinned_root, root_key
from agentbus.cli.when import instant
from agentbus.errors import AgentBusError, ConfigError
from agentbus.wire.ids import b64


def test_an_instant_without_its_offset_is_refused_with_the_one_in_utc() -> None:
    """Whoever says since when a key was stolen, or from when on a log is looked at, must not be hours off."""
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert instant("2026-01-01T13:00+02:00", now) == instant("1h", now) == instant("60m", now)
    for text, means in (("2026-01-01", "2026-01-01T00:00:00Z"), ("2026-01-01T13:00", "2026-01-01T13:00:00Z")):
        with pytest.raises(ConfigError, match=means) as caught:
            instant(text, now)
        assert caught.value.code == "config.instant"
    for text in ("", "yesterday", "999999999d", "²d"):
        with pytest.raises(ConfigError) as caught:
            instant(text, now)
        assert caught.value.code == "config.instant"


def test_a_root_is_a_thumbprint_a_pin_or_a_bus_url_for_every_command() -> None:
    thumb = b64(bytes(range(32)))
    for given in (thumb, f"{thumb}.{thumb}", f"agentbus://host:1#{thumb}.{thumb}"):
        assert pinned_root(given) == thumb and root_key(given) == bytes(range(32))
    for given in ("", "agentbus://host:1", thumb[:-1]):
        with pytest.raises(ConfigError) as caught:
            pinned_root(given)
        assert caught.value.code == "config.no_root"


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes folders below an account's home, in which there is nothing yet."""
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path / "home"))

    def make(folder: str) -> Path:
        (tmp_path / folder).mkdir(parents=True)
        if folder.endswith("directory"):
            (tmp_path / folder / "directory.sqlite").touch()
        return tmp_path / folder

    return make


@pytest.mark.parametrize(
    "where",
    [
        "home/directory/directory",  # `up` without --data
        "export/directory",  # beside the logs, as in an export
        "export/directory/directory",
        "directory/directory",  # data beside the folder of the logs
    ],
)
def test_the_directorys_log_is_found_where_it_is_put(where: str, layout: Callable[[str], Path]) -> None:
    logs, there = [layout("export/planner"), layout("export/shop")], layout(where)
    assert find_directory(logs) == there and find_directory(logs[:1]) == there


def test_a_nearer_directory_comes_first_and_of_two_none_is_chosen(layout: Callable[[str], Path]) -> None:
    log, other = layout("here/logs/planner"), layout("there/logs/shop")
    layout("home/directory")
    near = layout("here/directory")
    assert find_directory([log]) == near and find_directory([log, other]) == near
    layout("there/directory")
    with pytest.raises(ConfigError) as caught:
        find_directory([log, other])
    assert caught.value.code == "config.directory"


def test_a_log_does_not_choose_the_directory_it_is_judged_against(layout: Callable[[str], Path]) -> None:
    """A node keeps the directory's log beside its own, and could keep a revocation out of it."""
    log = layout("logs/planner")
    (log / "directory.sqlite").touch()
    with pytest.raises(ConfigError) as caught:
        find_directory([log])
    assert caught.value.code == "config.directory"


@pytest.mark.parametrize("verb", [name for name in VERBS if name not in ("epoch", "redact", "check-proof")])
def test_every_verb_that_judges_a_log_looks_for_the_directory(
    verb: str, layout: Callable[[str], Path], tmp_path: Path
) -> None:
    more = {"prove": ["0"], "replay": ["nothing:nobody"], "export": ["--out", str(tmp_path / "out")]}
    done = CliRunner().invoke(cli, ["log", verb, str(layout("logs/planner")), *more.get(verb, [])])
    assert isinstance(done.exception, ConfigError) and done.exception.code == "config.directory"


@pytest.mark.parametrize("name", ["-mQLPUXokfCgHAk5XPfWGWks5vUe8VA76HqnoPotuxU", "-" * 43, "A" * 43])
def test_a_name_that_begins_with_a_dash_is_no_option(name: str) -> None:
    """Of digests and thumbprints one in 64 does; before and behind options, and as the value of one."""

    @click.command(cls=Naming)
    @click.argument("folder")
    @click.argument("message", callback=as_named)
    @click.argument("more", required=False)
    @click.option("--root")
    @click.option("--flag", is_flag=True)
    def take(**given: Any) -> None:
        click.echo(json.dumps(given))

    for arguments in (
        ["x", name, "more", "--root", name, "--flag"],
        ["--flag", "x", "--root", name, name, "more"],
        ["--root", name, "x", "--flag", name, "more"],
    ):
        done = CliRunner().invoke(take, arguments)
        assert json.loads(done.output) == {
            "folder": "x", "message": name, "more": "more", "root": name, "flag": True,
        }, done.output  # fmt: skip
    assert CliRunner().invoke(take, ["x", name, "--rooot", name]).exit_code == 2


@pytest.mark.parametrize(
    "command", ["log prove . NAME --directory .", "log redact . NAME --reason x", "directory key NAME"]
)
def test_commands_that_take_a_name_take_one_with_a_dash(command: str, layout: Callable[[str], Path]) -> None:
    """They go on to what is wrong with the rest."""
    arguments = command.replace("NAME", "-mQLPUXokfCgHAk5XPfWGWks5vUe8VA76HqnoPotuxU").split()
    assert isinstance(CliRunner().invoke(cli, arguments).exception, AgentBusError)
