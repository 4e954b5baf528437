"""A log's life among real processes: bodies erased at both parties, and a node that comes back from an old backup."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.processes.desk import Desk, desk  # noqa: F401  # a fixture

KEEPER = """
from agentbus import Agent, Context, Request
from pydantic import BaseModel

class Kept(BaseModel):
    length: int

class Keep(Request[Kept]):
    text: str

keeper = Agent("keeper", erasure="parties")

@keeper.handler
async def keep(request: Keep, ctx: Context) -> Kept:
    return Kept(length=len(request.text))
"""


def opened(desk: Desk) -> Any:  # noqa: F811
    desk.directory()
    desk.enrol("agent", "keeper", "--may-talk-to", "*")
    desk.enrol("user", "user/alice")
    (desk.folder / "keeping.py").write_text(KEEPER)
    return desk.serve("keeping:keeper")


def serve_again(desk: Desk) -> Any:  # noqa: F811
    (desk.folder / "keeping-keeper.ready").unlink(missing_ok=True)
    return desk.serve("keeping:keeper")


def rows(desk: Desk, *nodes: str) -> list[dict[str, Any]]:  # noqa: F811

    text = desk.run("log", "show", *(f"logs/{node}" for node in nodes), "--directory", "data/directory", "--json")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_body_is_erased_in_both_logs_and_both_still_verify(desk: Desk) -> None:  # noqa: F811
    keeper = opened(desk)
    desk.run("request", "keeper", "Keep", '{"text": "a secret"}', "--as", "user/alice")
    asked = next(row for row in rows(desk, "user-alice") if row["action"] == "Keep" and row["kind"] == "request")
    assert "a secret" in asked["body"]
    message = asked["message_id"]
    done = desk.json("log", "redact", "logs/user-alice", message, "--reason", "gdpr-17", "--as", "user/alice")
    assert [one["erased"] for one in done["redacted"]] == [1, 1], done
    again = desk.json("log", "redact", "logs/keeper", message, "--reason", "x", "--here", "--as", "user/alice")
    assert [one["erased"] for one in again["redacted"]] == [0], again  # it runs, so it was asked
    desk.stop(keeper)
    found = [row for row in rows(desk, "user-alice", "keeper") if row["message_id"] == message]
    assert len(found) == 2 and all(row["body"] is None for row in found)
    verdicts = desk.json("log", "verify", "logs/user-alice", "logs/keeper", "--directory", "data/directory")["verdicts"]
    assert verdicts["REDACTED"]["checked"] == 2 and not [n for n, v in verdicts.items() if v["ok"] is False]
    answers = [row for row in rows(desk, "user-alice", "keeper") if row["action"] == "agentbus.Redact"]
    assert {row["kind"] for row in answers} == {"request", "reply"}


def test_a_node_restored_from_a_backup_stops_and_goes_on_in_a_new_epoch(desk: Desk) -> None:  # noqa: F811
    keeper = opened(desk)
    desk.run("request", "keeper", "Keep", '{"text": "one"}', "--as", "user/alice")
    desk.stop(keeper)
    log = desk.folder / "logs" / "keeper"
    shutil.copytree(log, desk.folder / "backup")
    keeper = serve_again(desk)
    for text in ("two", "three"):  # alice's next command hears of the checkpoint that the one before caused
        desk.run("request", "keeper", "Keep", f'{{"text": "{text}"}}', "--as", "user/alice")
        size = (log / "checkpoint").read_bytes()
        until_changed(log / "checkpoint", size)
    desk.run("request", "keeper", "Keep", '{"text": "four"}', "--as", "user/alice")
    desk.stop(keeper)
    shutil.rmtree(log)
    shutil.copytree(desk.folder / "backup", log)
    keeper = serve_again(desk)
    refused = desk.run("request", "keeper", "Keep", '{"text": "five"}', "--as", "user/alice", exit=1)
    assert "agent.gone" in refused or "timed out" in refused or "deadline" in refused, refused
    assert (log / "rolled-back.note").exists()
    assert keeper.wait(20) == 1  # whatever supervises it starts it again
    assert "log.rolled_back" in (keeper.stdout.read() if keeper.stdout else "")
    desk.stop(keeper)
    keeper = serve_again(desk)
    desk.run("request", "keeper", "Keep", '{"text": "six"}', "--as", "user/alice")
    desk.stop(keeper)
    assert (log / "epochs" / "1" / "rolled-back.note").exists()
    verdicts = desk.json("log", "verify", "logs/keeper", "--directory", "data/directory")["verdicts"]
    assert verdicts["INTACT"]["ok"]


def until_changed(path: Path, before: bytes) -> None:
    """Wait for the next checkpoint, which comes within a second of something new."""
    import time

    for _ in range(400):
        if path.read_bytes() != before:
            return
        time.sleep(0.05)
