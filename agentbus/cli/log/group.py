"""``agentbus log``: what is on the record, and whether it can be believed. A verb is loaded when it is used."""

from __future__ import annotations

import importlib
from typing import Final

import click

VERBS: Final = {
    "epoch": "epoch",
    "export": "report",
    "report": "report",
    "redact": "redact",
    "check-proof": "prove",
    "prove": "prove",
    "reconcile": "reconcile",
    "replay": "replay",
    "show": "show",
    "verify": "verify",
}
"""Verb → module of this folder; the command in it has the verb's name, with ``_`` for ``-``."""


class Verbs(click.Group):
    """Loads a verb's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"agentbus.cli.log.{VERBS[cmd_name]}")
        found: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return found


@click.command(cls=Verbs)
def log() -> None:
    """Message logs: verify, show, prove, redact, report, export."""
