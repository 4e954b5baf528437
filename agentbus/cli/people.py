"""``agent`` and ``user``: who is there. Every change is a signed request to the directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from agentbus.cli.node import open_bus
from agentbus.cli.output import as_option, json_option, run_async, say
from agentbus.errors import ConfigError


@click.group()
def agent() -> None:
    """Agents: create, enrol, list, show, suspend, resume, revoke, retire."""


@click.group()
def user() -> None:
    """Users: create, enrol, list, show, disable."""


async def _ask(name: str | None, request: Any) -> Any:
    async with open_bus(name, listen="") as bus:
        return await bus.request("service/directory", request)


@agent.command("create")
@click.argument("agent_name", metavar="NAME")
@click.option("--purpose", default="")
@click.option("--ceiling", multiple=True, metavar="SCOPE", help="What it may ever use, whoever grants it.")
@click.option("--may-talk-to", multiple=True, metavar="AGENT", help="Whom it may ask for itself; * for everyone.")
@click.option("--tag", multiple=True)
@as_option
@json_option
def create_agent(
    agent_name: str, purpose: str, ceiling: tuple[str, ...], may_talk_to: tuple[str, ...], tag: tuple[str, ...],
    name: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Create NAME and print a single-use enrolment token, good for ten minutes."""
    from agentbus.runtime.admin import CreatePrincipal

    targets = ["service/directory", *may_talk_to] if "*" not in may_talk_to else ["*"]
    request = CreatePrincipal(
        name=agent_name, purpose=purpose, ceiling=list(ceiling), may_talk_to=targets, tags=list(tag)
    )
    _print_token(run_async(_ask(name, request)), as_json)


@user.command("create")
@click.argument("user_name", metavar="NAME")
@click.option("--right", multiple=True, metavar="SCOPE", help="What this user may do and have done.")
@as_option
@json_option
def create_user(user_name: str, right: tuple[str, ...], name: str | None, as_json: bool) -> None:
    """Create user/NAME and print a single-use enrolment token."""
    from agentbus.runtime.admin import CreatePrincipal

    request = CreatePrincipal(name=_user(user_name), may_talk_to=["*"], rights=list(right))
    _print_token(run_async(_ask(name, request)), as_json)


def _print_token(token: Any, as_json: bool) -> None:
    say(token.model_dump(), token.token, as_json=as_json)


def _user(name: str) -> str:
    return name if "/" in name else f"user/{name}"


def _enrol(who: str, token: str | None, as_json: bool) -> None:
    from agentbus.bus import enrol_identity
    from agentbus.home import key_path

    if token is None:
        file = os.environ.get("AGENTBUS_ENROLMENT_TOKEN_FILE")
        if not file:
            raise ConfigError("config.token", "pass --token, or the path of one in AGENTBUS_ENROLMENT_TOKEN_FILE")
        token = Path(file).read_text("utf-8").strip()
    identity = run_async(enrol_identity(who, token))
    saved = key_path(who)
    say({"id": identity.id, "key_file": str(saved)}, f"{identity.id} enrolled; key file {saved}", as_json=as_json)


@agent.command("enrol")
@click.argument("agent_name", metavar="NAME")
@click.option("--token", default=None, help="Else the file named by AGENTBUS_ENROLMENT_TOKEN_FILE.")
@json_option
def enrol_agent(agent_name: str, token: str | None, as_json: bool) -> None:
    """Make NAME's keys here and register them with a token."""
    _enrol(agent_name, token, as_json)


@user.command("enrol")
@click.argument("user_name", metavar="NAME")
@click.option("--token", default=None)
@json_option
def enrol_user(user_name: str, token: str | None, as_json: bool) -> None:
    """Make a user's keys here and register them with a token."""
    _enrol(_user(user_name), token, as_json)


def _list(kind: Any, name: str | None, as_json: bool) -> None:
    from agentbus.runtime.admin import List

    found = run_async(_ask(name, List(kind=kind))).agents
    lines = [f"{c.id.rpartition('/')[2]:24} {c.state:10} {c.running} running  {' '.join(c.ceiling)}" for c in found]
    say([c.model_dump() for c in found], "\n".join(lines) or f"no {kind}s yet", as_json=as_json)


@agent.command("list")
@as_option
@json_option
def list_agents(name: str | None, as_json: bool) -> None:
    """Every agent, its state and how many instances run."""
    _list("agent", name, as_json)


@user.command("list")
@as_option
@json_option
def list_users(name: str | None, as_json: bool) -> None:
    """Every user."""
    _list("user", name, as_json)


def _show(who: str, name: str | None, as_json: bool) -> None:
    from agentbus.runtime.admin import Show

    card = run_async(_ask(name, Show(name=who)))
    text = "\n".join(f"{key:12} {value}" for key, value in card.model_dump().items() if value not in (None, "", []))
    say(card.model_dump(), text, as_json=as_json)


@agent.command("show")
@click.argument("agent_name", metavar="NAME")
@as_option
@json_option
def show_agent(agent_name: str, name: str | None, as_json: bool) -> None:
    """What the directory says of NAME."""
    _show(agent_name, name, as_json)


@user.command("show")
@click.argument("user_name", metavar="NAME")
@as_option
@json_option
def show_user(user_name: str, name: str | None, as_json: bool) -> None:
    """What the directory says of a user."""
    _show(_user(user_name), name, as_json)


def _state(who: str, state: Any, name: str | None, as_json: bool) -> None:
    from agentbus.runtime.admin import SetState

    done = run_async(_ask(name, SetState(name=who, state=state)))
    say({"name": who, "state": state, "seq": done.seq}, f"{who} is {state}", as_json=as_json)


def _state_command(group: click.Group, verb: str, state: str, help_text: str) -> None:
    @group.command(verb, help=help_text)
    @click.argument("who", metavar="NAME")
    @as_option
    @json_option
    def command(who: str, name: str | None, as_json: bool) -> None:
        _state(_user(who) if group is user else who, state, name, as_json)


_state_command(agent, "suspend", "suspended", "Nothing of NAME counts until it is resumed.")
_state_command(agent, "resume", "active", "Undo a suspension.")
_state_command(agent, "retire", "retired", "End NAME for good, in good order.")
_state_command(user, "disable", "suspended", "Nothing of this user counts until she is enabled.")
_state_command(user, "enable", "active", "Undo a disabling.")


@agent.command("revoke")
@click.argument("agent_name", metavar="NAME")
@click.option("--reason", required=True, help="It stands in the directory's log for ever.")
@as_option
@json_option
def revoke_agent(agent_name: str, reason: str, name: str | None, as_json: bool) -> None:
    """Revoke NAME, its keys and everything that rests on them, for good."""

    async def work() -> None:
        async with open_bus(name, listen="") as bus:
            await bus.revoke(agent_name, reason=reason)

    run_async(work())
    say({"name": agent_name, "state": "revoked"}, f"{agent_name} is revoked", as_json=as_json)
