"""``agentbus log show``: the messages, one a line."""

from __future__ import annotations

from pathlib import Path

import click

from agentbus.cli.log.options import evidence_options, pinned_root
from agentbus.cli.output import json_option


@click.command()
@evidence_options
@click.option("--user", default=None)
@click.option("--agent", default=None)
@click.option("--action", default=None, metavar="TYPE")
@click.option("--conversation", default=None)
@json_option
def show(
    paths: tuple[Path, ...], directory: Path, root: str | None, user: str | None, agent: str | None,
    action: str | None, conversation: str | None, as_json: bool,
) -> None:  # fmt: skip
    """The messages in the logs, one a line, after verifying them; exit 1 if a verdict is negative."""
    import json

    from agentbus.audit import Evidence

    evidence = Evidence.open(*paths, directory=directory, root=pinned_root(root))
    report = evidence.verify()
    for message in evidence.messages(user=user, agent=agent, action=action, conversation=conversation):
        row = message.as_row()
        if as_json:
            click.echo(json.dumps(row, default=str))
        else:
            sign = {True: "ok", False: row["code"], None: "sent"}[row["accepted"]]
            path = f"  [{row['path']}]" if row["path"] else ""
            names = f"{message.sender.short} → {message.recipient.short}"
            click.echo(
                f"{row['time'][11:23]} {row['log']:12} {row['kind']:8} {names:28} {row['action']:14} {sign}{path}"
            )
    if not report.ok:
        bad = ", ".join(name for name, verdict in report.items() if verdict.ok is False)
        click.echo(f"negative: {bad}; `agentbus log verify` says why", err=True)
        raise click.exceptions.Exit(1)
