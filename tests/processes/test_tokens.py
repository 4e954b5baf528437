"""``agentbus token`` as people type it: an identity provider's token, a grant, an access token that others verify."""

from __future__ import annotations

import json
import time

import jwt

from tests.authn.idp import AUDIENCE, IDP, IdentityProvider
from tests.processes.desk import Desk, desk

__all__ = ["desk"]


def test_tokens_by_people(desk: Desk) -> None:
    provider = IdentityProvider()
    desk.directory("--domain", "agents.example")
    desk.enrol("agent", "app", "--ceiling", "docs:*", "--may-talk-to", "*")
    desk.enrol("agent", "archive")
    desk.enrol("user", "ann", "--right", "docs:read")
    as_app = ("--as", "app")

    token = provider.token(time.time(), sub="ann")
    nobody = desk.run("token", "exchange", "--scope", "docs:read", *as_app, given=token, exit=1)
    assert "reject.token_issuer" in nobody and token not in nobody

    (desk.folder / "keys.json").write_text(json.dumps(provider.jwks))
    rule = (IDP, "--jwks", "keys.json", "--audience", AUDIENCE, "--client", "web=app", "--scope", "docs:*")
    consents = ("--consent-by", "app", "--consent-seconds", "7200")
    assert "not_operator" in desk.run("token", "issuer", "add", *rule, *as_app, exit=1)
    shown = desk.run("token", "issuer", "add", *rule, *consents)
    assert f"{IDP}  active" in shown and "web=app: docs:*" in shown and "ed (EdDSA)" in shown
    (listed,) = desk.json("token", "issuer", "list", *as_app)["issuers"]
    assert listed["consent_by"] == ["app"] and listed["active"]

    held = desk.json("token", "exchange", "--scope", "docs:read", "--scope", "docs:write", *as_app, given=token)
    assert (held["root_kind"], held["scopes"]) == ("token", ["docs:read"])
    again = desk.run("token", "exchange", "--scope", "docs:read", *as_app, given=token, exit=1)
    assert "reject.token_replayed" in again
    consent = ("--consent", "May it read?", "--expires-in", "3600", "--out", "ann.grant")
    (desk.folder / "t.jwt").write_text(provider.token(time.time(), sub="ann") + "\n")
    agreed = desk.run("token", "exchange", "--scope", "docs:read", *consent, "--file", "t.jwt", *as_app)
    assert "(consent root)" in agreed and "└─ app: docs:read" in agreed
    assert {g["root_kind"] for g in desk.json("grant", "list", *as_app)} == {"token", "consent"}

    made = desk.run(
        "token", "exchange", "--audience", "archive", "--grant", held["id"][:8], "--scope", "docs:read", *as_app
    ).strip()
    keys = jwt.PyJWKSet.from_dict(desk.json("token", "keys", *as_app))
    claims = jwt.decode(
        made, keys[jwt.get_unverified_header(made)["kid"]], ["EdDSA"], audience="spiffe://agents.example/agent/archive",
        issuer="spiffe://agents.example",
    )  # fmt: skip
    assert claims["sub"] == "spiffe://agents.example/user/ann" and claims["scope"] == "docs:read"
    assert claims["act"] == {"sub": "spiffe://agents.example/agent/app"}
    assert "active       True" in desk.run("token", "inspect", "--as", "archive", given=made)
    assert desk.run("token", "revoke", "--as", "archive", given=made).strip() == "it counts no more"
    assert desk.json("token", "inspect", *as_app, given=made, exit=1)["code"] == "reject.token_revoked"

    assert f"{IDP}  ended" in desk.run("token", "issuer", "end", IDP)
    state = desk.json("grant", "show", held["id"][:8], *as_app)
    assert (state["state"], state["code"]) == ("refused", "reject.issuer")
    agreed = desk.json("grant", "show", "ann.grant", *as_app)  # that she agreed, the issuer's token said
    assert (agreed["state"], agreed["code"]) == ("refused", "reject.consent")

    for given, arguments in (
        ("", ("inspect",)),
        ("two words", ("inspect",)),
        ("x", ("issuer", "add", *rule[:2], "missing.json", *rule[3:])),
        ("x", ("issuer", "add", *rule[:6], "web", *rule[7:])),
    ):
        desk.run("token", *arguments, exit=2, given=given)
