"""``agentbus``: the entry point. Exit 0: yes. 1: the answer is no. 2: wrong use."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click

COMMANDS: Final = {
    "agent": ("people", "agent", "Agents: create, enrol, rotate their keys, suspend, end."),
    "bench": ("bench.command", "bench", "Signed against unsigned on this machine."),
    "demo": ("demo.command", "demo", "See the whole story in one run."),
    "dev": ("dev.command", "dev", "Serve the agents of FILE, and again whenever it is saved."),
    "directory": ("directory", "directory", "Directories: keys, backup and recovery, and evidence."),
    "grant": ("grant", "grant", "Root grants: create, list, show, ask why, revoke."),
    "init": ("node", "init", "Use the bus at URL from now on."),
    "log": ("log.group", "log", "Message logs: verify, show, prove, redact, report, export."),
    "request": ("request", "request", "Ask AGENT, and print its reply as JSON."),
    "run": ("run.command", "run", "Serve an agent until SIGTERM."),
    "service": ("people", "service", "Services: the same commands, about service/NAME."),
    "status": ("status", "status", "Probe the directory."),
    "token": ("token", "token", "Tokens: exchange, inspect, revoke; outside issuers."),
    "up": ("up", "up", "Run the directory."),
    "user": ("people", "user", "Users: the same commands, about user/NAME."),
}
"""Command → module, what it is called there, and its summary: help for all of them loads none."""


class Lazy(click.Group):
    """Loads a command's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found: click.Command = getattr(importlib.import_module(f"agentbus.cli.{module}"), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in sorted(COMMANDS)])


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
