"""``agentbus log verify``: one line for each verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentbus.cli.log.options import evidence_options, pinned_root
from agentbus.cli.output import json_option, say

if TYPE_CHECKING:
    from agentbus.log.report import Report


@click.command()
@evidence_options
@json_option
def verify(paths: tuple[Path, ...], directory: Path, root: str | None, as_json: bool) -> None:
    """One line for each verdict; exit 1 if any is negative."""
    from agentbus.audit import Evidence

    pinned = pinned_root(root)
    report = Evidence.open(*paths, directory=directory, root=pinned).verify()
    lines = [f"root key {pinned}", *verdict_lines(report)]
    say({**report.as_dict(), "root": pinned}, "\n".join(lines), as_json=as_json)
    if not report.ok:
        raise click.exceptions.Exit(1)


def verdict_lines(report: Report, *, judged: bool = False) -> list[str]:
    """One line for each verdict, its first problems below; with ``judged`` those alone that have an answer."""
    lines = []
    for name, verdict in report.items():
        if judged and verdict.ok is None and not verdict.checked:
            continue
        answer = {True: "yes", False: "NO", None: "not judged"}[verdict.ok]
        lines.append(
            f"{name:14} {answer:10} {verdict.checked} checked{f'; {verdict.reason}' if verdict.reason else ''}"
        )
        lines += [f"    {problem}" for problem in verdict.problems[:20]]
        if len(verdict.problems) > 20:
            lines.append(f"    and {len(verdict.problems) - 20} more; --json shows all that were kept")
    return lines
