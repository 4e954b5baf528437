"""What is wrong with a command about grants or tokens is said before any bus is opened."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from agentbus.cli.main import main

RULE = ["--audience", "a", "--scope", "docs:*"]


@pytest.mark.parametrize(
    ("arguments", "given", "code"),
    [
        (["grant", "show", "feedfeed"], "", "config.grant_unknown"),
        (["grant", "show", "broken.grant"], "", "config.grant_file"),
        (["grant", "revoke", "feedfeed", "--reason", "x"], "", "config.grant_unknown"),
        (["grant", "why", "bank", "Pay", "--fact", "amount"], "", "config.fact"),
        (["grant", "why", "bank", "Pay", "--fact", "=5"], "", "config.fact"),
        (["token", "inspect"], "", "config.token_input"),
        (["token", "inspect"], "two words", "config.token_input"),
        (["token", "revoke", "--file", "missing"], "", "config.token_input"),
        (["token", "exchange", "--scope", "a"], "\n", "config.token_input"),
        (["token", "issuer", "add", "i", "--jwks", "missing", "--client", "w=a", *RULE], "", "config.jwks"),
        (["token", "issuer", "add", "i", "--jwks", "empty.json", "--client", "w=a", *RULE], "", "config.jwks"),
        (["token", "issuer", "add", "i", "--jwks", "keys.json", "--client", "web", *RULE], "", "config.client"),
        (["token", "issuer", "add", "i", "--jwks", "keys.json", "--client", "=app", *RULE], "", "config.client"),
    ],
)
def test_wrong_use_is_told_with_its_code(
    arguments: list[str], given: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    (tmp_path / "broken.grant").write_bytes(b"no grant")
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "keys.json").write_text('{"keys": []}')
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--json"])
    assert stopped.value.code == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code and error["message"]


def test_a_revocation_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agentbus.testing.draw import chain_bytes, draw_chain, draw_world

    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path / "home"))
    path = tmp_path / "a.grant"
    path.write_bytes(chain_bytes(draw_chain("alice -[]-> carol", world=draw_world("carol"))))
    with pytest.raises(SystemExit) as stopped:
        main(["grant", "revoke", str(path), "--reason", " ", "--json"])
    assert stopped.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "config.reason"
