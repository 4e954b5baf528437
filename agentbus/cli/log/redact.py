"""``agentbus log redact``: erase one body, here and at the other party."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentbus.cli.log.options import FOLDER
from agentbus.cli.naming import Naming, as_named
from agentbus.cli.output import as_option, json_option, run_async, say

if TYPE_CHECKING:
    from agentbus.log.entry import Message


@click.command(cls=Naming)
@click.argument("path", metavar="DIR", type=FOLDER)
@click.argument("message", metavar="MESSAGE", callback=as_named)
@click.option("--reason", required=True, metavar="CODE", help="A short code; it stays on the record for ever.")
@click.option("--here", "here_only", is_flag=True, help="Do not ask the other party.")
@as_option
@json_option
def redact(path: Path, message: str, reason: str, here_only: bool, name: str | None, as_json: bool) -> None:
    """Erase the body of MESSAGE; its record still verifies.

    MESSAGE is its id, its digest or its position in the log. The other party of the message is asked by a signed
    request, whose answer is on the record. Where the node of this log runs, it is asked as well. Exit 1 if somebody did
    not erase it.
    """
    from agentbus.log.messageproof import find_message
    from agentbus.log.read import read_log
    from agentbus.log.redact import check_reason

    check_reason(reason)
    found = find_message(read_log(path), message)
    done = [_here(path, found, reason, name)]
    if not here_only or done[0]["erased"] is None:
        done = run_async(_ask(found, reason, name, [] if done[0]["erased"] is None else done, here_only))
    lines = []
    for one in done:
        erased = one["erased"]
        what = (
            f"{erased} {'body' if erased == 1 else 'bodies'} erased"
            if erased is not None
            else f"not erased: {one['why']}"
        )
        what += f" [{one['code']}]" if "code" in one else ""
        lines.append(f"{one['where']}: {what}")
    ok = all(one["erased"] is not None for one in done)
    say({"ok": ok, "redacted": done}, "\n".join(lines), as_json=as_json)
    if not ok:
        raise click.exceptions.Exit(1)


def _here(path: Path, found: Message, reason: str, name: str | None) -> dict[str, Any]:
    """Erase it in a log whose node does not run; where it runs, it has to be asked."""
    import time

    from agentbus.crypto.keys import SigningKey
    from agentbus.crypto.merkle import leaf_hash
    from agentbus.errors import LogError
    from agentbus.log.checkpoint import parse_origin
    from agentbus.log.read import read_log
    from agentbus.log.redact import redact as redact_in
    from agentbus.logstore.epochs import open_epoch

    origin, now = parse_origin(read_log(path).origin or ""), time.time_ns() // 1000
    try:
        key = SigningKey((path / "log.key").read_bytes())
        log = open_epoch(path, key=key, domain=origin.domain, node=origin.node, now=now)
    except LogError as error:
        if error.code != "log.locked":
            raise
        return {"where": str(path), "erased": None, "why": error.message, "code": error.code}
    try:
        erased = redact_in(log, leaf_hash(found.header), authority=name or "local", reason=reason, now=now)
    finally:
        log.close()
    return {"where": str(path), "erased": erased}


async def _ask(
    found: Message, reason: str, name: str | None, done: list[dict[str, Any]], here_only: bool
) -> list[dict[str, Any]]:
    """Ask who has it: the other party, and the node of this log where it runs."""
    from agentbus.cli.node import open_bus
    from agentbus.crypto.merkle import leaf_hash
    from agentbus.errors import AgentBusError
    from agentbus.log.entry import Sent
    from agentbus.runtime.redaction import Redact
    from agentbus.wire.header import decode_header
    from agentbus.wire.ids import b64, parse_id
    from agentbus.wire.limits import LIMITS

    header = decode_header(found.header, LIMITS)
    mine, other = header.sender, header.recipient
    if not isinstance(found, Sent):
        mine, other = other, mine
    asked = ([] if done else [mine]) + ([] if here_only else [other])
    answers = list(done)
    async with open_bus(name or parse_id(mine).short, listen="") as bus:
        for who in asked:
            short = parse_id(who).short
            try:
                wanted = Redact(message=b64(leaf_hash(found.header)), reason=reason)
                answer = await bus.request(short, wanted, timeout=30)
                answers.append({"where": short, "erased": answer.erased})
            except AgentBusError as error:
                answers.append({"where": short, "erased": None, "why": error.message, "code": error.code})
    return answers
