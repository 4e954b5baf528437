"""Identities for commands: where a passphrase locks a key file and a person is there, the person is asked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agentbus.identity import Identity


def load(name: str) -> Identity:
    """The identity NAME, enrolled here.

    Raises:
        KeyFileError: its key file is missing, damaged, readable by others, or locked and nobody is there to ask.
    """
    from agentbus.errors import KeyFileError
    from agentbus.identity import Identity

    try:
        return Identity.load(name)
    except KeyFileError as error:
        if error.code != "key.locked" or not sys.stdin.isatty():
            raise
        return Identity.load(name, passphrase=click.prompt(f"Passphrase of {name}", hide_input=True, err=True))
