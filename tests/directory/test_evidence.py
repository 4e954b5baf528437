"""Evidence is believed for what it shows, and not for what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.note import Checkpoint, sign_note
from agentbus.delegation.statements import KeyEvent, directory_id, directory_origin
from agentbus.directory import evidence, life
from agentbus.directory.receipt import Retirement, read_receipt
from agentbus.errors import AgentBusError
from agentbus.testing.draw import seed
from agentbus.wire.ids import b64, unb64
from tests.directory.registry import Registry

Json = dict[str, Any]


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.enrol("planner")
    made.enrol("other")
    return made


def receipt(registry: Registry) -> Json:
    who = registry.core.trust.curve_keys
    planner = next(p for p in who.values() if p.name == "planner")
    data = life.retire(registry.core, planner, now=registry.tick(), reason="moved")
    registry.core.time_leaf(b"later", now=registry.tick())
    return evidence.receipt_of(registry.core, data, now=registry.tick())


def verdict(registry: Registry, data: Json, root: bytes | None = None) -> str:
    try:
        evidence.check(json.dumps(data), registry.root.id if root is None else root)
    except AgentBusError as error:
        return error.code
    return "good"


def test_a_receipt_is_verified_with_nothing_but_the_pin(registry: Registry) -> None:
    data = receipt(registry)
    told = evidence.check(json.dumps(data), registry.root.id)
    assert told["kind"] == "retirement" and told["reason"] == "moved" and len(told["keys"]) == 1
    assert verdict(registry, data, bytes(32)) == "reject.evidence"


def resigned(data: Json, key: SigningKey, **changes: Any) -> Json:
    told, _ = read_receipt(unb64(data["receipt"]))
    return {**data, "receipt": b64(told._replace(**changes).signed_by(key))}


@pytest.mark.parametrize("changes", [{"keys": []}, {"principal": "spiffe://local.test/agent/other"}, {"first": 0},
                                     {"keys": [bytes(32)]}, {"size": 9}])  # fmt: skip
def test_a_receipt_that_says_otherwise_than_the_log_is_refused(registry: Registry, changes: Json) -> None:
    """Even the directory cannot give a receipt for what it did not write down."""
    data = receipt(registry)
    assert verdict(registry, resigned(data, registry.core.keys.identity, **changes)) == "reject.evidence"


def test_a_forged_receipt_is_refused(registry: Registry) -> None:
    data = receipt(registry)
    for key in (SigningKey(seed("thief")), registry.core.keys.head, registry.core.keys.consent, registry.root):
        assert verdict(registry, resigned(data, key)) == "reject.evidence"
    raw = bytearray(unb64(data["receipt"]))
    for at in range(len(raw)):
        raw[at] ^= 1
        assert verdict(registry, {**data, "receipt": b64(bytes(raw))}) != "good", at
        raw[at] ^= 1
    assert verdict(registry, data) == "good"


def _drop_entry(data: Json) -> Json:
    return {**data, "entries": data["entries"][1:]}


def _swap_paths(data: Json) -> Json:
    first, second = data["entries"][:2]
    return {**data, "entries": [{**first, "path": second["path"]}, {**second, "path": first["path"]}]}


def _other_root(data: Json) -> Json:
    return {**data, "root": data["root"][:1]}


def _no_head(data: Json) -> Json:
    return {**data, "head": data["head"].replace("\n", "\n\n", 1)}


def _junk(data: Json) -> Json:
    return {"v": 1, "kind": "retirement"}


@pytest.mark.parametrize("change", [_drop_entry, _swap_paths, _other_root, _no_head, _junk])
def test_a_receipt_with_parts_left_out_or_swapped_is_refused(
    registry: Registry, change: Callable[[Json], Json]
) -> None:
    assert verdict(registry, change(receipt(registry))) in (
        "reject.evidence",
        "malformed.evidence",
        "malformed.note",
        "malformed.path",
    )


# ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_entry_is_proven_to_be_in_the_log_and_at_no_other_place(registry: Registry) -> None:
    core = registry.core
    by = directory_id(core.domain)
    core.revoke("key", bytes(32), revoker=by, reason="", now=registry.now)
    entries, note = list(core.store.entries()), core.head(registry.now)
    for at in range(len(entries)):
        data = evidence.entry_of(entries, at, note)
        told = evidence.check(json.dumps(data), registry.root.id)
        assert (told["kind"], told["entry"], told["size"]) == ("entry", at, len(entries))
        row = data["entries"][0]
        other = evidence.entry_of(entries, (at + 1) % len(entries), note)["entries"][0]
        for wrong in ({**row, "index": other["index"]}, {**row, "entry": other["entry"]},
                      {**row, "path": other["path"]}, {**row, "path": row["path"][1:]}):  # fmt: skip
            if wrong != row:
                assert verdict(registry, {**data, "entries": [wrong]}) in ("reject.evidence", "malformed.path")
        assert verdict(registry, {**data, "head": head(registry, len(entries), b"x" * 32).decode()}) != "good"
        assert verdict(registry, data, bytes(32)) == "reject.evidence"


# ── forks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def head(registry: Registry, size: int, root: bytes, key: SigningKey | None = None, revocations: int = 0) -> bytes:
    origin = directory_origin(registry.core.domain)
    text = Checkpoint(origin, size, root, (f"instant {registry.now}", f"revocations {revocations}")).text
    return sign_note(text, origin, key or registry.core.keys.head)


def test_two_heads_of_one_size_are_evidence_and_two_of_different_sizes_are_not(registry: Registry) -> None:
    core = registry.core
    roots = evidence.root_entries(core.store.entries())
    honest = core.head(registry.now)
    size = core.trust.size
    lie = head(registry, size, b"x" * 32)
    assert verdict(registry, evidence.fork_of_heads(roots, honest, lie)) == "good"
    assert verdict(registry, evidence.fork_of_heads(roots, honest, core.head(registry.tick()))) == "reject.evidence"
    assert verdict(registry, evidence.fork_of_heads(roots, honest, head(registry, size + 1, b"x" * 32))) != "good"
    assert verdict(registry, evidence.fork_of_heads(roots, honest, head(registry, size, b"x" * 32, registry.root))) == (
        "reject.evidence"
    )
    other_count = head(registry, size, core.trust.frontier.root(), revocations=1)
    assert verdict(registry, evidence.fork_of_heads(roots, honest, other_count)) == "good"


def test_a_head_beside_the_entries_it_does_not_cover_is_evidence(registry: Registry) -> None:
    core = registry.core
    entries = list(core.store.entries())
    roots = evidence.root_entries(entries)
    lie = head(registry, len(entries), b"x" * 32)
    assert verdict(registry, evidence.fork_of_log(roots, lie, entries)) == "good"
    assert verdict(registry, evidence.fork_of_log(roots, core.head(registry.now), entries)) == "reject.evidence"


def test_nobody_frames_a_directory_with_entries_it_did_not_sign(registry: Registry) -> None:
    core = registry.core
    entries = list(core.store.entries())
    roots, honest = evidence.root_entries(entries), core.head(registry.now)
    forged = KeyEvent(len(entries) - 1, registry.now, core.domain, "time", core.domain, [b"mine"])
    for wrong in (
        [*entries[:-1], forged.signed_by(SigningKey(seed("thief"))).encode()],
        [*entries[:-1], entries[-2]],
        entries[:-1],
        [*entries[:-2], entries[-1], entries[-2]],
    ):
        assert verdict(registry, evidence.fork_of_log(roots, honest, wrong)) == "reject.evidence"


def test_a_receipt_has_one_form() -> None:
    made = Retirement("d", "spiffe://d/agent/a", 1, "", 0, 1, [b"k"], [], [], [7], [])  # type: ignore[arg-type]
    data = made.signed_by(SigningKey(seed("k")))
    assert read_receipt(data)[0] == made
    others = (made._replace(keys=["k"]), made._replace(consents=[b"7"]))  # type: ignore[list-item]
    for junk in (b"", data[:-1], data + b"x", *(other.signed_by(SigningKey(seed("k"))) for other in others)):
        with pytest.raises(AgentBusError):
            read_receipt(junk)
