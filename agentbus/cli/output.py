"""How commands speak: one line for people, one JSON value for programs, errors that say what, why and what to do."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentbus.errors import AgentBusError, ConfigError, KeyFileError, Malformed, ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Coroutine

R = TypeVar("R")


def json_option(command: Any) -> Any:
    """Every command takes ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON value instead of text.")(command)


def as_option(command: Any) -> Any:
    """Who speaks."""
    return click.option("--as", "name", default=None, metavar="NAME", help="The identity that speaks.")(command)


def say(value: Any, text: str, *, as_json: bool) -> None:
    """Print the answer."""
    click.echo(json.dumps(value, default=str) if as_json else text)


def complain(error: BaseException, *, as_json: bool = False) -> int:
    """One line on standard error.

    Returns:
        The exit status: 2 for wrong use or configuration, else 1.
    """
    if isinstance(error, AgentBusError):
        wrong_use = isinstance(error, ConfigError | KeyFileError | ProgrammingError | Malformed)
        code, message = error.code, error.message or error.code
        details = error.details
    elif isinstance(error, OSError):
        wrong_use, code, details = True, "system", {}
        message = f"{error.strerror or type(error).__name__}{f': {error.filename}' if error.filename else ''}"
    else:
        if os.environ.get("AGENTBUS_DEBUG"):
            raise error
        wrong_use, code, details = False, "internal", {}
        message = f"{type(error).__name__}: a fault in agentbus itself; set AGENTBUS_DEBUG=1 to see where"
    if as_json:
        click.echo(json.dumps({"error": {"code": code, "message": message, "details": details}}, default=str))
    else:
        click.echo(f"agentbus: {message} [{code}]", err=True)
    return 2 if wrong_use else 1


def run_async(work: Coroutine[Any, Any, R]) -> R:
    """Run a command's coroutine."""
    from agentbus.runtime.loop import run

    return run(work)


def on_terminal() -> bool:
    """Whether a person watches."""
    return sys.stdout.isatty()
