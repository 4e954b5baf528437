"""The page of threats is whole: every attack that the design names has its line there, with a check and a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

THREATS = (Path(__file__).parents[2] / "docs" / "threats.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.strip()[1:-1].split("|")]
    for line in THREATS.splitlines()
    if line.startswith("|") and not re.match(r"\|(-|\s*attack)", line)
]

ATTACKS = {
    "splice": "splice two chains",
    "graft": "graft a link",
    "reorder": "reorder or repeat links",
    "drop": "drop a link",
    "truncate": "truncate",
    "a stripped chain sent back": "send the rest back to its holder",
    "a handover forwarded": "forward a handover",
    "widen scope": "widen a scope",
    "cycle": "a cycle",
    "depth bomb": "a depth bomb",
    "expired middle": "an expired link in the middle",
    "revoked middle": "a revoked link",
    "wrong audience": "a chain for another recipient",
    "exchange with a parameter left out": "a parameter left out",
    "exchange of a revoked ancestor": "an exchange of a revoked ancestor",
    "empty scope": "an empty scope",
    "other client's scope": "another client's token",
    "algorithm confusion and none": "algorithm confusion",
    "key injection": "a key brought along",
    "unknown crit": "an unknown `crit`",
    "JWS JSON, duplicate keys": "JWS in JSON form",
    "weak keys": "a key of small or mixed order",
    "S beyond L": "S ≥ L",
    "registering someone else's key": "register somebody else's key",
    "one artefact as another": "one artefact used as another",
    "replay": "replay to the same instance",
    "reflection": "reflect a message",
    "cross-recipient": "send to another recipient",
    "cross-bus": "of another trust domain",
    "sender not bound to connection": "over another's connection",
    "signing what the attacker shaped": "bytes that the attacker shaped",
    "verdict caching": 'a cached "valid"',
    "time of check, time of use": "between the check and the use",
    "retroactive use of a stolen key": "use a stolen key for what was before",
    "confused deputy": "confused deputy",
    "unknown parent": "a parent that is unknown",
    "a hook that fails open": "a check that fails open",
    "flood from a valid peer": "a flood of good messages",
    "log rewrite": "rewrite, insert or delete a record",
    "log truncation": "cut records off",
    "log fork": "(fork)",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_of_the_design_has_its_line(attack: str) -> None:
    found = [row for row in ROWS if ATTACKS[attack] in row[0]]
    assert len(found) >= 1, f"no line speaks of {ATTACKS[attack]!r}"
    assert re.search(r"`(tests|agentbus)/[^`]+::\w+`|vector", found[0][3])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"[^a-z0-9 ]", "", row[0].lower())[:40])
def test_every_line_names_a_check_and_a_test(row: list[str]) -> None:
    assert len(row) == 4, "attack, check, code, test"
    attack, check, _, shown = row
    assert attack and check
    assert re.search(r"`(tests|agentbus)/[^`]+::\w+`|vectors? \"", shown), f"{attack}: no test shows it"
