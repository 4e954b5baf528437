"""``init``, ``run`` and ``request``: what one does with a bus that is there."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from agentbus.cli.notify import notify
from agentbus.cli.output import as_option, json_option, run_async, say
from agentbus.errors import ConfigError

CODES: Final = {
    "config.target": "MODULE:AGENT names a module that can be imported here and an Agent in it.",
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

    return Bus.connect(identity=speaker(name), listen=listen)


def speaker(name: str | None) -> str:
    """Who speaks: NAME, else AGENTBUS_IDENTITY, else user/operator."""
    return name or os.environ.get("AGENTBUS_IDENTITY") or "user/operator"


@click.command()
@click.argument("target", metavar="MODULE:AGENT")
@as_option
@click.option("--ready-file", type=click.Path(path_type=Path), default=None, help="Written once it can be asked.")
def run(target: str, name: str | None, ready_file: Path | None) -> None:
    """Serve an agent until SIGTERM."""
    agent = load_agent(target)
    run_async(_run(agent, name, ready_file))


def load_agent(target: str) -> Any:
    """The Agent that MODULE:AGENT names; modules of the working folder count."""
    from agentbus.runtime.agent import Agent

    module_name, colon, attribute = target.partition(":")
    if not colon:
        raise ConfigError("config.target", f"{target!r} is no MODULE:AGENT such as hello:planner")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise ConfigError(
                "config.target", f"{module_name} needs the module {error.name}, which is missing"
            ) from error
        raise ConfigError("config.target", f"there is no module {module_name} in {Path.cwd()} or installed") from error
    found = getattr(module, attribute, None)
    if not isinstance(found, Agent):
        names = [key for key, value in vars(module).items() if isinstance(value, Agent)]
        raise ConfigError(
            "config.target", f"{module_name} has no Agent {attribute!r}; it has {', '.join(names) or 'none'}"
        )
    return found


async def _run(agent: Any, name: str | None, ready_file: Path | None) -> None:
    from agentbus.bus import Bus

    def ready() -> None:
        if ready_file is not None:
            ready_file.write_text(f"{bus.id}\n")
        notify("READY=1")

    async with Bus.connect(identity=name or agent.name) as bus:
        where = " ".join(bus.endpoints) or "it dials out only: it can ask, and cannot be asked"
        click.echo(f"{bus.id} is served ({where}); stop with Ctrl-C", err=True)
        await bus.run(agent, ready=ready)
        notify("STOPPING=1")


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
