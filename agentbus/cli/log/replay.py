"""``agentbus log replay``: an agent's recorded messages once more."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Final

import click

from agentbus.cli.log.options import FOLDER, directory_option
from agentbus.cli.log.verify import progress_bar
from agentbus.cli.output import json_option, say
from agentbus.cli.pin import pinned_root, root_option
from agentbus.errors import ConfigError

CODES: Final = {
    "config.comparator": "--compare names MODULE:FUNCTION: (recorded body, new body, message type) → same or not.",
}


@click.command()
@click.argument("path", metavar="DIR", type=FOLDER)
@click.argument("target", metavar="MODULE:AGENT")
@click.option(
    "--mode", type=click.Choice(["stub", "live", "shadow"]), default="stub", show_default=True,
    help="stub: recorded results in, the same bytes out. shadow: the same for another version. live: call again.",
)  # fmt: skip
@click.option("--timing", default="instant", show_default=True, metavar="instant|original|xN",
              help="As fast as it goes, with the recorded pauses, or N times as fast.")  # fmt: skip
@click.option("--compare", default=None, metavar="MODULE:FUNCTION", help="Decides what means the same (live, shadow).")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write JUnit XML here.")
@directory_option
@root_option
@json_option
def replay(
    path: Path, target: str, mode: Any, timing: str, compare: str | None, junit: Path | None,
    directory: Path, root: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Deliver what an agent took once more, and compare.

    Exit 1 if an answer differs. The log is verified first. Nothing is sent: other agents answer as recorded, and but
    for live mode this process has no network.
    """
    from agentbus.cli.target import load_agent
    from agentbus.replay import replay as run
    from agentbus.replay.guard import isolate

    pinned = pinned_root(root)
    isolated = mode != "live" and isolate()
    agent = load_agent(target)
    comparator = _function(compare) if compare is not None else None
    with progress_bar("replaying") as progress:
        report = run(
            path, agent, directory=directory, root=pinned, mode=mode, timing=timing, compare=comparator,
            isolated=isolated, progress=progress,
        )  # fmt: skip
    if junit is not None:
        junit.write_text(report.junit(), "utf-8")
    say({**report.as_dict(), "root": pinned}, "\n".join(report.lines()), as_json=as_json)
    if not report.ok:
        raise click.exceptions.Exit(1)


def _function(target: str) -> Any:
    """The comparator that MODULE:FUNCTION names.

    Raises:
        ConfigError: ``config.comparator``.
    """
    name, _, attribute = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(name), attribute, None)
    except ImportError as error:
        raise ConfigError("config.comparator", f"there is no module {name!r} here: {error}") from error
    if not callable(found):
        raise ConfigError("config.comparator", f"{name} has no function {attribute!r}")
    return found
