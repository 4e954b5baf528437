"""What becomes of an identity once it is enrolled: commands that ``agent``, ``user`` and ``service`` share."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from agentbus.cli.node import open_bus
from agentbus.cli.output import as_option, json_option, run_async, say
from agentbus.cli.when import duration, instant
from agentbus.errors import ConfigError

CODES: Final = {
    "config.lost_key": "Options of a rotation that somebody else starts do not go with one that the key itself signs.",
    "config.rotate": "One of --prepare, --activate and --lost-key at a time.",
    "config.not_prepared": "There is no prepared key here to make active.",
}


def add_life(group: click.Group, kind: str) -> None:
    """Give a group the commands of a life; a short NAME is of ``kind``."""

    who_of = partial(full, kind)

    @group.command("rotate")
    @click.argument("who", metavar="NAME")
    @click.option("--overlap", default="1h", show_default=True, help="How long the old key still verifies (≤ 7d).")
    @click.option("--prepare", is_flag=True, help="Only publish the new key; the next rotate makes it active.")
    @click.option("--activate", is_flag=True, help="Only if a key was prepared.")
    @click.option("--lost-key", is_flag=True, help="The key is lost: end its epoch, print a token to enrol again.")
    @as_option
    @json_option
    def rotate(
        who: str, overlap: str, prepare: bool, activate: bool, lost_key: bool, name: str | None, as_json: bool
    ) -> None:
        """Let a new identity key follow NAME's, whose key file is here. Whoever runs from that file goes on serving.

        With --lost-key the owner or the operator does it from anywhere: nothing of the old key counts any more.
        """
        if prepare + activate + lost_key > 1:
            raise ConfigError("config.rotate", CODES["config.rotate"])
        if lost_key:
            from agentbus.runtime.admin import LostKey

            token = run_async(ask(name, LostKey(name=who_of(who))))
            say(token.model_dump(), token.token, as_json=as_json)
            return
        if name is not None:
            raise ConfigError("config.lost_key", "NAME's own key signs its rotation; --as goes with --lost-key")
        if prepare:
            _prepare(who_of(who), as_json)
        else:
            _rotate(who_of(who), duration(overlap).total_seconds(), activate, as_json)

    _add_state(group, who_of, "suspend", "suspended", "Pause NAME: nothing of it counts until it is resumed.")
    _add_state(group, who_of, "resume", "active", "Undo a suspension. What runs of it is asked again within seconds.")
    if kind == "user":
        _add_state(group, who_of, "disable", "suspended", "The same as suspend.")
        _add_state(group, who_of, "enable", "active", "The same as resume.")

    @group.command("taint")
    @click.argument("who", metavar="NAME")
    @click.option("--key", default="", metavar="ID", help="One key only, as show prints it.")
    @as_option
    @json_option
    def taint(who: str, key: str, name: str | None, as_json: bool) -> None:
        """Say that NAME's key was handled carelessly.

        It verifies on, grants nothing new, and must be rotated. This is never undone.
        """
        from agentbus.runtime.admin import Taint

        done = run_async(ask(name, Taint(name=who_of(who), key=key)))
        _said(who, "tainted", done.seq, f"{who} is tainted: `agentbus {kind} rotate {who}` where its key is", as_json)

    @group.command("compromised")
    @click.argument("who", metavar="NAME")
    @click.option("--since", required=True, metavar="INSTANT", help="2026-01-01T12:00:00Z, or how long ago: 2h.")
    @click.option("--key", default="", metavar="ID", help="One key only, as show prints it.")
    @as_option
    @json_option
    def compromised(who: str, since: str, key: str, name: str | None, as_json: bool) -> None:
        """Say that NAME's key is in other hands since an instant.

        Nothing it signed from then on counts, and its epoch ends.
        """
        from agentbus.runtime.admin import Compromised

        at = instant(since, datetime.now(UTC))
        done = run_async(ask(name, Compromised(name=who_of(who), since=at, key=key)))
        after = f"{who} counts no more; `agentbus {kind} rotate {who} --lost-key` lets it enrol again"
        _said(who, "compromised", done.seq, after, as_json)

    @group.command("revoke")
    @click.argument("who", metavar="NAME")
    @click.option("--reason", required=True, help="It stands in the directory's log for ever.")
    @as_option
    @json_option
    def revoke(who: str, reason: str, name: str | None, as_json: bool) -> None:
        """Revoke NAME, its keys and all that rests on them, for good."""

        async def work() -> None:
            async with open_bus(name, listen="") as bus:
                await bus.revoke(who_of(who), reason=reason)

        run_async(work())
        say({"name": who, "state": "revoked"}, f"{who} is revoked", as_json=as_json)

    @group.command("retire")
    @click.argument("who", metavar="NAME")
    @click.option("--reason", default="", help="It stands in the receipt.")
    @click.option("--receipt", type=click.Path(path_type=Path), default=None, metavar="FILE", help="Keep it here.")
    @as_option
    @json_option
    def retire(who: str, reason: str, receipt: Path | None, name: str | None, as_json: bool) -> None:
        """End NAME for good, in good order. `agentbus directory check` verifies the signed receipt of what ended."""
        from agentbus.runtime.admin import Retire

        found = run_async(ask(name, Retire(name=who_of(who), reason=reason))).receipt
        if receipt is not None:
            receipt.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        kept = f"; receipt {receipt}" if receipt else ""
        say({"name": who, "state": "retired", "receipt": found}, f"{who} is retired{kept}", as_json=as_json)


def full(kind: str, name: str) -> str:
    """What NAME means in the group of ``kind``."""
    return name if "/" in name or kind == "agent" else f"{kind}/{name}"


async def ask(name: str | None, request: Any) -> Any:
    """Ask the directory, as NAME."""
    async with open_bus(name, listen="") as bus:
        return await bus.request("service/directory", request)


def _prepare(who: str, as_json: bool) -> None:
    from agentbus.cli.unlock import load
    from agentbus.wire.ids import b64

    before = load(who)
    key = b64(run_async(before.prepare()).key.id)
    value = {"name": who, "old": b64(before.key.id), "prepared": key}
    say(value, f"{who} will have the key {key}; the next rotate makes it active", as_json=as_json)


def _rotate(who: str, overlap: float, prepared: bool, as_json: bool) -> None:
    from agentbus.cli.unlock import load
    from agentbus.wire.ids import b64

    before = load(who)
    if prepared and (before.file is None or not before.file.proposal.path.exists()):
        raise ConfigError("config.not_prepared", f"no key of {who} is prepared here; rotate with --prepare first")
    after = run_async(before.rotate(overlap=overlap))
    value = {"name": who, "old": b64(before.key.id), "new": b64(after.key.id), "overlap": overlap}
    say(value, f"{who} has the new key {b64(after.key.id)}", as_json=as_json)


def _add_state(group: click.Group, who_of: Any, verb: str, state: Any, text: str) -> None:
    @group.command(verb, help=text)
    @click.argument("who", metavar="NAME")
    @as_option
    @json_option
    def command(who: str, name: str | None, as_json: bool) -> None:
        from agentbus.runtime.admin import SetState

        done = run_async(ask(name, SetState(name=who_of(who), state=state)))
        _said(who, state, done.seq, f"{who} is {state}", as_json)


def _said(who: str, state: str, seq: int, text: str, as_json: bool) -> None:
    say({"name": who, "state": state, "seq": seq}, text, as_json=as_json)
