"""``--root``: whom to believe, read alike by every command that verifies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from agentbus.errors import ConfigError

CODES: Final = {
    "config.no_root": "A log is verified against a root key that somebody pinned.",
}

root_option: Callable[[Any], Any] = click.option(
    "--root", default=None, metavar="THUMBPRINT", help="The pinned root key, or a bus URL; else the profile's."
)


def pinned_root(given: str | None) -> str:
    """The pinned root thumbprint: the option, else the profile's.

    Args:
        given: A thumbprint, a pin or a whole bus URL; None: the profile's.

    Returns:
        The thumbprint, as a bus URL writes it.

    Raises:
        ConfigError: ``config.no_root``: nothing is verified against a root that nobody pinned.
    """
    from agentbus.connect import find_url
    from agentbus.errors import Malformed
    from agentbus.wire.ids import b64, unb64

    if given is not None:
        try:
            return b64(unb64(given.rpartition("#")[2].partition(".")[0], 32))
        except Malformed as error:
            text = f"{given!r} is no thumbprint: 43 characters, as in a bus URL between the # and the dot"
            raise ConfigError("config.no_root", text) from error
    try:
        return b64(find_url().root)
    except ConfigError as error:
        raise ConfigError(
            "config.no_root", "name the root key with --root THUMBPRINT, or run `agentbus init URL`"
        ) from error


def root_key(given: str | None) -> bytes:
    """The same, as the 32 bytes that a log is folded from.

    Raises:
        ConfigError: ``config.no_root``.
    """
    from agentbus.wire.ids import unb64

    return unb64(pinned_root(given), 32)
