"""``agent``, ``user`` and ``service``: who there is. Every change is a signed request to the directory.

The three groups have the same commands, and differ in what a short NAME means: ``agent rotate billing`` is about the
agent, ``service rotate billing`` about ``service/billing``. A NAME with its kind (``user/alice``) is taken as it is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from agentbus.cli.card import add_show_agent, shown
from agentbus.cli.life import add_life, ask, full
from agentbus.cli.output import as_option, json_option, run_async, say
from agentbus.errors import ConfigError


@click.group()
def agent() -> None:
    """Agents: create, enrol, rotate their keys, suspend, end."""


@click.group()
def user() -> None:
    """Users: the same commands, about user/NAME."""


@click.group()
def service() -> None:
    """Services: the same commands, about service/NAME."""


def print_token(token: Any, as_json: bool) -> None:
    """An enrolment token is shown once."""
    say(token.model_dump(), token.token, as_json=as_json)


def _create(who: str, name: str | None, as_json: bool, **fields: Any) -> None:
    from agentbus.runtime.admin import CreatePrincipal

    print_token(run_async(ask(name, CreatePrincipal(name=who, **fields))), as_json)


def _add_create(group: click.Group, kind: str) -> None:
    @group.command("create", help=f"Create {kind} NAME, and print its enrolment token. Good once, for ten minutes.")
    @click.argument("who", metavar="NAME")
    @click.option("--purpose", default="", help="What it is for.")
    @click.option("--owner", default="", metavar="NAME", help="Who may suspend, rotate and end it (default: you).")
    @click.option("--ceiling", multiple=True, metavar="SCOPE", help="What it may ever use, whoever grants it.")
    @click.option("--may-talk-to", multiple=True, metavar="AGENT", help="Whom it may ask for itself; * for everyone.")
    @click.option("--tag", multiple=True, help="To find it by, as in `bus.discover(tag=…)`.")
    @as_option
    @json_option
    def create(
        who: str, purpose: str, owner: str, ceiling: tuple[str, ...], may_talk_to: tuple[str, ...],
        tag: tuple[str, ...], name: str | None, as_json: bool,
    ) -> None:  # fmt: skip
        targets = ["service/directory", *may_talk_to] if "*" not in may_talk_to else ["*"]
        _create(
            full(kind, who), name, as_json, purpose=purpose, owner=owner, ceiling=list(ceiling), may_talk_to=targets,
            tags=list(tag),
        )  # fmt: skip


@user.command("create")
@click.argument("who", metavar="NAME")
@click.option("--purpose", default="", help="Why there is this user.")
@click.option("--owner", default="", metavar="NAME", help="Who may suspend, rotate and end it (default: you).")
@click.option("--right", multiple=True, metavar="SCOPE", help="What this user may do and have done.")
@as_option
@json_option
def create_user(who: str, purpose: str, owner: str, right: tuple[str, ...], name: str | None, as_json: bool) -> None:
    """Create user/NAME, and print its enrolment token. It is good once, for ten minutes."""
    _create(full("user", who), name, as_json, purpose=purpose, owner=owner, may_talk_to=["*"], rights=list(right))


def _add_enrol(group: click.Group, kind: str) -> None:
    @group.command("enrol", help="Make NAME's keys here and register them with a token.")
    @click.argument("who", metavar="NAME")
    @click.option("--token", default=None, help="Else the file named by AGENTBUS_ENROLMENT_TOKEN_FILE.")
    @click.option("--replace", is_flag=True, help="The key here was lost or compromised; its file is kept aside.")
    @click.option(
        "--passphrase", "ask_passphrase", is_flag=True, help="Ask for a passphrase to lock the key file with."
    )
    @json_option
    def enrol(who: str, token: str | None, replace: bool, ask_passphrase: bool, as_json: bool) -> None:
        from agentbus.home import key_path
        from agentbus.identity import Identity

        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True) if ask_passphrase else None
        who = full(kind, who)
        made = Identity.enrol(who, token=token or _token(), passphrase=passphrase, replace=replace)
        identity, saved = run_async(made), key_path(who)
        say({"id": identity.id, "key_file": str(saved)}, f"{identity.id} enrolled; key file {saved}", as_json=as_json)


def _token() -> str:
    file = os.environ.get("AGENTBUS_ENROLMENT_TOKEN_FILE")
    if not file:
        raise ConfigError("config.token", "pass --token, or the path of one in AGENTBUS_ENROLMENT_TOKEN_FILE")
    return Path(file).read_text("utf-8").strip()


def _add_token(group: click.Group, kind: str) -> None:
    @group.command("token", help="Make another enrolment token for NAME, who has no key yet.")
    @click.argument("who", metavar="NAME")
    @as_option
    @json_option
    def token(who: str, name: str | None, as_json: bool) -> None:
        from agentbus.runtime.admin import NewToken

        print_token(run_async(ask(name, NewToken(name=full(kind, who)))), as_json)


def _add_list(group: click.Group, kind: Any) -> None:
    @group.command("list", help=f"Every {kind}, its state and how many instances run.")
    @as_option
    @json_option
    def list_all(name: str | None, as_json: bool) -> None:
        from agentbus.runtime.admin import List

        found = run_async(ask(name, List(kind=kind))).agents
        lines = [f"{c.id.rpartition('/')[2]:24} {c.state:10} {c.running} running  {' '.join(c.ceiling)}" for c in found]
        say([c.model_dump() for c in found], "\n".join(lines) or f"no {kind}s yet", as_json=as_json)


def _add_show(group: click.Group, kind: str) -> None:
    @group.command("show", help="What the directory says of NAME.")
    @click.argument("who", metavar="NAME")
    @as_option
    @json_option
    def show(who: str, name: str | None, as_json: bool) -> None:
        from agentbus.runtime.admin import Show

        card = run_async(ask(name, Show(name=full(kind, who))))
        lines = [f"{key:12} {shown(value)}" for key, value in card.model_dump().items() if value not in (None, "", [])]
        text = "\n".join(lines)
        say(card.model_dump(), text, as_json=as_json)


for _group in (agent, user, service):
    _kind = str(_group.name)
    if _kind != "user":
        _add_create(_group, _kind)
    for _add in (_add_enrol, _add_token, _add_list):
        _add(_group, _kind)
    if _kind == "agent":
        add_show_agent(_group)
    else:
        _add_show(_group, _kind)
    add_life(_group, _kind)
