"""``agentbus grant``: chains that people make, read, ask about and end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from agentbus.cli.node import open_bus
from agentbus.cli.output import as_option, json_option, run_async, say
from agentbus.errors import ConfigError, KeyFileError, Unavailable

if TYPE_CHECKING:
    from agentbus.delegation.chain import Authority

CODES: Final = {
    "config.reason": "A revocation says why.",
    "config.fact": "A fact is NAME=VALUE; an integer or decimal value is a number.",
}

_which = click.argument("which", metavar="FILE|ID")


@click.group()
def grant() -> None:
    """Root grants: create, list, show, ask why, revoke."""


@grant.command()
@click.argument("to", metavar="AGENT")
@click.option("--scope", "scopes", multiple=True, required=True, help="docs:read, or 'pay:send[amount<=100]'.")
@click.option("--target", "targets", multiple=True, metavar="AGENT", help="Whom it may be used with (everyone).")
@click.option("--expires-in", type=click.FloatRange(1, 31_622_400), default=600.0, show_default=True, help="Seconds.")
@click.option("--depth", type=click.IntRange(0, 11), default=1, show_default=True, help="How many links may follow.")
@click.option("--purpose", default="", help="A code that stands in the grant.")
@click.option("--pin", is_flag=True, help="Only under the identity key that AGENT has now.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Also write it here; it is no secret.")
@as_option
@json_option
def create(
    to: str, scopes: tuple[str, ...], targets: tuple[str, ...], expires_in: float, depth: int, purpose: str, pin: bool,
    out: Path | None, name: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Sign a root grant to AGENT, and keep it here. The user's own key signs it."""

    async def work() -> Authority:
        async with open_bus(name, listen="") as bus:
            made: Authority = await bus.grant(
                to, scopes, targets=targets, expires_in=expires_in, depth=depth, purpose=purpose, pin=pin
            )
            return made

    authority = run_async(work())
    if out is not None:
        out.write_bytes(authority.to_bytes())
    where = f"; written to {out}" if out else ""
    text = f"{authority.tree()}\ngrant {authority.id[:12]} is kept here{where}"
    say(_facts(authority) | {"file": str(out) if out else None}, text, as_json=as_json)


@grant.command("list")
@click.option("--user", default=None, metavar="NAME", help="Only those of this user.")
@click.option("--all", "every", is_flag=True, help="Also those that hold no longer.")
@as_option
@json_option
def list_grants(user: str | None, every: bool, name: str | None, as_json: bool) -> None:
    """The grants that are kept here, and whether each holds."""
    kept = [a for a in _holdings().all() if user is None or a.subject.short in (user, f"user/{user}")]
    states, why = run_async(_states(kept, name))
    shown = [(a, s) for a, s in zip(kept, states, strict=True) if every or s["state"] in ("valid", "early", "unknown")]
    lines = [
        f"{a.id[:12]}  {s['state']:8} {a.subject.short} → {a.holder.short:16} "
        f"until {a.expires:%Y-%m-%d %H:%M:%S}  {', '.join(a.scopes) or 'nothing'}"
        for a, s in shown
    ]
    if why:
        click.echo(f"agentbus: whether they hold is not known here: {why}", err=True)
    hidden = len(kept) - len(shown)
    empty = f"no grant that holds{f'; {hidden} that do not: see --all' if hidden else ''}"
    say([_facts(a) | s for a, s in shown], "\n".join(lines) or empty, as_json=as_json)


@grant.command()
@_which
@as_option
@json_option
def show(which: str, name: str | None, as_json: bool) -> None:
    """Draw a grant, what each link narrowed, and whether it holds."""
    authority = open_grant(which)
    (state,), why = run_async(_states([authority], name))
    lines = [
        authority.tree(),
        f"held by {authority.holder.short}, until {authority.expires:%Y-%m-%d %H:%M:%S} UTC, id {authority.id}",
        f"state: {state['state']}{': ' + state['why'] if state['why'] else ''}",
    ]
    if why:
        lines[-1] += f" ({why})"
    links = [_link(link) for link in authority.links]
    say(_facts(authority) | state | {"links": links}, "\n".join(lines), as_json=as_json)


