"""``agentbus log reconcile``: senders' logs against receivers' logs."""

from __future__ import annotations

from pathlib import Path

import click

from agentbus.cli.log.options import evidence_options
from agentbus.cli.log.verify import progress_bar
from agentbus.cli.output import json_option, say
from agentbus.cli.pin import pinned_root

_SHOWN = 50


@click.command()
@evidence_options
@click.option("--all", "everything", is_flag=True, help="List what is explained, too.")
@json_option
def reconcile(paths: tuple[Path, ...], directory: Path, root: str | None, everything: bool, as_json: bool) -> None:
    """Join the logs of several nodes, and say whose fault it is.

    Lists messages that were lost, unreceipted, denied, extra or reordered, and who is to blame, or that nobody can
    tell. Exit 1 if the logs do not agree, or if a verdict on one of them is negative.
    """
    from agentbus.audit import Evidence

    pinned = pinned_root(root)
    evidence = Evidence.open(*paths, directory=directory, root=pinned)
    with progress_bar("verifying") as progress:
        report = evidence.verify(progress=progress)
    found = evidence.reconcile()
    bad = [name for name, verdict in report.items() if verdict.ok is False]
    lone = f"{found.unjoined} in one, because the other party's log is not here"
    lines = [f"root key {pinned}", f"{found.joined} messages are in both logs; {lone}"]
    lines += ["", f"{'':12} {'explained':>10} {'a party':>10} {'undecidable':>12}"]
    for what, counts in found.counts().items():
        row = [counts.get(blame, 0) for blame in ("explained", "party", "undecidable")]
        lines.append(f"{what:12} {row[0]:>10} {row[1]:>10} {row[2]:>12}")
    shown = [one for one in found.findings if everything or one.blame != "explained"]
    lines += ["", *map(str, shown[:_SHOWN])] if shown else []
    if len(shown) > _SHOWN or found.more:
        lines.append(f"and {len(shown) - min(len(shown), _SHOWN) + found.more} more; --json shows what was kept")
    if bad:
        lines.append(f"negative: {', '.join(bad)}; `agentbus log verify` says why, and what these logs say is in doubt")
    value = {**found.as_dict(), "ok": found.ok and not bad, "negative": bad, "root": pinned}
    say(value, "\n".join(lines), as_json=as_json)
    if bad or not found.ok:
        raise click.exceptions.Exit(1)
