"""``agentbus log show``: the messages, one a line."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from agentbus.cli.log.options import evidence_options
from agentbus.cli.log.verify import progress_bar
from agentbus.cli.output import json_option, printable
from agentbus.cli.pin import pinned_root
from agentbus.cli.when import instant

if TYPE_CHECKING:
    from agentbus.audit import Message

EVERY: Final = 0.2  # seconds between looks at a log that is followed


@click.command()
@evidence_options
@click.option("--user", default=None, help="On behalf of this user.")
@click.option("--agent", default=None, metavar="NAME", help="Sent by or to NAME.")
@click.option("--action", default=None, metavar="TYPE", help="The message type.")
@click.option("--conversation", default=None, metavar="HEX", help="Its id, or the beginning of it.")
@click.option("--accepted/--refused", default=None, help="Only what was received, and accepted or refused.")
@click.option("--since", default=None, metavar="TIME", help="2026-01-01T12:00Z, or 15m for fifteen minutes ago.")
@click.option("--until", default=None, metavar="TIME", help="The same, for the end.")
@click.option("--last", type=click.IntRange(1), default=None, metavar="N", help="The newest N of them.")
@click.option("--body", "bodies", is_flag=True, help="Show bodies as well.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on, until interrupted.")
@json_option
def show(
    paths: tuple[Path, ...], directory: Path, root: str | None, since: str | None, until: str | None,
    last: int | None, bodies: bool, follow: bool, as_json: bool, **filters: Any,
) -> None:  # fmt: skip
    """Show the messages in the logs, one a line.

    Time, log, position in it, kind, who to whom, type, what became of it, and the chain it came under. The logs are
    verified first; exit 1 if a verdict is negative.
    """
    from agentbus.audit import Evidence

    now = datetime.now(UTC)
    filters |= {"since": since and instant(since, now), "until": until and instant(until, now)}
    evidence = Evidence.open(*paths, directory=directory, root=pinned_root(root))
    with progress_bar("verifying") as progress:
        report = evidence.verify(progress=progress)
    found = evidence.messages(**filters)
    if len(paths) > 1 or last is not None:
        found = iter(sorted(found, key=lambda message: message.instant)[-(last or 0) :])
    for message in found:
        click.echo(_line(message, as_json=as_json, bodies=bodies))
    if not report.ok:
        bad = ", ".join(name for name, verdict in report.items() if verdict.ok is False)
        click.echo(f"negative: {bad}; `agentbus log verify` says why", err=True)
    if follow:
        for message, problem in evidence.follow(wait=lambda: time.sleep(EVERY), **filters):
            click.echo(_line(message, as_json=as_json, bodies=bodies))
            if problem:
                click.echo(printable(f"negative: {problem}"), err=True)
    if not report.ok:
        raise click.exceptions.Exit(1)


def _line(message: Message, *, as_json: bool, bodies: bool) -> str:
    row = message.as_row()
    if as_json:
        return json.dumps(row, default=str)
    sign = {True: "ok", False: row["code"], None: "sent"}[row["accepted"]]
    path = f"  [{row['path']}]" if row["path"] else ""
    names = f"{message.sender.short} → {message.recipient.short}"
    where = f"{row['time'][11:23]} {row['log']:12} {row['position']:5}"
    line = f"{where} {row['kind']:8} {names:28} {row['action']:14} {sign}{path}"
    line = printable(" ".join(line.splitlines()))
    if not bodies:
        return line
    missing = (
        "(erased)" if message.erased else "(refused, and so not kept)" if message.accepted is False else "(absent)"
    )
    shown = row["body"] if message.body is not None else missing
    # indented, or a body could look like lines of ours
    return f"{line}\n    " + "\n    ".join(printable(shown).split("\n"))
