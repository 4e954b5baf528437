"""The code agrees with the vectors of docs/spec, and the vectors are what their script makes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from agentbus.crypto.box import box_name, close_box, open_box
from agentbus.crypto.keys import SigningKey, VerifyKey
from agentbus.crypto.merkle import empty_root, leaf_hash, root_from_path, verify_consistency
from agentbus.crypto.signing import Purpose, pae, sign, verify
from agentbus.delegation.chain import verify_chain
from agentbus.delegation.grant import chain_digest
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError, BadSignature
from agentbus.log.checkpoint import parse_origin, sign_checkpoint, verify_checkpoint
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import EntryKind
from agentbus.log.tiles import ENTRIES, TileReader, decode_bundle, tile_path
from agentbus.log.tlogproof import decode_log_proof, encode_log_proof, verify_log_proof
from agentbus.protocol.opening import Party, open_envelope
from agentbus.wire.header import Header
from agentbus.wire.ids import parse_id

VECTORS = Path(__file__).parent.parent / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


def cases(name: str, under: str = "cases") -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in load(name)[under]]


def trust_of(vector: Any, then: list[str] | None = None) -> Trust:
    trust = Trust.pinned(bytes.fromhex(vector["root"]))
    trust = trust.advance(map(bytes.fromhex, vector["entries"]), now=vector["now"])
    trust = trust.advance(map(bytes.fromhex, vector["statements"]), now=vector["now"])
    return trust.advance(map(bytes.fromhex, then or []), now=vector["now"])


DIRECTORY, CHAIN, ENVELOPE = load("directory"), load("chain"), load("envelope")


def test_the_script_makes_these_files_byte_for_byte() -> None:
    spec = importlib.util.spec_from_file_location("vectors_make", VECTORS / "make.py")
    assert spec is not None and spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert {p.name for p in VECTORS.glob("*.json")} == set(make.FILES)
    for name, made in make.FILES.items():
        assert (VECTORS / name).read_bytes() == make.render(made()).encode("utf-8"), name


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("vector", load("keys")["keys"])
def test_a_thumbprint_and_a_signature(vector: Any) -> None:
    key, body, purpose = SigningKey(bytes.fromhex(vector["seed"])), bytes.fromhex(vector["body"]), Purpose.GRANT
    assert vector["purpose"] == purpose.value
    assert key.public.raw.hex() == vector["public"]
    assert key.id.hex() == vector["thumbprint"]
    assert pae(purpose, body).hex() == vector["pae"]
    assert sign(key, purpose, body).hex() == vector["signature"]


def test_a_signature_verifies_for_its_purpose_alone() -> None:
    vectors = load("keys")
    assert vectors["purposes"] == [p.value for p in Purpose]
    for vector in vectors["keys"]:
        key, signature = VerifyKey(bytes.fromhex(vector["public"])), bytes.fromhex(vector["signature"])
        for purpose in Purpose:
            if purpose.value == vector["purpose"]:
                verify(key, purpose, bytes.fromhex(vector["body"]), signature)
            else:
                with pytest.raises(BadSignature):
                    verify(key, purpose, bytes.fromhex(vector["body"]), signature)


@pytest.mark.parametrize("case", cases("keys", "invalid"))
def test_a_weak_key_is_refused(case: Any) -> None:
    with pytest.raises(AgentBusError) as caught:
        VerifyKey(bytes.fromhex(case["public"]))
    assert caught.value.code == case["code"]


# ── merkle ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_trees_and_their_paths() -> None:
    vector = load("merkle")
    leaves = [leaf_hash(bytes.fromhex(item)) for item in vector["data"]]
    assert [leaf.hex() for leaf in leaves] == vector["leaves"]
    assert empty_root().hex() == vector["empty_root"]
    for tree in vector["trees"]:
        for index, path in enumerate(tree["paths"]):
            root = root_from_path(leaves[index], index, tree["size"], [bytes.fromhex(p) for p in path])
            assert root.hex() == tree["root"]


def test_consistency_between_trees() -> None:
    vector = load("merkle")
    roots = {tree["size"]: bytes.fromhex(tree["root"]) for tree in vector["trees"]}
    for proof in vector["consistency"]:
        first, second = proof["first"], proof["second"]
        verify_consistency(first, second, roots[first], roots[second], [bytes.fromhex(p) for p in proof["proof"]])


@pytest.mark.parametrize("case", cases("merkle", "invalid"))
def test_a_path_of_another_form_is_refused(case: Any) -> None:
    with pytest.raises(AgentBusError) as caught:
        root_from_path(
            bytes.fromhex(case["leaf"]), case["index"], case["size"], [bytes.fromhex(p) for p in case["path"]]
        )
    assert caught.value.code == case["code"]


# ── directory ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_log_leads_to_its_state() -> None:
    trust = trust_of(DIRECTORY)
    assert trust.domain == DIRECTORY["domain"]
    assert trust.size == DIRECTORY["size"] == len(DIRECTORY["entries"])
    assert trust.revocation_seq == DIRECTORY["revocation_seq"]
    assert trust.frontier.root().hex() == DIRECTORY["tree_root"]
    assert trust.max_age == DIRECTORY["max_age"]


@pytest.mark.parametrize("case", cases("directory"))
def test_a_statement(case: Any) -> None:
    trust, statement = trust_of(DIRECTORY), bytes.fromhex(case["statement"])
    if case["code"] is None:
        trust.advance(statement, now=DIRECTORY["now"])
        return
    with pytest.raises(AgentBusError) as caught:
        trust.advance(statement, now=DIRECTORY["now"])
    assert caught.value.code == case["code"]


@pytest.mark.parametrize("case", cases("directory", "heads"))
def test_a_head(case: Any) -> None:
    trust, note = trust_of(DIRECTORY), case["note"].encode()
    if case["code"] is None:
        assert trust.accept_head(note, sent_at=1).age(3) == 2
        return
    with pytest.raises(AgentBusError) as caught:
        trust.accept_head(note, sent_at=1)
    assert caught.value.code == case["code"]


# ── chains ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("case", cases("chain"))
def test_a_chain(case: Any) -> None:
    trust, chain = trust_of(CHAIN, case.get("then")), bytes.fromhex(case["chain"])
    if case["code"] is not None:
        with pytest.raises(AgentBusError) as caught:
            verify_chain(chain, trust=trust, now=CHAIN["now"])
        assert caught.value.code == case["code"]
        return
    authority = verify_chain(chain, trust=trust, now=CHAIN["now"])
    assert chain_digest(chain).hex() == case["digest"]
    assert [link.digest.hex() for link in authority.links] == case["link_digests"]
    assert (authority.subject, authority.holder) == (case["subject"], case["holder"])
    assert list(authority.scopes) == case["scopes"]
    assert authority.expires_at == case["expires"]


# ── envelopes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def opened(case: Any) -> Any:
    seen = {(who, bytes.fromhex(s), bytes.fromhex(r), n) for who, s, r, n in case.get("seen", [])}
    open_here = {
        (bytes.fromhex(o["digest"]), o["answering"]): Party(
            o["principal"], bytes.fromhex(o["instance"]), bytes.fromhex(o["mine"])
        )
        for o in case.get("open", [])
    }

    def was_seen(header: Header) -> bool:
        return (header.sender, header.sender_instance, header.recipient_instance, header.peer_seq) in seen

    return open_envelope(
        bytes.fromhex(case["frame"]),
        me={bytes.fromhex(instance): parse_id(who) for instance, who in ENVELOPE["me"].items()},
        trust=trust_of(ENVELOPE, case.get("then")),
        now=case.get("now", ENVELOPE["now"]),
        seen=was_seen,
        exchanges=lambda digest, answering: open_here.get((digest, answering)),
        peer=bytes.fromhex(case["peer"]) if "peer" in case else None,
    )


@pytest.mark.parametrize("case", cases("envelope"))
def test_a_frame(case: Any) -> None:
    if case["code"] is not None:
        with pytest.raises(AgentBusError) as caught:
            opened(case)
        assert caught.value.code == case["code"]
        return
    message = opened(case)
    expect = case.get("expect")
    if expect:
        assert message.digest.hex() == expect["digest"]
        assert message.envelope.header.hex() == expect["header"]
        assert message.body.decode() == expect["body"]
        assert message.header.sender == expect["sender"]
        assert message.authority.holder == expect["holder"]
        assert message.authority.user == expect["user"]
        assert message.handover.holder == expect["handed_to"]


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

LOG = load("log")


def test_entries_and_their_leaves() -> None:
    kinds = []
    for at, (item, leaf) in enumerate(zip(LOG["entries"], LOG["leaves"], strict=True)):
        data = bytes.fromhex(item["data"])
        found = decode_entry(data)
        kinds.append(EntryKind(found.kind))
        assert (kinds[-1].name, found.position, leaf_hash(data).hex()) == (item["kind"], at, leaf)
    assert set(kinds) == set(EntryKind)


def test_a_checkpoint_and_the_tiles_under_it() -> None:
    key = SigningKey(bytes.fromhex(LOG["seed"]))
    said = verify_checkpoint(LOG["checkpoint"].encode(), LOG["origin"], key.public)
    tiles = {path: bytes.fromhex(data) for path, data in LOG["tiles"].items()}
    assert key.public.raw.hex() == LOG["public"] and said.size == len(LOG["entries"])
    reader = TileReader(said.size, tiles.get)
    assert reader.root() == said.root and [reader.leaf(at).hex() for at in range(said.size)] == LOG["leaves"]
    bundle = tiles[tile_path(ENTRIES, 0, said.size)]
    assert [data.hex() for data in decode_bundle(bundle)] == [item["data"] for item in LOG["entries"]]
    assert sign_checkpoint(LOG["origin"], said.size, said.root, key).decode() == LOG["checkpoint"]


@pytest.mark.parametrize("text", LOG["proofs"])
def test_a_log_proof(text: str) -> None:
    proof = decode_log_proof(text.encode())
    data = bytes.fromhex(LOG["entries"][proof.position]["data"])
    verify_log_proof(proof, data, LOG["origin"], VerifyKey(bytes.fromhex(LOG["public"])))
    assert encode_log_proof(proof).decode() == text


def test_a_box() -> None:
    content, key, box, name = (bytes.fromhex(LOG["box"][part]) for part in ("content", "key", "box", "name"))
    assert close_box(content, key) == box and open_box(box, key) == content and box_name(box) == name


@pytest.mark.parametrize("case", LOG["invalid"]["entries"], ids=lambda c: c["name"])
def test_an_entry_that_must_be_refused(case: Any) -> None:
    with pytest.raises(AgentBusError) as caught:
        decode_entry(bytes.fromhex(case["data"]))
    assert caught.value.code == case["code"]


@pytest.mark.parametrize("case", LOG["invalid"]["proofs"], ids=lambda c: c["name"])
def test_a_log_proof_that_must_be_refused(case: Any) -> None:
    data = bytes.fromhex(LOG["entries"][case["entry"]]["data"])
    with pytest.raises(AgentBusError) as caught:
        proof = decode_log_proof(case["proof"].encode())
        verify_log_proof(proof, data, LOG["origin"], VerifyKey(bytes.fromhex(LOG["public"])))
    assert caught.value.code == case["code"]


def test_origins() -> None:
    for text in LOG["origins"]["good"]:
        assert str(parse_origin(text)) == text
    for text in LOG["origins"]["invalid"]:
        with pytest.raises(AgentBusError) as caught:
            parse_origin(text)
        assert caught.value.code == "malformed.origin"
