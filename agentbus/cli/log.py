"""``agentbus log``: what is on the record, and whether it can be believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentbus.cli.output import json_option, say
from agentbus.errors import ConfigError

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
@click.option("--directory", default=None, type=FOLDER)
@click.option("--root", default=None, metavar="THUMBPRINT")
@json_option
def show(paths: tuple[Path, ...], directory: Path | None, root: str | None, as_json: bool) -> None:
    """Entries as they stand in the logs: one line each; nothing is verified."""
    import json

    from agentbus.audit import Evidence

    folder = directory or paths[0]
    for row in Evidence.open(*paths, directory=folder, root=root).rows():
        if as_json:
            click.echo(json.dumps(row, default=str))
        else:
            kept = (f"{key}={value}" for key, value in row.items() if value not in (None, "", b"") and key != "kind")
            click.echo(f"{row.get('kind', ''):16} {' '.join(kept)}")
