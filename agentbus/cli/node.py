"""The bus of a command: ``init`` says which, and others open it."""

from __future__ import annotations

import os
from typing import Any

import click

from agentbus.cli.output import json_option, say


@click.command()
@click.argument("url")
@json_option
def init(url: str, as_json: bool) -> None:
    """Use the bus at URL from now on. The profile keeps URL, with its pin."""
    from agentbus.connect import BusUrl, save_profile

    path = save_profile(BusUrl.parse(url))
    say({"profile": str(path)}, f"profile {path}", as_json=as_json)


def open_bus(name: str | None, *, listen: str | None = None) -> Any:
    """The bus of a command: as NAME, else AGENTBUS_IDENTITY, else user/operator."""
    from agentbus.bus.base import Bus

    return Bus.connect(identity=_unlocked(speaker(name)), listen=listen)


def _unlocked(name: str) -> Any:
    """NAME, or its identity where a person had to be asked for the passphrase of its key file."""
    from agentbus.cli.unlock import load
    from agentbus.home import key_path

    return load(name) if key_path(name).exists() else name


def speaker(name: str | None) -> str:
    """Who speaks: NAME, else AGENTBUS_IDENTITY, else user/operator."""
    return name or os.environ.get("AGENTBUS_IDENTITY") or "user/operator"
