"""``agentbus request``: ask an agent, as a user, as an agent, or under a grant that somebody gave."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from agentbus.cli.node import open_bus
from agentbus.cli.output import as_option, json_option, run_async
from agentbus.errors import ConfigError

if TYPE_CHECKING:
    from agentbus.bus.base import Bus
    from agentbus.runtime.caller import Caller

CODES: Final = {
    "config.body": "JSON is an object of the message's fields.",
    "config.own_grant": "--scope, --target and --depth shape the root grant that a user makes for the request.",
}
DEPTH: Final = 4


@dataclass(frozen=True, slots=True)
class _Speaking:
    """Under what the request is made."""

    held: Any  # an Authority that somebody gave; else one's own
    scopes: tuple[str, ...]
    targets: tuple[str, ...]
    depth: int | None

    def caller(self, bus: Bus, delegate: tuple[str, ...]) -> Caller:
        """Whoever asks.

        Raises:
            ConfigError: ``config.own_grant``. Denied: ``denied.not_holder``.
        """
        if self.held is None and bus.id.kind == "user":
            depth = DEPTH if self.depth is None else self.depth
            return bus.as_user(self.scopes or delegate, targets=self.targets, depth=depth)
        if self.scopes or self.targets or self.depth is not None:
            under = "the grant that was given" if self.held is not None else f"the standing grant of {bus.id.short}"
            raise ConfigError(
                "config.own_grant", f"--scope, --target and --depth do not change {under}; leave them out"
            )
        return bus if self.held is None else bus.acting(self.held)


@click.command()
@click.argument("agent")
@click.argument("type_", metavar="TYPE")
@click.argument("body", metavar="JSON")
@as_option
@click.option("--delegate", multiple=True, metavar="SCOPE", help="What the agent may use next, on your behalf.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="What a user's own grant gives (--delegate).")
@click.option("--depth", type=int, default=None, help=f"How many links may follow a user's own grant ({DEPTH}).")
@click.option("--target", "targets", multiple=True, metavar="AGENT", help="Whom a user's own grant may be used with.")
@click.option("--grant", "which", default=None, metavar="FILE|ID", help="Act under this grant instead.")
@click.option("--stream", is_flag=True, help="The answer is a stream; one item a line.")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds.")
@json_option
def request(
    agent: str, type_: str, body: str, name: str | None, delegate: tuple[str, ...], scopes: tuple[str, ...],
    depth: int | None, targets: tuple[str, ...], which: str | None, stream: bool, timeout: float, as_json: bool,
) -> None:  # fmt: skip
    """Ask AGENT, and print its reply as JSON.

    TYPE is the message type, JSON its fields (-: from standard input). A user speaks under a root grant made for this
    request, an agent under its standing grant.
    """
    from agentbus.cli.grant import open_grant

    speaking = _Speaking(open_grant(which) if which else None, scopes, targets, depth)
    run_async(_request(agent, type_, _fields(body), name, delegate, speaking, stream, timeout))


def _fields(body: str) -> dict[str, Any]:
    try:
        fields = json.loads(sys.stdin.read() if body == "-" else body)
        if not isinstance(fields, dict):
            raise ValueError("not an object")
    except ValueError as error:
        hint = "JSON is an object of the message's fields, such as '{\"a\": 1}'"
        raise ConfigError("config.body", f"{hint}: {error}") from error
    return fields


async def _request(
    agent: str, type_: str, fields: dict[str, Any], name: str | None, delegate: tuple[str, ...],
    speaking: _Speaking, stream: bool, timeout: float,
) -> None:  # fmt: skip
    from agentbus.runtime.message import Raw, RawStream

    async with open_bus(name, listen="") as bus:
        caller = speaking.caller(bus, delegate)
        if not stream:
            reply = await caller.request(agent, Raw(type_, fields), timeout=timeout, delegate=delegate)
            click.echo(json.dumps(reply, ensure_ascii=False))
            return
        async with caller.stream(agent, RawStream(type_, fields), timeout=timeout, delegate=delegate) as items:
            async for item in items:
                click.echo(json.dumps(item, ensure_ascii=False))
