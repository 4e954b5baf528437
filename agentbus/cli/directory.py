"""``agentbus directory``: the directory's own data, and evidence about it. None of these needs a bus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentbus.cli.output import json_option, say


@click.group()
def directory() -> None:
    """The directory's data: check evidence about it."""


def pinned(root: str | None) -> bytes:
    """The pinned thumbprint: what was given, else the profile's.

    Raises:
        ConfigError: ``config.no_bus``. Malformed: ``malformed.base64``.
    """
    from agentbus.connect import find_url
    from agentbus.wire.ids import unb64

    return find_url().root if root is None else unb64(root.rpartition("#")[2].partition(".")[0], 32)


def root_option(command: Any) -> Any:
    """Whom to believe."""
    return click.option(
        "--root", default=None, metavar="THUMBPRINT", help="The root key's thumbprint (default: the profile's pin)."
    )(command)


@directory.command("check")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@root_option
@json_option
def check(file: Path, root: str | None, as_json: bool) -> None:
    """Verify an evidence FILE offline: the receipt of a retirement, or two histories of one directory."""
    from agentbus.directory import evidence

    found = evidence.check(file.read_text("utf-8"), pinned(root))
    text = "\n".join(f"{key:12} {value}" for key, value in found.items())
    say({"ok": True, **found}, f"good evidence\n{text}", as_json=as_json)
