"""``agentbus log``: what is on the record, and whether it can be believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from agentbus.cli.output import json_option, say
from agentbus.errors import ConfigError

CODES: Final = {
    "config.no_root": "A log is verified against a root key that somebody pinned.",
}
FOLDER: Any = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def log() -> None:
    """Message logs: show, verify."""


def _root(given: str | None) -> str:
    """The pinned root thumbprint: the option, else the profile's.

    Raises:
        ConfigError: ``config.no_bus``: a log is not verified against a root that nobody pinned.
    """
    from agentbus.connect import find_url
    from agentbus.wire.ids import b64

    if given is not None:
        return given
    try:
        return b64(find_url().root)
    except ConfigError as error:
        raise ConfigError(
            "config.no_root", "name the root key with --root THUMBPRINT, or run `agentbus init URL`"
        ) from error


@log.command()
@click.argument("paths", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@click.option("--directory", required=True, type=FOLDER, help="The directory's log of key events.")
@click.option("--root", default=None, metavar="THUMBPRINT", help="The pinned root key; else the profile's.")
@json_option
def verify(paths: tuple[Path, ...], directory: Path, root: str | None, as_json: bool) -> None:
    """One line for each verdict; exit 1 if any is negative."""
    from agentbus.audit import Evidence

    pinned = _root(root)
    report = Evidence.open(*paths, directory=directory, root=pinned).verify()
    lines = [f"root key {pinned}"]
    for name, verdict in report.items():
        answer = {True: "yes", False: "NO", None: "not judged"}[verdict.ok]
        lines.append(
            f"{name:14} {answer:10} {verdict.checked} checked{f'; {verdict.reason}' if verdict.reason else ''}"
        )
        lines += [f"    {problem}" for problem in verdict.problems[:20]]
        if len(verdict.problems) > 20:
            lines.append(f"    and {len(verdict.problems) - 20} more; --json shows all that were kept")
    say({**report.as_dict(), "root": pinned}, "\n".join(lines), as_json=as_json)
    if not report.ok:
        raise click.exceptions.Exit(1)


@log.command()
@click.argument("paths", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@click.option("--directory", required=True, type=FOLDER, help="The directory's log of key events.")
@click.option("--root", default=None, metavar="THUMBPRINT", help="The pinned root key; else the profile's.")
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

    evidence = Evidence.open(*paths, directory=directory, root=_root(root))
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
