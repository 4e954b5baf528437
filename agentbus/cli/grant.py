"""``agentbus grant``: chains that people make and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from agentbus.cli.node import open_bus
from agentbus.cli.output import as_option, json_option, run_async, say
from agentbus.errors import ConfigError

CODES: Final = {
    "config.reason": "A revocation says why.",
}


@click.group()
def grant() -> None:
    """Root grants: create, show, revoke."""


@grant.command()
@click.argument("to", metavar="AGENT")
@click.option("--scope", "scopes", multiple=True, required=True)
@click.option("--target", "targets", multiple=True, metavar="AGENT", help="Whom it may be used with (everyone).")
@click.option("--expires-in", type=click.FloatRange(1, 3600), default=600.0, show_default=True, help="Seconds.")
@click.option("--depth", type=click.IntRange(0, 11), default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The grant file; it is no secret.")
@as_option
@json_option
def create(
    to: str, scopes: tuple[str, ...], targets: tuple[str, ...], expires_in: float, depth: int, out: Path,
    name: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Sign a root grant to AGENT with the user's own key."""

    async def work() -> Any:
        async with open_bus(name, listen="") as bus:
            return await bus.grant(to, scopes, targets=targets, expires_in=expires_in, depth=depth)

    authority = run_async(work())
    out.write_bytes(authority.to_bytes())
    say({"id": authority.id, "file": str(out), "expires": authority.expires}, f"{out}: {authority}", as_json=as_json)


def _read(path: Path) -> Any:
    from agentbus.delegation.chain import Authority

    return Authority.from_bytes(path.read_bytes())


@grant.command()
@click.argument("path", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@json_option
def show(path: Path, as_json: bool) -> None:
    """The chain in FILE as a tree, with what each link narrowed. Its signatures are checked by whoever relies on it."""
    authority = _read(path)
    text = f"{authority.tree()}\nuntil {authority.expires:%Y-%m-%d %H:%M:%S} UTC, id {authority.id}"
    say({"id": authority.id, "links": [_link(link) for link in authority.links]}, text, as_json=as_json)


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
    }


@grant.command()
@click.argument("path", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@click.option("--reason", required=True)
@as_option
@json_option
def revoke(path: Path, reason: str, name: str | None, as_json: bool) -> None:
    """Revoke the grant in FILE and everything that rests on it, for good."""
    authority = _read(path)
    if not reason.strip():
        raise ConfigError("config.reason", "say why: the reason stands in the directory's log")

    async def work() -> None:
        async with open_bus(name, listen="") as bus:
            await bus.revoke(authority, reason=reason)

    run_async(work())
    say({"id": authority.id, "state": "revoked"}, f"{authority.id} is revoked", as_json=as_json)
