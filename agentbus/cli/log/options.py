"""What the verbs of ``agentbus log`` take alike: logs, the directory's log, the pinned root key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from agentbus.errors import ConfigError

CODES: Final = {
    "config.no_root": "A log is verified against a root key that somebody pinned.",
}
FOLDER: Any = click.Path(exists=True, file_okay=False, path_type=Path)

logs_argument: Callable[[Any], Any] = click.argument("paths", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
directory_option: Callable[[Any], Any] = click.option(
    "--directory", required=True, type=FOLDER, help="The directory's log of key events."
)
root_option: Callable[[Any], Any] = click.option(
    "--root", default=None, metavar="THUMBPRINT", help="The pinned root key; else the profile's."
)


def evidence_options(command: Any) -> Any:
    """``DIR… --directory DIR [--root THUMBPRINT]``, for every verb that judges logs."""
    return logs_argument(directory_option(root_option(command)))


def pinned_root(given: str | None) -> str:
    """The pinned root thumbprint: the option, else the profile's.

    Raises:
        ConfigError: ``config.no_root``: a log is not verified against a root that nobody pinned.
    """
    from agentbus.connect import find_url
    from agentbus.errors import Malformed
    from agentbus.wire.ids import b64, unb64

    if given is not None:
        try:
            return b64(unb64(given.partition(".")[0], 32))
        except Malformed as error:
            text = f"{given!r} is no thumbprint: 43 characters, as in a bus URL between the # and the dot"
            raise ConfigError("config.no_root", text) from error
    try:
        return b64(find_url().root)
    except ConfigError as error:
        raise ConfigError(
            "config.no_root", "name the root key with --root THUMBPRINT, or run `agentbus init URL`"
        ) from error
