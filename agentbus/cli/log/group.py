"""``agentbus log``: what is on the record, and whether it can be believed. A verb is loaded when it is used."""

from __future__ import annotations

import importlib
from typing import Final

import click

VERBS: Final = {
    "epoch": ("epoch", "End this epoch of a node's log, and let a new one begin."),
    "export": ("report", "Write a folder that holds all an auditor needs."),
    "report": ("report", "Write one HTML page for somebody who was not there."),
    "redact": ("redact", "Erase the body of MESSAGE; its record still verifies."),
    "check-proof": ("prove", "Judge a proof offline."),
    "prove": ("prove", "Write one file that proves MESSAGE, and no other."),
    "reconcile": ("reconcile", "Join the logs of several nodes, and say whose fault it is."),
    "replay": ("replay", "Deliver what an agent took once more, and compare."),
    "show": ("show", "Show the messages in the logs, one a line."),
    "verify": ("verify", "Verify logs offline, one line for each verdict."),
}
"""Verb → module of this folder, and its summary; the command in it has the verb's name, with ``_`` for ``-``."""


class Verbs(click.Group):
    """Loads a verb's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"agentbus.cli.log.{VERBS[cmd_name][0]}")
        found: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, VERBS[verb][1]) for verb in sorted(VERBS)])


@click.command(cls=Verbs)
def log() -> None:
    """Message logs: verify, show, prove, redact, report, export."""
