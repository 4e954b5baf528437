"""``agentbus token``: exchange tokens with the outside, see what one is worth, end one; whose tokens count.

Tokens come by standard input or from a file, never as arguments: those are seen by everybody on the machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from agentbus.cli.node import open_bus
from agentbus.cli.output import as_option, json_option, run_async, say
from agentbus.errors import ConfigError

CODES: Final = {
    "config.token_input": "A token is read from standard input or with --file; there was none, or several lines of it.",
    "config.client": "--client is CLIENT=AGENT: the issuer's name for a client, and the agent that may be it.",
    "config.jwks": "--jwks is a file with the issuer's JSON Web Key Set.",
}

_file = click.option("--file", "path", type=click.Path(path_type=Path), default=None, help="Else standard input.")


@click.group()
def token() -> None:
    """Tokens: exchange, inspect, revoke; outside issuers."""


@token.command()
@_file
@click.option("--scope", "scopes", multiple=True, required=True, help="What is asked for.")
@click.option("--target", "targets", multiple=True, metavar="AGENT", help="Whom it may be used with (everyone).")
@click.option("--expires-in", type=click.FloatRange(1, 31_622_400), default=600.0, show_default=True, help="Seconds.")
@click.option("--depth", type=click.IntRange(0, 10), default=1, show_default=True)
@click.option("--consent", default=None, metavar="TEXT", help="What the user was shown and agreed to.")
@click.option("--audience", default=None, metavar="NAME", help="Make an access token for NAME of a grant instead.")
@click.option("--grant", "which", default=None, metavar="FILE|ID", help="The grant an access token is made of.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Also write the grant here.")
@as_option
@json_option
def exchange(
    path: Path | None, scopes: tuple[str, ...], targets: tuple[str, ...], expires_in: float, depth: int,
    consent: str | None, audience: str | None, which: str | None, out: Path | None, name: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Exchange a user's token for a grant, or a grant for a token.

    With --audience a grant is exchanged for an access token. The grant is kept here and drawn; the access token is
    printed, and nothing else.
    """
    if audience is not None:
        made = run_async(_access(name, which, audience, scopes))
        facts = {"access_token": made.value, "audience": made.audience, "scopes": list(made.scopes)}
        say(facts | {"expires": made.expires}, made.value, as_json=as_json)
        return
    subject = _read(path)

    async def work() -> Any:
        async with open_bus(name, listen="") as bus:
            held = await bus.exchange(
                subject, scopes=scopes, targets=targets, expires_in=expires_in, depth=depth, consent=consent
            )
            bus.keep(held)
            return held

    held = run_async(work())
    if out is not None:
        out.write_bytes(held.to_bytes())
    facts = {"id": held.id, "root_kind": held.root_kind, "subject": held.subject, "holder": held.holder}
    facts |= {"scopes": list(held.scopes), "expires": held.expires, "file": str(out) if out else None}
    say(facts, f"{held.tree()}\ngrant {held.id[:12]} is kept here", as_json=as_json)


async def _access(name: str | None, which: str | None, audience: str, scopes: tuple[str, ...]) -> Any:
    from agentbus.cli.grant import open_grant

    async with open_bus(name, listen="") as bus:
        if which is None:
            return await bus.token_for(audience, scopes)
        return await bus.acting(open_grant(which)).token_for(audience, scopes)


@token.command()
@_file
@as_option
@json_option
def inspect(path: Path | None, name: str | None, as_json: bool) -> None:
    """Ask what an access token is worth now (RFC 7662). Exit 0 when it counts."""
    found = run_async(_ask("inspect", _read(path), name))
    lines = [f"{key:12} {value}" for key, value in found.items()]
    say(found, "\n".join(lines), as_json=as_json)
    if not found["active"]:
        raise click.exceptions.Exit(1)


@token.command()
@_file
@as_option
@json_option
def revoke(path: Path | None, name: str | None, as_json: bool) -> None:
    """Let an access token count no more (RFC 7009). Who verifies it without asking notices when it expires."""
    run_async(_ask("revoke", _read(path), name))
    say({"state": "revoked"}, "it counts no more", as_json=as_json)


@token.command()
@as_option
@json_option
def keys(name: str | None, as_json: bool) -> None:
    """Print the key set that verifies access tokens (RFC 7517)."""
    from agentbus.runtime.exchange import TokenKeys

    found = run_async(_request(name, TokenKeys())).model_dump()
    say(found, json.dumps(found, indent=2), as_json=as_json)


@token.group()
def issuer() -> None:
    """Outside issuers whose tokens count: add, list, end."""


