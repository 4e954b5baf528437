"""``agentbus run MODULE:AGENT``."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentbus.cli.notify import mark_ready, notify
from agentbus.cli.output import announce, as_option, json_option, run_async
from agentbus.cli.target import load_agent

if TYPE_CHECKING:
    from agentbus.bus.base import Bus


@click.command()
@click.argument("target", metavar="MODULE:AGENT")
@as_option
@click.option("--ready-file", type=click.Path(path_type=Path), default=None, help="Written once it can be asked.")
@click.option(
    "--instances", type=click.IntRange(1, 64), default=1, show_default=True, help="As so many processes; each is asked."
)
@click.option("--until-parent-ends", "tied", is_flag=True, hidden=True, help="Stop once standard input ends.")
@json_option
def run(
    target: str, name: str | None, ready_file: Path | None, instances: int, tied: bool, as_json: bool
) -> None:  # fmt: skip
    """Serve an agent until SIGTERM.

    Without --as it runs under AGENTBUS_IDENTITY, else under its own name. What runs is given ten seconds to end.
    """
    agent = load_agent(target)
    if instances > 1:
        from agentbus.cli.run.instances import Instances

        who = ["--as", name] if name else []
        raise click.exceptions.Exit(run_async(Instances([target, *who], instances, ready_file, as_json).run()))

    from agentbus.bus.opening import run_agent

    def ready(bus: Bus) -> None:
        if ready_file is not None:
            mark_ready(ready_file, f"{bus.id}\n")
        notify("READY=1")
        where = " ".join(bus.endpoints) or "it dials out only: it can ask, and cannot be asked"
        if as_json:
            announce(json.dumps({"id": bus.id, "endpoints": bus.endpoints, "ready": True}))
        else:
            announce(f"{bus.id} is served ({where}); stop with Ctrl-C", err=True)
        if tied:
            _stop_with_parent()

    try:
        run_agent(agent, name, ready)
        notify("STOPPING=1")
    finally:
        if ready_file is not None and ready_file.is_file():
            ready_file.unlink()


def _stop_with_parent() -> None:
    """Standard input is a pipe that the parent holds; it ends when the parent does, however that is."""
    import asyncio

    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(0)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(0, ended)
