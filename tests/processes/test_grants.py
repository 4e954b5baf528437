"""``agentbus grant`` as people type it, against a directory in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHOP = """
from agentbus import Agent, Context, Request
class Buy(Request[str]):
    what: str
shop = Agent("shop")
@shop.handler(scopes=["shop:buy"])
async def buy(request: Buy, ctx: Context) -> str:
    return request.what
"""


class Desk:
    """One person's shell, and the directory it speaks to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("AGENTBUS_")}
        self.environment |= {"AGENTBUS_HOME": str(folder / "home"), "AGENTBUS_DATA": str(folder / "logs")}
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentbus.cli.main", *arguments], env=self.environment, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.running.append(process)
        return process

    def run(self, *arguments: str, exit: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "agentbus.cli.main", *arguments], env=self.environment, cwd=self.folder,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == exit, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def json(self, *arguments: str, exit: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", exit=exit).splitlines()[0])

    def stop(self, process: subprocess.Popen[str]) -> None:
        self.running.remove(process)
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    for process in reversed(list(made.running)):
        made.stop(process)


def test_grants_by_people(desk: Desk) -> None:
    up = desk.start("up", "--data", str(desk.folder / "data"), "--port", "0")
    assert up.stdout is not None and up.stdout.readline().startswith("bus ")
    (desk.folder / "shop.py").write_text(SHOP)
    for name, more in (("shop", ()), ("helper", ("--ceiling", "shop:*", "--may-talk-to", "shop"))):
        token = desk.run("agent", "create", name, *more).strip()
        desk.run("agent", "enrol", name, "--token", token)
    token = desk.run("user", "create", "alice", "--right", "shop:buy").strip()
    desk.run("user", "enrol", "alice", "--token", token)
    ready = desk.folder / "ready"
    shop = desk.start("run", "shop:shop", "--ready-file", str(ready))
    for _ in range(1200):
        if ready.exists():
            break
        assert shop.poll() is None
        time.sleep(0.05)

    as_alice = ("--as", "user/alice")
    made = desk.json("grant", "create", "helper", "--scope", "shop:buy", "--expires-in", "300", *as_alice)
    capped = desk.json(
        "grant", "create", "helper", "--scope", "shop:buy[amount<=5]", "--out", "capped.grant", *as_alice
    )
    assert capped["scopes"] == ["shop:buy[amount≤5]"]

    listed = desk.json("grant", "list", "--user", "alice", *as_alice)
    assert {(g["id"], g["state"]) for g in listed} == {(made["id"], "valid"), (capped["id"], "valid")}
    assert desk.json("grant", "list", "--user", "bob", *as_alice) == []
    shown = desk.run("grant", "show", made["id"][:10], *as_alice)
    assert "└─ helper: shop:buy" in shown and "state: valid" in shown

    yes = desk.run("grant", "why", "shop", "Buy", "--grant", made["id"][:10], *as_alice)
    assert "allowed" in yes and "✗" not in yes
    no = desk.json("grant", "why", "shop", "Buy", "--grant", "capped.grant", *as_alice, exit=1)
    (refused,) = [check for check in no["checks"] if not check["ok"]]
    assert (refused["code"], refused["what"]) == ("denied.scope", "scope") and refused["allow"]
    fits = ("--require", "shop:buy", "--fact")
    both = [
        desk.json("grant", "why", "shop", "Buy", "--grant", "capped.grant", *fits, f"amount={n}", *as_alice, exit=1)
        for n in (5, 6)
    ]
    assert [len([c for c in found["checks"] if not c["ok"]]) for found in both] == [1, 2]
    mine = desk.run("grant", "why", "shop", "Buy", *as_alice)
    assert "allowed" in mine
    poor = desk.run("grant", "why", "shop", "Buy", "--scope", "shop:sell", *as_alice, exit=1)
    assert "denied.scope" in poor

    desk.run("grant", "revoke", made["id"][:10], "--reason", "done with it", *as_alice)
    assert desk.json("grant", "show", made["id"][:10], *as_alice)["state"] == "revoked"
    gone = desk.run("grant", "why", "shop", "Buy", "--grant", made["id"][:10], *as_alice, exit=1)
    assert "reject.revoked" in gone
    assert [g["id"] for g in desk.json("grant", "list", *as_alice)] == [capped["id"]]
    assert len(desk.json("grant", "list", "--all", *as_alice)) == 2

    desk.stop(shop)
    desk.stop(up)
    away = desk.run("grant", "show", "capped.grant", *as_alice)
    assert "state: unknown" in away and "directory" in away, "what cannot be asked is not guessed"
    assert "is kept here" not in away
    for wrong in (("show", "feed"), ("why", "shop", "Buy", "--fact", "amount"), ("revoke", "feed", "--reason", "x")):
        desk.run("grant", *wrong, *as_alice, exit=2)