@grant.command()
@click.argument("agent", metavar="AGENT")
@click.argument("action", metavar="ACTION")
@click.option("--grant", "which", default=None, metavar="FILE|ID", help="Under this grant (default: one's own).")
@click.option("--scope", "scopes", multiple=True, help="Under a root grant of one's own with these scopes.")
@click.option("--require", "required", multiple=True, metavar="SCOPE", help="A scope that the handler asks about, too.")
@click.option("--fact", "facts", multiple=True, metavar="NAME=VALUE", help="What the handler says of the request.")
@as_option
@json_option
def why(
    agent: str, action: str, which: str | None, scopes: tuple[str, ...], required: tuple[str, ...],
    facts: tuple[str, ...], name: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Say what decides whether AGENT may be asked for ACTION.

    Each link, ceiling, right and policy, and what would change it. ACTION is a message type. Nothing is sent to AGENT:
    what it requires is what it told the directory. Exit 0 when it would be allowed.
    """
    given = dict(map(_fact, facts))
    held = open_grant(which) if which else None

    async def work() -> Any:
        async with open_bus(name, listen="") as bus:
            authority = held
            if authority is None and bus.id.kind == "user":
                cards = [c for c in await bus.discover(message=action) if agent in (c.id, c.id.short)]
                asked = [s for card in cards for t in card.types if t.name == action for s in t.scopes]
                authority = bus.as_user(scopes or asked).authority
            return await bus.explain(agent, action, authority=authority, facts=dict.fromkeys(required, given))

    found = run_async(work())
    checks = [
        {
            "what": c.what,
            "about": c.about,
            "ok": c.refused is None,
            "code": c.refused and c.refused.code,
            "why": c.refused and c.refused.message,
            "allow": c.refused and c.refused.details.get("allow"),
        }
        for c in found.checks
    ]
    say({"allowed": found.allowed, "grant": _facts(found.authority), "checks": checks}, str(found), as_json=as_json)
    if not found.allowed:
        raise click.exceptions.Exit(1)


@grant.command()
@_which
@click.option("--reason", required=True, help="It stands in the directory's log for ever.")
@as_option
@json_option
def revoke(which: str, reason: str, name: str | None, as_json: bool) -> None:
    """Revoke a grant and everything that rests on it, for good."""
    authority = open_grant(which)
    if not reason.strip():
        raise ConfigError("config.reason", "say why: the reason stands in the directory's log")

    async def work() -> None:
        async with open_bus(name, listen="") as bus:
            await bus.revoke(authority, reason=reason)

    run_async(work())
    say({"id": authority.id, "state": "revoked"}, f"{authority.id} is revoked", as_json=as_json)


def _holdings() -> Any:
    from agentbus.holdings import Holdings
    from agentbus.home import home

    return Holdings(home() / "grants")


def open_grant(which: str) -> Any:
    """A grant by its file or by the beginning of its id, as a commit is named."""
    from agentbus.holdings import read_grant

    return read_grant(Path(which)) if Path(which).is_file() else _holdings().find(which)


async def _states(authorities: list[Any], name: str | None) -> tuple[list[dict[str, Any]], str]:
    """What the directory makes of each; where it cannot be asked, what their own times say, and why no more is known.

    Time alone can end a grant, and never make one good: so "unknown" is the best there is without a directory.
    """
    from agentbus.runtime.clock import SystemClock

    try:
        async with open_bus(name, listen="") as bus:
            found = [await bus.state(authority) for authority in authorities]
    except (Unavailable, ConfigError, KeyFileError) as error:
        now = SystemClock().now()
        states = ["expired" if now >= a.expires_at else "unknown" for a in authorities]
        return [{"state": state, "why": "", "code": None} for state in states], error.message
    return [
        {"state": s.state, "why": s.refused.message if s.refused else "", "code": s.refused and s.refused.code}
        for s in found
    ], ""


def _fact(text: str) -> tuple[str, str | int | float]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigError("config.fact", f"{text!r} is no NAME=VALUE")
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


def _facts(authority: Authority) -> dict[str, Any]:
    return {
        "id": authority.id,
        "root_kind": authority.root_kind,
        "subject": authority.subject,
        "holder": authority.holder,
        "scopes": list(authority.scopes),
        "targets": list(authority.targets),
        "expires": authority.expires.isoformat(),
    }


def _link(link: Any) -> dict[str, Any]:
    of = link.grant
    return {
        "id": of.id.hex(),
        "issuer": of.issuer,
        "audience": of.audience,
        "scopes": [str(s) for s in of.scopes],
        "targets": list(of.targets),
        "depth": of.depth,
        "expires": of.expires,
        "purpose": of.purpose,
        "conversation": of.conversation.hex() if of.conversation else None,
        "pinned_key": of.pinned_key.hex() if of.pinned_key else None,
    }
