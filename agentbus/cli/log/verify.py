"""``agentbus log verify``: one line for each verdict."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from agentbus.cli.log.options import evidence_options
from agentbus.cli.output import json_option, say
from agentbus.cli.pin import pinned_root

if TYPE_CHECKING:
    from agentbus.log.report import Report


EVIDENCE: Final = "keep these folders as they are: they are evidence; what to do: docs/how-to/audit.md"


@click.command()
@evidence_options
@json_option
def verify(paths: tuple[Path, ...], directory: Path, root: str | None, as_json: bool) -> None:
    """Verify logs offline, one line for each verdict.

    Exit 1 if any is negative. Logs of several nodes are judged together: what each keeps of the others is evidence
    about them.
    """
    from agentbus.audit import Evidence

    pinned = pinned_root(root)
    evidence = Evidence.open(*paths, directory=directory, root=pinned)
    with progress_bar("verifying") as progress:
        report = evidence.verify(progress=progress)
    lines = [f"root key {pinned}", *verdict_lines(report)]
    if not report.ok:
        lines.append(EVIDENCE)
    say({**report.as_dict(), "root": pinned}, "\n".join(lines), as_json=as_json)
    if not report.ok:
        raise click.exceptions.Exit(1)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error where that is a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


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
