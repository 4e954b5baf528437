"""``agentbus log prove`` and ``check-proof``: one message, shown to somebody who was not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentbus.cli.log.options import FOLDER, directory_option
from agentbus.cli.naming import Naming, as_named
from agentbus.cli.output import json_option, say
from agentbus.cli.pin import pinned_root, root_key, root_option


@click.command(cls=Naming)
@click.argument("path", metavar="DIR", type=FOLDER)
@click.argument("message", metavar="MESSAGE", callback=as_named)
@directory_option
@root_option
@click.option("--without-body", is_flag=True, help="Prove that it was sent and by whom, and show nothing of what.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="MESSAGE.proof.json here.")
@json_option
def prove(
    path: Path, message: str, directory: Path, root: str | None, without_body: bool, out: Path | None, as_json: bool
) -> None:
    """Write one file that proves MESSAGE, and no other.

    MESSAGE is its id, its digest or its position in the log.
    """
    from agentbus.audit import read_events
    from agentbus.log.messageproof import check_message_proof, prove_message
    from agentbus.log.read import read_log
    from agentbus.wire.ids import b64

    key = root_key(root)
    proof = prove_message(
        read_log(path), message, events=read_events(directory), root=key, with_body=not without_body
    ).encode()
    report, shown = check_message_proof(proof, root=key)  # nobody is handed a proof that does not hold
    out = out or Path(f"{shown.header.message_id.hex()}.proof.json")
    out.write_bytes(proof)
    made: dict[str, Any] = {"file": str(out), "digest": b64(shown.digest), "bytes": len(proof), "ok": report.ok}
    say(made, f"{out}: {len(proof)} bytes; `agentbus log check-proof {out} --root {b64(key)}`", as_json=as_json)
    if not report.ok:
        raise click.exceptions.Exit(1)


@click.command("check-proof")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@root_option
@json_option
def check_proof(file: Path, root: str | None, as_json: bool) -> None:
    """Judge a proof offline. Nothing but FILE and the pinned root key is read. Exit 1 if it does not hold."""
    from agentbus.cli.log.verify import verdict_lines
    from agentbus.log.messageproof import check_message_proof
    from agentbus.wire.ids import unb64

    pinned = pinned_root(root)
    report, shown = check_message_proof(file.read_bytes(), root=unb64(pinned, 32))
    facts = shown.facts()
    lines = [f"root key {pinned}", *verdict_lines(report, judged=True)]
    lines += [f"{name:14} {value}" for name, value in facts.items() if value is not None]
    say({**report.as_dict(), "message": facts, "root": pinned}, "\n".join(lines), as_json=as_json)
    if not report.ok:
        raise click.exceptions.Exit(1)
