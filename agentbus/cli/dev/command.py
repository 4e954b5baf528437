"""``agentbus dev FILE[:AGENT]…``."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from agentbus.cli.output import json_option, run_async


@click.command()
@click.argument("files", metavar="FILE[:AGENT]...", nargs=-1, required=True)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Keep keys, directory and logs in this folder; else in a temporary one that goes with the process.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The directory's; any free one by default.")
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="Allowed besides what handlers declare, for ctx.require."
)
@json_option
def dev(files: tuple[str, ...], data: Path | None, port: int, scopes: tuple[str, ...], as_json: bool) -> None:
    """Serve the agents of FILE, and again whenever it is saved.

    They get a directory, keys and a user, user/alice, of their own. Everything is one process on loopback. Everybody
    may ask everybody, with all the scopes that the handlers declare.
    """
    from agentbus.cli.dev.load import Target
    from agentbus.cli.dev.loop import Dev
    from agentbus.wire.ids import check_scope_name

    targets = [Target.parse(text) for text in files]
    for scope in scopes:
        check_scope_name(scope)
    with ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentbus-dev-")))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        run_async(Dev(targets, folder.resolve(), port=port, scopes=scopes, as_json=as_json).run())
