"""What the verbs of ``agentbus log`` take alike: logs, and the directory's log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from agentbus.cli.pin import root_option
from agentbus.errors import ConfigError

CODES: Final = {
    "config.directory": "A log is verified against the directory's log: name its folder.",
}

FOLDER: Any = click.Path(exists=True, file_okay=False, path_type=Path)

logs_argument: Callable[[Any], Any] = click.argument("paths", metavar="DIR...", nargs=-1, required=True, type=FOLDER)


def _directory(ctx: click.Context, _: click.Parameter, given: Path | None) -> Path:
    """The option; where it is left out, what is looked for from the logs, which are read before it."""
    if given is not None:
        return given
    logs = ctx.params.get("paths") or [ctx.params["path"]]
    return find_directory(logs)


directory_option: Callable[[Any], Any] = click.option(
    "--directory", default=None, type=FOLDER, callback=_directory,
    help="The directory's log of key events; else `directory` beside DIR or its folder, or the profile's.",
)  # fmt: skip


def evidence_options(command: Any) -> Any:
    """``DIR… [--directory DIR] [--root THUMBPRINT]``, for every verb that judges logs."""
    return logs_argument(directory_option(root_option(command)))


def find_directory(logs: Sequence[Path]) -> Path:
    """The folder of the directory's log that lies where ``up`` and an export put it: as seen from the logs, or at home.

    What a node keeps of the directory's log beside its own is never taken: whose log is judged does not choose against
    what.

    Raises:
        ConfigError: ``config.directory``: there is none, or more than one.
    """
    from agentbus.audit.files import find_events
    from agentbus.errors import LogError
    from agentbus.home import home

    def there(folders: Sequence[Path]) -> list[Path]:
        found: dict[Path, None] = {}
        for folder in folders:
            try:
                found[find_events(folder).parent.resolve()] = None
            except LogError:
                continue
        return list(found)

    parents = [log.resolve().parent for log in logs]
    around = [[parent / "directory" for parent in parents], [parent.parent / "directory" for parent in parents]]
    found = next(filter(None, map(there, [*around, [home() / "directory"]])), [])
    if len(found) != 1:
        why = f"it may be {' or '.join(map(str, found))}" if found else f"it is neither beside {logs[0]} nor at home"
        raise ConfigError("config.directory", f"{why}: name the directory's folder with --directory")
    return found[0]
