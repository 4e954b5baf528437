"""``agentbus grant`` as people type it, against a directory in a process of its own."""

from __future__ import annotations

from tests.processes.desk import Desk, desk

__all__ = ["desk"]

SHOP = """
from agentbus import Agent, Context, Request
class Buy(Request[str]):
    what: str
shop = Agent("shop")
@shop.handler(scopes=["shop:buy"])
async def buy(request: Buy, ctx: Context) -> str:
    return request.what
"""


def test_grants_by_people(desk: Desk) -> None:
    up = desk.directory()
    (desk.folder / "shop.py").write_text(SHOP)
    desk.enrol("agent", "shop")
    desk.enrol("agent", "helper", "--ceiling", "shop:*", "--may-talk-to", "shop")
    desk.enrol("user", "alice", "--right", "shop:buy")
    shop = desk.serve("shop:shop")

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