@issuer.command()
@click.argument("name_of", metavar="ISSUER")
@click.option("--jwks", type=click.Path(path_type=Path), required=True, help="Its JSON Web Key Set, a file.")
@click.option("--audience", required=True, help="What its tokens' `aud` must hold.")
@click.option("--client", "clients", multiple=True, required=True, metavar="CLIENT=AGENT", help="Who may present them.")
@click.option("--scope", "scopes", multiple=True, required=True, help="All that its tokens may ever give.")
@click.option("--claim", default="sub", show_default=True, help="Which claim names the user.")
@click.option("--suffix", default="", help="What that claim ends with; before it stands the user's name here.")
@click.option("--depth", type=click.IntRange(0, 10), default=4, show_default=True, help="How many links may follow.")
@click.option("--consent-by", multiple=True, metavar="AGENT", help="Who may record that a user consented.")
@click.option("--consent-seconds", type=click.IntRange(0), default=0, show_default=True, help="How long that holds.")
@as_option
@json_option
def add(
    name_of: str, jwks: Path, audience: str, clients: tuple[str, ...], scopes: tuple[str, ...], claim: str, suffix: str,
    depth: int, consent_by: tuple[str, ...], consent_seconds: int, name: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Let tokens of ISSUER (its `iss`, exactly) count. The operator's alone; it stands in the directory's log."""
    from agentbus.runtime.exchange import IssuerRule, PutIssuer

    pairs = [(client, agent) for client, _, agent in (pair.partition("=") for pair in clients)]
    if any(not client or not agent for client, agent in pairs):
        raise ConfigError("config.client", f"{', '.join(clients)}: write --client web=app")
    try:
        keys_of = json.loads(jwks.read_text("utf-8"))
        if not isinstance(keys_of, dict) or not isinstance(keys_of.get("keys"), list):
            raise ValueError('not {"keys": […]}')
    except (OSError, ValueError) as error:
        raise ConfigError("config.jwks", f"{jwks} is no JSON Web Key Set: {error}") from error
    rule = IssuerRule(
        issuer=name_of, audience=audience, jwks=keys_of, scopes=list(scopes), clients=pairs, claim=claim, suffix=suffix,
        max_depth=depth, consent_by=list(consent_by), consent_seconds=consent_seconds,
    )  # fmt: skip
    _say_rules(run_async(_request(name, PutIssuer(rule=rule))), as_json)


@issuer.command("list")
@as_option
@json_option
def list_issuers(name: str | None, as_json: bool) -> None:
    """Every outside issuer, and what its tokens give."""
    from agentbus.runtime.exchange import ListIssuers

    _say_rules(run_async(_request(name, ListIssuers())), as_json)


@issuer.command()
@click.argument("name_of", metavar="ISSUER")
@as_option
@json_option
def end(name_of: str, name: str | None, as_json: bool) -> None:
    """Let no token of ISSUER count any more. Any authority that rests on one ends, too."""
    from agentbus.runtime.exchange import EndIssuer

    _say_rules(run_async(_request(name, EndIssuer(issuer=name_of))), as_json)


def _say_rules(rules: Any, as_json: bool) -> None:
    lines = []
    for rule in rules.issuers:
        keys_of = ", ".join(f"{key['kid']} ({key['alg']})" for key in rule.jwks["keys"]) or "no keys"
        lines.append(f"{rule.issuer}  {'active' if rule.active else 'ended'}  {keys_of}")
        given = ", ".join(rule.scopes) or "nothing"
        lines.append(f"    for {rule.audience}, by {', '.join('='.join(pair) for pair in rule.clients)}: {given}")
        lines.append(f"    user: {rule.claim} before {rule.suffix!r}" if rule.suffix else f"    user: {rule.claim}")
        if rule.consent_by:
            lines.append(f"    consents of {rule.consent_seconds} s, recorded by {', '.join(rule.consent_by)}")
    say(rules.model_dump(), "\n".join(lines) or "no outside issuer's tokens count here", as_json=as_json)


async def _request(name: str | None, request: Any) -> Any:
    async with open_bus(name, listen="") as bus:
        return await bus.request("service/directory", request)


async def _ask(what: Any, text: str, name: str | None) -> Any:
    from agentbus.runtime.exchange import ask

    async with open_bus(name, listen="") as bus:
        return await ask(bus, what, [("token", text)])


def _read(path: Path | None) -> str:
    try:
        text = (sys.stdin.read(100_000) if path is None else path.read_text("utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config.token_input", f"{path or 'standard input'} cannot be read") from error
    if not text or len(text.split()) != 1:
        raise ConfigError("config.token_input", CODES["config.token_input"])
    return text
