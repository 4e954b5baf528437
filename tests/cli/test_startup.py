"""What a start does not load, and the public names: each in one list, known to type checkers and at run time alike."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import agentbus
from agentbus.cli.log.group import VERBS, log
from agentbus.cli.main import COMMANDS, cli

HEAVY = ("pydantic", "zmq", "nacl", "msgpack", "asyncio", "rich", "platformdirs", "sqlite3")
PIN = "A" * 43 + "." + "A" * 43

_REPORT = f"""
import sys
from agentbus.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("loaded:", *sorted(set(sys.modules) & {set(HEAVY)}), file=sys.stderr)
"""


def loaded(code: str, *arguments: str, home: Path) -> list[str]:
    env = {**os.environ, "AGENTBUS_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=env, check=True, timeout=60
    )
    return done.stderr.strip().splitlines()[-1].split()[1:]


def test_importing_the_package_loads_nothing_of_it(tmp_path: Path) -> None:
    code = "import agentbus, sys; print('loaded:', *(m for m in sys.modules if 'agentbus.' in m), file=sys.stderr)"
    assert loaded(code, home=tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("--help",),
        ("run", "--help"),
        ("agent", "create", "--help"),
        ("log", "verify", "--help"),
        ("init", f"agentbus://localhost:7400#{PIN}"),
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_a_command_that_needs_no_bus_loads_none(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Each command's module imports at its top what it is called with, and no more."""
    assert loaded(_REPORT, *arguments, home=tmp_path) == []


@pytest.mark.parametrize("arguments", [("--help",), ("log", "--help")], ids=lambda arguments: " ".join(arguments))
def test_a_list_of_commands_loads_none_of_them(arguments: tuple[str, ...], tmp_path: Path) -> None:
    report = "set(m for m in sys.modules if m.startswith('agentbus.'))"
    known = {"agentbus.errors", "agentbus.cli", "agentbus.cli.log"}
    known |= {f"agentbus.cli.{name}" for name in ("main", "output", "hints", "log.group")}
    code = _REPORT.replace(f"set(sys.modules) & {set(HEAVY)}", f"{report} - {known}")
    assert loaded(code, *arguments, home=tmp_path) == []


def test_the_lists_of_commands_say_what_each_says_itself() -> None:
    for group, told in ((cli, {n: c[2] for n, c in COMMANDS.items()}), (log, {n: v[1] for n, v in VERBS.items()})):
        context = click.Context(group)
        commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
        assert told == {name: c.get_short_help_str(1000) for name, c in commands.items() if c is not None}


# ── the names ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_public_name_is_there_and_comes_from_the_place_a_type_checker_is_told() -> None:
    tree = ast.parse(Path(agentbus.__file__).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(told) == sorted(agentbus.__all__)
    for name, module in told.items():
        assert module is not None
        assert getattr(agentbus, name) is getattr(sys.modules[module], name), name
    assert set(agentbus.__all__) <= set(dir(agentbus))


def test_no_public_name_is_kept_that_the_list_does_not_have() -> None:
    assert sorted(agentbus._HOME_OF) == sorted(agentbus.__all__)
    assert len(set(agentbus.__all__)) == len(agentbus.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Buss'"):
        agentbus.Buss  # type: ignore[attr-defined]  # noqa: B018


def test_what_stands_below_the_bus_still_reaches_it() -> None:
    """``Agent.run`` and ``Identity.enrol`` load the bus by name, whichever module was imported first."""
    code = """
import sys
from agentbus.identity import Identity
from agentbus.runtime.agent import Agent
assert "agentbus.bus" not in sys.modules
for call in (Agent("planner").run, lambda: __import__("asyncio").run(Identity.enrol("planner", token="no"))):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error.code)
"""
    env = {**os.environ, "AGENTBUS_HOME": "/nonexistent"}
    env.pop("AGENTBUS_URL", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True, timeout=60)
    assert done.stdout.splitlines() == ["ConfigError config.no_bus", "ConfigError config.no_bus"]
