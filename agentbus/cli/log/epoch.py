"""``agentbus log epoch``: put a log aside that cannot go on."""

from __future__ import annotations

from pathlib import Path

import click

from agentbus.cli.log.options import FOLDER
from agentbus.cli.output import json_option, say


@click.command()
@click.argument("path", metavar="DIR", type=FOLDER)
@json_option
def epoch(path: Path, as_json: bool) -> None:
    """End this epoch of a node's log, and let a new one begin.

    It is kept whole in DIR/epochs, and the node's next start begins the next. For a log that is damaged or forked. Its
    node must not run. Peers see that the epoch changed.
    """
    from agentbus.log.read import read_log
    from agentbus.logstore.epochs import current_epoch, end_epoch

    read_log(path)
    aside = end_epoch(path)
    now = current_epoch(path)
    say({"aside": str(aside), "epoch": now}, f"kept as {aside}; the next start begins epoch {now}", as_json=as_json)
