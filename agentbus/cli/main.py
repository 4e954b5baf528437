"""``agentbus``: the entry point. Exit 0: yes. 1: the answer is no. 2: wrong use."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click

COMMANDS: Final = {
    "agent": ("people", "agent"),
    "bench": ("bench.command", "bench"),
    "demo": ("demo.command", "demo"),
    "dev": ("dev.command", "dev"),
    "directory": ("directory", "directory"),
    "grant": ("grant", "grant"),
    "init": ("node", "init"),
    "log": ("log.group", "log"),
    "request": ("request", "request"),
    "run": ("run.command", "run"),
    "service": ("people", "service"),
    "status": ("status", "status"),
    "token": ("token", "token"),
    "up": ("up", "up"),
    "user": ("people", "user"),
}


class Lazy(click.Group):
    """Loads a command's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        found: click.Command = getattr(importlib.import_module(f"agentbus.cli.{module}"), attribute)
        return found


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="agentbus-signed", prog_name="agentbus")
def cli() -> None:
    """Cooperating agents whose every message is signed and carries the chain of authority behind it."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an error is one line, never a traceback."""
    from agentbus.cli.output import complain

    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code: Any = cli.main(arguments, prog_name="agentbus", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()  # the help itself
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        code = 0
    except Exception as error:
        code = complain(error, as_json="--json" in arguments)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
