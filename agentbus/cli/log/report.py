"""``agentbus log report`` and ``export``: what happened, for somebody who was not there."""

from __future__ import annotations

import time
from pathlib import Path

import click

from agentbus.cli.log.options import evidence_options
from agentbus.cli.log.verify import progress_bar
from agentbus.cli.output import json_option, say
from agentbus.cli.pin import pinned_root


@click.command()
@evidence_options
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("report.html"), show_default=True)
@click.option("--without-bodies", is_flag=True, help="Show who said something to whom, and nothing of what.")
@json_option
def report(
    paths: tuple[Path, ...], directory: Path, root: str | None, out: Path, without_bodies: bool, as_json: bool
) -> None:
    """Write one HTML page for somebody who was not there.

    Verdicts, problems, who asked whom, a timeline and every conversation. It fetches nothing and runs nothing. Exit 1
    if a verdict is negative; the page says why.
    """
    from agentbus.audit import Evidence
    from agentbus.audit.page import report_page

    pinned = pinned_root(root)
    evidence = Evidence.open(*paths, directory=directory, root=pinned)
    with progress_bar("verifying") as progress:
        verdicts = evidence.verify(progress=progress)
    messages = list(evidence.messages())
    page = report_page(
        verdicts, messages, list(evidence.refusals()), domain=evidence.domain, logs=list(evidence.logs),
        root=pinned.partition(".")[0], made=time.time_ns() // 1000, bodies=not without_bodies,
    )  # fmt: skip
    out.write_text(page, "utf-8")
    size = len(page.encode())
    say(
        {"file": str(out), "bytes": size, "ok": verdicts.ok},
        f"{out}: {size} bytes; open it in a browser",
        as_json=as_json,
    )
    if not verdicts.ok:
        raise click.exceptions.Exit(1)


@click.command()
@evidence_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@json_option
def export(paths: tuple[Path, ...], directory: Path, root: str | None, out: Path, as_json: bool) -> None:
    """Write a folder that holds all an auditor needs.

    Logs, the directory's log, and messages as JSON Lines. Exit 1 if a verdict is negative; the folder is written
    nevertheless.
    """
    from agentbus.audit import Evidence
    from agentbus.audit.export import export as write
    from agentbus.wire.ids import unb64

    pinned = pinned_root(root)
    evidence = Evidence.open(*paths, directory=directory, root=pinned)
    with progress_bar("verifying") as progress:
        verdicts = evidence.verify(progress=progress)
    counts = write(evidence, verdicts, out, root=unb64(pinned.partition(".")[0], 32))
    text = f"{out}: {counts['logs']} logs, {counts['messages']} messages, {counts['refusals']} unverifiable frames"
    say({"folder": str(out), **counts, "ok": verdicts.ok}, text, as_json=as_json)
    if not verdicts.ok:
        raise click.exceptions.Exit(1)
