"""``agent show``: an agent's card, or its message types as Python source."""

from __future__ import annotations

from typing import Any

import click

from agentbus.cli.output import as_option, json_option, printable, run_async, say
from agentbus.errors import ConfigError


def add_show_agent(group: click.Group) -> None:
    """``show NAME [--python]`` of agents."""

    @group.command("show", help="Show what the directory and the agent itself say of NAME.")
    @click.argument("who", metavar="NAME")
    @click.option("--python", "as_python", is_flag=True, help="Its message types as Python source, to be pasted.")
    @as_option
    @json_option
    def show(who: str, as_python: bool, name: str | None, as_json: bool) -> None:
        if as_python and as_json:
            raise ConfigError("config.invalid", "--python prints source and --json prints JSON: choose one")
        card, record = run_async(_card(who, name))
        if as_python:
            from agentbus.runtime.source import python_source

            click.echo(python_source(card.types, agent=card.id.short), nl=False)
            for of in card.types:
                if of.request is None:
                    click.echo(f"agentbus: {of.name} has no schema; ask with Raw", err=True)
            return
        facts = record.model_dump() | {
            "description": card.description,
            "described": card.described,
            "messages": [
                {
                    "type": of.name, "kind": of.kind, "description": of.description, "scopes": list(of.scopes),
                    "requires_user": of.requires_user, "request": of.request, "answer": of.answer,
                }
                for of in card.types
            ],
        }  # fmt: skip
        say(facts, _text(record, card), as_json=as_json)


async def _card(who: str, name: str | None) -> tuple[Any, Any]:
    from agentbus.cli.node import open_bus
    from agentbus.runtime.admin import Show
    from agentbus.runtime.discovery import Discover, card_of

    async with open_bus(name, listen="") as bus:
        record = await bus.request("service/directory", Show(name=who))
        found = await bus.request("service/directory", Discover(name=who, schemas=True))
        return card_of(found.agents[0]), record


def _text(record: Any, card: Any) -> str:
    """The directory's word first, then the agent's own."""
    known = record.model_dump().items()
    lines = [f"{key:12} {shown(value)}" for key, value in known if value not in (None, "", [])]
    if card.described is None:
        return "\n".join([*lines, "\nit has not described itself: it was never served"])
    lines.append(f"\nsays of itself since {card.described:%Y-%m-%d %H:%M:%S} UTC: {printable(card.description)}")
    for of in card.types:
        needs = [*of.scopes, *(["a user behind it"] if of.requires_user else [])]
        lines.append(f"  {printable(of.name)} ({of.kind}){'  needs ' + ', '.join(needs) if needs else ''}")
        lines += [f"      {printable(of.description.splitlines()[0])}"] if of.description else []
        for label, schema in (("takes", of.request), ("gives", of.answer)):
            fields = _fields(schema)
            lines += [f"      {label} {fields}"] if fields else []
    return "\n".join(lines)


def _fields(schema: Any) -> str:
    """The fields of an object, those that may be left out with a question mark; else its type."""
    if not isinstance(schema, dict):
        return ""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return printable(str(schema.get("type", "")))
    required = schema.get("required")
    needed: list[Any] = required if isinstance(required, list) else []
    return ", ".join(printable(f"{name}{'' if name in needed else '?'}") for name in properties)


def shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else printable(str(value))
