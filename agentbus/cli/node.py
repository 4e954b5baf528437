"""``init`` and ``request``: what one does with a bus that is there."""

from __future__ import annotations

import json
import os
from typing import Any, Final

import click

from agentbus.cli.output import as_option, json_option, run_async, say
from agentbus.errors import ConfigError

CODES: Final = {
    "config.body": "JSON is an object of the message's fields.",
}


@click.command()
@click.argument("url")
@json_option
def init(url: str, as_json: bool) -> None:
    """Make URL, with its pin, this account's bus."""
    from agentbus.connect import BusUrl, save_profile

    path = save_profile(BusUrl.parse(url))
    say({"profile": str(path)}, f"profile {path}", as_json=as_json)


def open_bus(name: str | None, *, listen: str | None = None) -> Any:
    """The bus of a command: as NAME, else AGENTBUS_IDENTITY, else user/operator."""
    from agentbus.bus import Bus

    return Bus.connect(identity=_unlocked(speaker(name)), listen=listen)


def _unlocked(name: str) -> Any:
    """NAME, or its identity where a person had to be asked for the passphrase of its key file."""
    from agentbus.cli.unlock import load
    from agentbus.home import key_path

    return load(name) if key_path(name).exists() else name


def speaker(name: str | None) -> str:
    """Who speaks: NAME, else AGENTBUS_IDENTITY, else user/operator."""
    return name or os.environ.get("AGENTBUS_IDENTITY") or "user/operator"


@click.command()
@click.argument("agent")
@click.argument("type_", metavar="TYPE")
@click.argument("body", metavar="JSON")
@as_option
@click.option("--delegate", multiple=True, metavar="SCOPE", help="What the agent may use next, on your behalf.")
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="What your own grant gives (default: --delegate)."
)
@click.option("--depth", type=int, default=4, show_default=True, help="How many links may follow a user's root grant.")
@click.option("--target", "targets", multiple=True, metavar="AGENT", help="Whom your grant may be used with.")
@click.option("--stream", is_flag=True, help="The answer is a stream; one item a line.")
@click.option("--timeout", type=float, default=60.0, show_default=True)
@json_option
def request(
    agent: str, type_: str, body: str, name: str | None, delegate: tuple[str, ...], scopes: tuple[str, ...],
    depth: int, targets: tuple[str, ...], stream: bool, timeout: float, as_json: bool,
) -> None:  # fmt: skip
    """Ask AGENT: TYPE is the message type, JSON its fields. A user speaks under a root grant made for this request."""
    try:
        fields = json.loads(body)
        if not isinstance(fields, dict):
            raise ValueError("not an object")
    except ValueError as error:
        hint = "JSON is an object of the message's fields, such as '{\"a\": 1}'"
        raise ConfigError("config.body", f"{hint}: {error}") from error
    grant = {"scopes": scopes or delegate, "depth": depth, "targets": targets}
    run_async(_request(agent, type_, fields, name, delegate, grant, stream, timeout))


async def _request(
    agent: str, type_: str, fields: dict[str, Any], name: str | None, delegate: tuple[str, ...],
    grant: dict[str, Any], stream: bool, timeout: float,
) -> None:  # fmt: skip
    from agentbus.runtime.message import Raw, RawStream

    async with open_bus(name, listen="") as bus:
        speaker = bus.as_user(**grant) if bus.id.kind == "user" else bus
        if not stream:
            reply = await speaker.request(agent, Raw(type_, fields), timeout=timeout, delegate=delegate)
            click.echo(json.dumps(reply, ensure_ascii=False))
            return
        async with speaker.stream(agent, RawStream(type_, fields), timeout=timeout, delegate=delegate) as items:
            async for item in items:
                click.echo(json.dumps(item, ensure_ascii=False))
