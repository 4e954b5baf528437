"""How commands speak: one line for people, one JSON value for programs, errors that say what, why and what to do."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from agentbus.cli.hints import hint
from agentbus.errors import AgentBusError, ConfigError, KeyFileError, Malformed, ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Coroutine

R = TypeVar("R")

CODES: Final = {
    "usage.command_line": "No such command, option or argument; `agentbus COMMAND --help` says how it is used.",
    "config.path": "A file or folder that was named, or AGENTBUS_HOME, cannot be read or written.",
    "unavailable.system": "The system refused something or broke it off: a connection, a file descriptor, a disk.",
    "internal.fault": "A fault in agentbus itself; AGENTBUS_DEBUG=1 shows where.",
}


def json_option(command: Any) -> Any:
    """Every command takes ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON value instead of text.")(command)


def as_option(command: Any) -> Any:
    """Who speaks."""
    return click.option("--as", "name", default=None, metavar="NAME", help="The identity that speaks.")(command)


def say(value: Any, text: str, *, as_json: bool) -> None:
    """Print the answer."""
    click.echo(json.dumps(value, default=str) if as_json else printable(text))


def announce(text: str, *, err: bool = False) -> None:
    """Print a line for whoever listens; what runs until it is stopped goes on when nobody does."""
    try:
        click.echo(text, err=err)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, (sys.stderr if err else sys.stdout).fileno())
        os.close(null)


_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """``text`` without what a terminal obeys: names, reasons and errors are often a stranger's words."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def complain(error: BaseException, *, as_json: bool = False) -> int:
    """One line on standard error, or one JSON value on standard output.

    Returns:
        The exit status: 2 for wrong use or configuration, else 1.
    """
    if os.environ.get("AGENTBUS_DEBUG") and not isinstance(error, click.ClickException):
        raise error
    code, message, details, status = _describe(error)
    todo = hint(code)
    if as_json:
        facts = {"code": code, "message": message, "hint": todo, "details": details}
        click.echo(json.dumps({"error": facts}, default=str))
    else:
        text = " ".join(f"{message}{'; ' if todo else ''}{todo}".split())
        click.echo(printable(f"agentbus: {text} [{code}]"), err=True)
    return status


def _describe(error: BaseException) -> tuple[str, str, dict[str, Any], int]:
    """Code, message, details and exit status."""
    if isinstance(error, AgentBusError):
        wrong = isinstance(error, ConfigError | KeyFileError | ProgrammingError | Malformed)
        return error.code, error.message or error.code, error.details, 2 if wrong else 1
    if isinstance(error, click.ClickException):
        return "usage.command_line", _misuse(error), {}, 2
    if isinstance(error, OSError):
        why = error.strerror or type(error).__name__
        if not error.filename:  # nothing that was named is to blame
            return "unavailable.system", f"the system does not let this command go on: {why}; try again", {}, 1
        todo = "mend its permissions, or name another" if isinstance(error, PermissionError) else "name another"
        return "config.path", f"{error.filename} cannot be used: {why}; {todo}", {}, 2
    if type(error).__name__ == "ValidationError":  # pydantic's, of a request that was made of this command's options
        first = getattr(error, "errors", list)()[0]
        return "request.invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}", {}, 2
    text = f"{type(error).__name__}: a fault in agentbus itself; set AGENTBUS_DEBUG=1 to see where"
    return "internal.fault", text, {}, 1


def _misuse(error: click.ClickException) -> str:
    """What click says, in one line, and where it is written how it is used."""
    context = getattr(error, "ctx", None)
    message = error.format_message().strip().rstrip(".")
    path = context.command_path if context is not None else "agentbus"
    return f"{message[:1].lower()}{message[1:]}; see `{path} --help`"


def run_async(work: Coroutine[Any, Any, R]) -> R:
    """Run a command's coroutine."""
    from agentbus.runtime.loop import run

    return run(work)
