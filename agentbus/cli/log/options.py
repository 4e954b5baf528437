"""What the verbs of ``agentbus log`` take alike: logs, and the directory's log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agentbus.cli.pin import root_option

FOLDER: Any = click.Path(exists=True, file_okay=False, path_type=Path)

logs_argument: Callable[[Any], Any] = click.argument("paths", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
directory_option: Callable[[Any], Any] = click.option(
    "--directory", required=True, type=FOLDER, help="The directory's log of key events."
)


def evidence_options(command: Any) -> Any:
    """``DIR… --directory DIR [--root THUMBPRINT]``, for every verb that judges logs."""
    return logs_argument(directory_option(root_option(command)))
