"""Makes the vectors of docs/spec from fixed seeds: ``python tests/vectors/make.py`` writes the same bytes each time.

Every byte string is in hexadecimal. The keys are made from public texts, so they protect nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentbus.crypto.box import box_name, close_box
from agentbus.crypto.keys import SigningKey, thumbprint
from agentbus.crypto.merkle import Tree, leaf_hash, root_and_paths, root_of
from agentbus.crypto.signing import Purpose, pae, sign
from agentbus.delegation.grant import Grant, Link, chain_digest, encode_link
from agentbus.delegation.scope import AtMost, OneOf, Scope, scopes
from agentbus.delegation.statements import KeyEvent, Revocation, Rotation, Signed, directory_id
from agentbus.log import entry
from agentbus.log.checkpoint import sign_checkpoint
from agentbus.log.decoding import decode_entry
from agentbus.log.tiles import ENTRIES, TileTree, encode_bundle, tile_path
from agentbus.log.tlogproof import LogProof, encode_log_proof
from agentbus.protocol.sealing import Batch, Draft, batch_body, commit_body
from agentbus.testing.draw import (
    NOON,
    Actor,
    World,
    alter,
    chain_bytes,
    draw_chain,
    draw_world,
    extend,
    reorder,
    resign,
    seed,
    sign_link,
    splice,
    standing,
    strip,
)
from agentbus.wire.codec import pack
from agentbus.wire.frame import Envelope, Proof, encode_frame, encode_proof
from agentbus.wire.header import Header, Kind, encode_header
from agentbus.wire.limits import SECOND

HERE = Path(__file__).parent
Json = dict[str, Any]


def world() -> World:
    """User alice with every right; agents carol, dave and erin; all of them running."""
    return draw_world("carol", "dave", "erin", ceiling=("docs:*", "pay"))


def trust_of(of: World) -> Json:
    """What a verifier has to know: the pin, the directory's log, the instance statements."""
    return {
        "root": of.root.id.hex(),
        "now": of.now,
        "entries": [entry.hex() for entry in of.entries],
        "statements": [of.trust.statements[key].hex() for key in sorted(of.trust.statements)],
    }


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def keys() -> Json:
    """Thumbprints, signatures under PAE, and keys that must be refused."""
    good = []
    for name in ("one", "two", "three"):
        key = SigningKey(seed("vector", name))
        body = f"body {name}".encode()
        good.append(
            {
                "seed": key.seed.hex(),
                "public": key.public.raw.hex(),
                "thumbprint": key.id.hex(),
                "purpose": Purpose.GRANT.value,
                "body": body.hex(),
                "pae": pae(Purpose.GRANT, body).hex(),
                "signature": sign(key, Purpose.GRANT, body).hex(),
            }
        )
    bad = [
        {"name": "identity point, of order 1", "public": (b"\x01" + bytes(31)).hex(), "code": "key.weak"},
        {"name": "order 4", "public": bytes(32).hex(), "code": "key.weak"},
        {
            "name": "order 8",
            "public": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "code": "key.weak",
        },
        {"name": "not canonical: y = p", "public": "ed" + "ff" * 30 + "7f", "code": "key.weak"},
        {"name": "31 bytes", "public": "01" * 31, "code": "key.length"},
    ]
    return {"keys": good, "purposes": [p.value for p in Purpose], "invalid": bad}


# ── merkle ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def merkle() -> Json:
    """Trees of 1 to 8 leaves with every path, consistency proofs, and proofs that must be refused."""
    data = [f"leaf {n}".encode() for n in range(8)]
    leaves = [leaf_hash(item) for item in data]
    trees = []
    for size in range(1, 9):
        root, paths = root_and_paths(leaves[:size])
        trees.append({"size": size, "root": root.hex(), "paths": [[p.hex() for p in path] for path in paths]})
    tree = Tree(leaves)
    consistency = [
        {"first": a, "second": b, "proof": [p.hex() for p in tree.consistency(a, b)]}
        for a, b in ((1, 2), (2, 3), (3, 7), (4, 8), (5, 5), (6, 8))
    ]
    _, paths = root_and_paths(leaves[:5])
    bad = [
        ("path too short", 0, 5, paths[0][:-1]),
        ("path too long", 0, 5, (*paths[0], bytes(32))),
        ("path for another size", 4, 5, paths[0]),
        ("index = size", 5, 5, paths[0]),
    ]
    invalid = [
        {"name": name, "leaf": leaves[0].hex(), "index": at, "size": size, "path": [p.hex() for p in path]}
        for name, at, size, path in bad
    ]
    return {
        "empty_root": root_of([]).hex(),
        "data": [item.hex() for item in data],
        "leaves": [leaf.hex() for leaf in leaves],
        "trees": trees,
        "consistency": consistency,
        "invalid": [{**case, "code": "malformed.path"} for case in invalid],
    }


# ── directory ────────────────────────────────────────────────────────────────────────────────────────────────────────


def directory() -> Json:
    """A directory's log, what it leads to, and statements that must be refused after it."""
    of = world()
    of.revoke("grant", seed("a grant"))
    late = of.id("late")
    of.event("create", late, ["", "", [], [of.id("carol")], [], []])
    carol, dave = of["carol"], of["dave"]
    of.event("node", dave.id, [dave.running.node])
    next_one = of.trust.size
    fresh = SigningKey(seed("fresh"))

    def event(kind: str, subject: str, payload: list[Any], key: SigningKey | None = None, **changes: Any) -> bytes:
        made = KeyEvent(next_one, of.now, of.domain, kind, subject, payload)._replace(**changes)
        return made.signed_by(key or of.online["identity"]).encode()

    def revocation(number: int, **changes: Any) -> bytes:
        who = directory_id(of.domain)
        made = Revocation(next_one, of.now, of.domain, "key", bytes(32), who, "why", of.now, number, b"")
        return made._replace(**changes).signed_by(of.online["identity"]).encode()

    def rotation(by: SigningKey, to: SigningKey, **changes: Any) -> bytes:
        made = Rotation(
            of.domain, carol.id, 1, carol.identity.id, to.public.raw, "activate", 60 * SECOND, of.now + 30 * SECOND
        )
        return event("rotate", carol.id, list(made._replace(**changes).proven_by(by, to)))

    def statement(by: Actor, instance: SigningKey | None = None, signer: SigningKey | None = None, **to: Any) -> bytes:
        key = instance or SigningKey(seed("another instance"))
        made = by.running._replace(**{"key": key.public.raw, "instance_id": b"n" * 16, **to})
        return made.signed_by(signer or by.identity, key).encode()

    good = statement(carol)
    no_possession = Signed(*pack_parts(good)[:4], bytes(64)).encode()
    torn = bytearray(event("time", of.domain, [b"r" * 16]))
    torn[-1] ^= 1
    curve = seed("curve")
    cases: list[tuple[str, bytes, str | None]] = [
        ("a TIME leaf", event("time", of.domain, [b"r" * 16]), None),
        ("an instance statement", good, None),
        ("a gap in the log", event("time", of.domain, [b""], seq=next_one + 1), "reject.statement_order"),
        ("an entry repeated", of.entries[-1], "reject.statement_order"),
        ("an entry older than the last", event("time", of.domain, [b""], instant=of.now - 1),
         "reject.statement_invalid"),
        ("an entry of another trust domain", event("time", "other.test", [b""], domain="other.test"),
         "reject.statement_invalid"),
        ("an event signed by an agent's key", event("time", of.domain, [b""], carol.identity),
         "reject.statement_signer"),
        ("an online key introduced by the identity key", event("online", "head", [fresh.public.raw]),
         "reject.statement_signer"),
        ("a flipped bit in the signature", bytes(torn), "reject.statement_signature"),
        ("an unknown kind of event", event("promote", carol.id, []), "malformed.statement"),
        ("the key of another principal", event("key", dave.id, [carol.identity.public.raw, curve, 1, b"", b""]),
         "reject.statement_invalid"),
        ("the CURVE key of another principal",
         event("key", dave.id, [fresh.public.raw, carol.curve.public, 1, b"", b""]), "reject.statement_invalid"),
        ("a CURVE key of low order", event("key", dave.id, [fresh.public.raw, bytes(32), 1, b"", b""]), "key.weak"),
        ("a key that becomes better", event("key-state", carol.id, [carol.identity.id, "active", of.now]),
         "reject.statement_invalid"),
        ("a weak identity key", event("key", dave.id, [bytes(32), curve, 1, b"", b""]), "key.weak"),
        ("a registration without proof of possession",
         event("key", late, [*of.registration(late, fresh, curve)[:3], b"", b""]), "reject.possession"),
        ("a proof of possession for another principal",
         event("key", late, of.registration(dave.id, fresh, curve)), "reject.possession"),
        ("a rotation", rotation(carol.identity, fresh), None),
        ("a rotation signed by the new key alone", rotation(dave.identity, fresh), "reject.rotation"),
        ("a rotation of another principal's key", rotation(dave.identity, fresh, old=dave.identity.id),
         "reject.rotation"),
        ("a rotation to a key of before", rotation(carol.identity, dave.identity), "reject.rotation"),
        ("a rotation signed too long ago", rotation(carol.identity, fresh, expires=of.now - 31 * SECOND),
         "reject.rotation"),
        ("a revocation by somebody who is neither owner nor operator",
         revocation(of.trust.revocation_seq + 1, kind="principal", id=carol.id.encode(), revoker=dave.id),
         "reject.revoker"),
        ("a name given twice", event("create", carol.id, ["", "", [], [], [], []]), "reject.statement_invalid"),
        ("all rights for an agent",
         event("create", of.id("zoe"), ["", "", [], [], "all", []]), "malformed.statement"),
        ("an epoch that skips one", event("epoch", carol.id, [3]), "reject.statement_invalid"),
        ("a revocation whose number skips one", revocation(of.trust.revocation_seq + 2), "reject.statement_order"),
        ("an instance without proof of possession", no_possession, "reject.statement_signature"),
        ("an instance signed by another principal", statement(carol, signer=dave.identity), "reject.statement_signer"),
        ("an instance that lives longer than an hour", statement(carol, not_after=of.now + 3601 * SECOND),
         "reject.statement_invalid"),
        ("an instance at a node that is not enrolled", statement(carol, curve_key=curve), "reject.statement_invalid"),
        ("an identity key used as an instance key", statement(carol, dave.identity), "reject.statement_invalid"),
        ("a node's name", event("node", carol.id, ["carol"]), None),
        ("a node's name that another principal has", event("node", carol.id, [dave.running.node]),
         "reject.statement_invalid"),
        ("a node's name that makes no origin", event("node", carol.id, ["Carol/1"]), "reject.statement_invalid"),
        ("an instance in a node of another principal's name", statement(carol, node=dave.running.node),
         "reject.node_name"),
    ]  # fmt: skip
    heads = [
        ("the current head", of.head(), None),
        ("another root at the same size", of.head(root=bytes(32)), "reject.head_forked"),
        ("entries this verifier has not seen", of.head(size=of.trust.size + 1), "unavailable.directory_behind"),
    ]
    return {
        **trust_of(of),
        "domain": of.domain,
        "size": of.trust.size,
        "revocation_seq": of.trust.revocation_seq,
        "tree_root": of.trust.frontier.root().hex(),
        "max_age": of.trust.max_age,
        "cases": [{"name": name, "statement": data.hex(), "code": code} for name, data, code in cases],
        "heads": [{"name": name, "note": note.decode(), "code": code} for name, note, code in heads],
    }


def pack_parts(statement: bytes) -> list[Any]:
    """The positions of an encoded statement."""
    from agentbus.wire.codec import unpack_array

    return unpack_array(statement)


# ── chains ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def chains() -> Json:
    """Chains that give an authority, and chains that must be refused."""
    of = world()
    carol, dave, erin = of["carol"], of["dave"], of["erin"]
    good = draw_chain("alice -[docs:*,pay]-> carol -[docs:read]-> dave -[docs:read]-> erin", world=of)
    other = draw_chain("alice -[docs:*]-> carol -[docs:read]-> dave -[docs:read]-> erin", world=of, depth=3)
    caveat = {0: {"scopes": scopes([Scope("pay", amount=AtMost(100), to=OneOf("a", "b"))])},
              1: {"scopes": scopes([Scope("pay", amount=AtMost(50), to=OneOf("a"))])}}  # fmt: skip
    wider = {0: caveat[1], 1: caveat[0]}
    two = "alice -[docs:read]-> carol -[docs:read]-> dave"

    def drawn(drawing: str = two, **changes: Any) -> tuple[Link, ...]:
        return draw_chain(drawing, world=of, **changes)

    def later(**changes: Any) -> tuple[Link, ...]:
        return drawn(changes={1: changes})

    def bent(row: Callable[[list[Any]], None]) -> bytes:
        fields = pack_body(good[0].grant)
        row(fields)
        body = bytes(pack(fields))
        return bytes(pack([[body, sign(of["user/alice"].identity, Purpose.GRANT, body)]]))

    def to(index: int, value: Any) -> bytes:
        return bent(lambda row: row.__setitem__(index, value))

    cases: list[tuple[str, Any, str | None]] = [
        ("three links, each narrower", good, None),
        ("a standing grant", standing(of, "carol"), None),
        ("caveats that narrow", drawn("alice -[pay]-> carol -[pay]-> dave", changes=caveat), None),
        ("a user's root to herself", drawn("alice -[docs:read]-> user/alice -[docs:read]-> carol"), None),
        ("a widened scope", drawn("alice -[docs:read]-> carol -[docs:read,pay]-> dave"), "reject.grant_widens"),
        ("a scope above the parent's", drawn("alice -[docs:read]-> carol -[docs:*]-> dave"), "reject.grant_widens"),
        ("a widened caveat", drawn("alice -[pay]-> carol -[pay]-> dave", changes=wider), "reject.grant_widens"),
        ("targets beyond the parent's", drawn(changes={0: {"targets": (dave.id,)}, 1: {"targets": (erin.id,)}}),
         "reject.targets_widen"),
        ("everyone under one target", drawn(changes={0: {"targets": (dave.id,)}}), "reject.targets_widen"),
        ("a link removed", strip(good, 1), "reject.chain_broken"),
        ("links in another order", reorder(good, (0, 2, 1)), "reject.chain_broken"),
        ("the head of another chain", splice(other, good, 1), "reject.chain_broken"),
        ("a link altered under its old signature, followed", alter(good, 1, purpose="x"), "reject.chain_broken"),
        ("the last link altered under its old signature", alter(good, 2, purpose="x"), "reject.grant_signature"),
        ("a subject that changes", later(subject=carol.id), "reject.chain_broken"),
        ("an issuer that is not the audience above",
         alter(drawn(), 1, key=erin.instance, issuer=erin.id, issuer_key=erin.instance.id), "reject.grant_misaligned"),
        ("depth that does not fall", later(depth=1), "reject.depth"),
        ("a link under depth 0", drawn(depth=0), "reject.depth"),
        ("a link that outlives its parent", drawn(changes={0: {"expires": of.now + 60 * SECOND}}),
         "reject.outlives_parent"),
        ("a principal twice", drawn("alice -[docs:read]-> carol -[docs:read]-> dave -[docs:read]-> carol"),
         "reject.cycle"),
        ("a root of a kind not accepted", drawn(changes={0: {"root_kind": "vouched"}}), "reject.root_kind"),
        ("a user root issued by an agent", agent_root(of), "reject.root_kind"),
        ("expired", drawn(expires=of.now), "reject.grant_expired"),
        ("not valid yet", drawn(changes={0: {"not_before": of.now + 31 * SECOND}}), "reject.grant_early"),
        ("signed by another instance", resign(drawn(), 1, dave.instance), "reject.grant_signature"),
        ("signed by a key that is named, and another's",
         alter(drawn(), 1, key=dave.instance, issuer_key=dave.instance.id), "reject.grant_key"),
        ("a root signed by an instance key",
         alter(drawn("alice -[docs:read]-> carol"), 0, key=of["user/alice"].instance,
               issuer_key=of["user/alice"].instance.id), "reject.grant_key"),
        ("a link that outlives the key that signed it",
         drawn(changes={0: {"expires": of.now + 7200 * SECOND}, 1: {"expires": of.now + 3601 * SECOND}}),
         "reject.grant_outlives_key"),
        ("another identity key is pinned", drawn(changes={0: {"pinned_key": dave.identity.id}}), "reject.pinned_key"),
        ("an epoch that is not the audience's now", drawn("alice -[docs:read]-> carol", changes={
            0: {"audience_epoch": 2}}), "reject.epoch"),
        ("a conversation that is left", drawn(changes={0: {"conversation": b"c" * 16}}), "reject.conversation"),
        ("no links", bytes(pack([])), "malformed.chain"),
        ("not canonical", b"\xdc\x00\x01" + chain_bytes(standing(of, "carol"))[1:], "malformed.not_canonical"),
        ("a signature of 63 bytes", bytes(pack([[good[0].body, good[0].signature[:-1]]])), "malformed.chain"),
        ("version 2", to(0, 2), "malformed.grant"),
        ("scopes not ascending", to(14, [["pay", []], ["docs:*", []]]), "malformed.scopes"),
        ("a wildcard in the middle", to(14, [["docs:*:read", []]]), "malformed.scope"),
        ("targets not ascending", to(15, [str(erin.id), str(dave.id)]), "malformed.grant"),
        ("the group beside another target", to(15, [str(dave.id), f"spiffe://{of.domain}/group/all"]),
         "malformed.grant"),
        ("an id in upper case", to(5, "spiffe://local.test/agent/Carol"), "malformed.id"),
        ("a purpose of 65 characters", to(18, "p" * 65), "malformed.grant"),
    ]  # fmt: skip
    shown = [case(name, links if isinstance(links, bytes) else chain_bytes(links), code) for name, links, code in cases]
    after = world()
    after.revoke("grant", good[1].digest)
    gone = world()
    gone.event("state", gone["carol"].id, ["suspended"])
    dead = world()
    dead.revoke("principal", dead["carol"].id.encode())
    for name, of_then, code in (
        ("a revoked middle link", after, "reject.revoked"),
        ("a suspended issuer", gone, "reject.not_active"),
        ("a revoked issuer", dead, "reject.revoked"),
    ):
        then = [entry.hex() for entry in of_then.entries[len(of.entries) :]]
        shown.append({**case(name, chain_bytes(good), code), "then": then})
    return {**trust_of(of), "cases": shown}


def agent_root(of: World) -> tuple[Link, ...]:
    """A chain whose first link an agent signed for itself, as if it were a user."""
    carol, dave = of["carol"], of["dave"]
    grant = Grant(
        carol.id, 1, carol.identity.id, of.now, dave.id, 1, None, carol.id, None, 0, None, of.now,
        of.now + 60 * SECOND, scopes(["docs:read"]), (f"spiffe://{of.domain}/group/all",), 1, seed("agent root")[:16],
        None, None, "user",
    )  # fmt: skip
    return (sign_link(grant, carol.identity),)


def case(name: str, chain: bytes, code: str | None) -> Json:
    """One chain; of those that are good, what they say."""
    made: Json = {"name": name, "chain": chain.hex(), "code": code}
    if code is None:
        from agentbus.delegation.chain import Authority

        held = Authority.from_bytes(chain)
        made["digest"] = chain_digest(chain).hex()
        made["link_digests"] = [link.digest.hex() for link in held.links]
        made["subject"], made["holder"] = str(held.subject), str(held.holder)
        made["scopes"], made["expires"] = list(held.scopes), held.expires_at
    return made


def pack_body(grant: Grant) -> list[Any]:
    """The 22 positions of a grant's body."""
    return pack_parts(grant.encode())


# ── envelopes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def draft(of: World, by: str, to: str, chain: bytes, /, *, handover: bytes = b"", number: int = 1, **to_: Any) -> Draft:
    """One envelope of ``sender`` to ``to``, with ``to_`` replacing header fields."""
    me, you = of[by], of[to]
    body = b'{"text":"hello"}'
    salt = seed("salt", str(number))
    header = Header(
        1, Kind.REQUEST, seed("message id", str(number))[:16], seed("conversation")[:16], me.id,
        me.running.instance_id, me.instance.id, number, you.id, you.running.instance_id, number, None, None, None, None,
        "Summarize", of.now, of.now + 60 * SECOND, "application/json", len(body), commit_body(salt, body),
        chain_digest(chain), chain_digest(handover) if handover else None, of.trust.size, of.trust.revocation_seq, None,
        None, 0, [],
    )._replace(**to_)  # fmt: skip
    return Draft.of(encode_header(header), chain, handover, salt, body)


def seal(of: World, sender: str, drafts: Sequence[Draft], purpose: Purpose = Purpose.BATCH) -> list[bytes]:
    """The frames of one batch."""
    me = of[sender]
    batch = Batch.prepare(drafts, key_id=me.instance.id, instance_id=me.running.instance_id)
    return batch.attach(sign(me.instance, purpose, batch.to_sign))


def swap(frame: bytes, **sections: bytes) -> bytes:
    """The frame with other sections and lengths that fit."""
    from agentbus.wire.frame import decode_frame
    from agentbus.wire.limits import LIMITS

    return encode_frame(decode_frame(frame, LIMITS)._replace(**sections))


def envelopes() -> Json:
    """Frames that open, and frames that must be refused, each with the first reason."""
    of = world()
    alice, carol, dave = of["user/alice"], of["carol"], of["dave"]
    links = draw_chain("alice -[docs:*]-> carol", world=of, depth=2)
    chain = chain_bytes(links)
    handed = extend(links, key=carol.instance, issuer=carol.id, issuer_key=carol.instance.id, audience=dave.id,
                    audience_epoch=1, scopes=scopes(["docs:read"]), expires=of.now + 60 * SECOND)  # fmt: skip
    handover = encode_link(handed[-1])
    own = chain_bytes(standing(of, "dave"))

    def one(by: str = "carol", to: str = "dave", given: bytes = chain, over: bytes = b"", **changes: Any) -> bytes:
        return seal(of, by, [draft(of, by, to, given, handover=over, **changes)])[0]

    plain = draft(of, "carol", "dave", chain, handover=handover)
    asked = seal(of, "carol", [plain])[0]
    three = seal(of, "carol", [draft(of, "carol", "dave", chain, number=n) for n in (1, 2, 3)])
    reply = {"kind": int(Kind.REPLY), "in_reply_to": plain.digest}
    answer = one("dave", "carol", own, **reply)
    open_here = {"digest": plain.digest.hex(), "answering": True, "principal": str(dave.id),
                 "instance": dave.running.instance_id.hex(), "mine": carol.running.instance_id.hex()}  # fmt: skip
    sections = asked_sections(asked)
    proof = sections.proof
    lone = draft(of, "carol", "dave", chain)
    signed = batch_body(carol.instance.id, carol.running.instance_id, 1, lone.digest)
    as_grant = encode_frame(Envelope(
        lone.header, encode_proof(Proof(sign(carol.instance, Purpose.GRANT, signed), 1, 0, ())), chain, b"", b"",
        lone.salt, lone.body))  # fmt: skip
    twice = draw_chain("alice -[docs:*]-> carol -[docs:read]-> dave -[docs:read]-> erin", world=of)
    hour = 3600 * SECOND
    cases: list[tuple[str, bytes, str | None, Json]] = [
        ("a request with a chain and a handover", asked, None, {"peer": carol.curve.public.hex()}),
        ("the second of a batch of three", three[1], None, {}),
        ("a reply to an open exchange", answer, None, {"open": [open_here]}),
        ("cut by one byte", asked[:-1], "malformed.frame", {}),
        ("one byte too many", asked + b"\x00", "malformed.frame", {}),
        ("a salt of 31 bytes", swap(asked, salt=sections.salt[:-1]), "malformed.frame", {}),
        ("another first byte", b"\x04" + asked[1:], "malformed.frame", {}),
        ("a proof with index = n", swap(asked, proof=proof[:66] + b"\x00\x01"), "malformed.proof", {}),
        ("a path where n = 1 needs none", swap(asked, proof=proof + bytes(32)), "malformed.path", {}),
        ("a header array of 28", swap(asked, header=shorter(sections.header)), "malformed.header", {}),
        ("version 2", one(version=2), "malformed.version", {}),
        ("kind 14", one(kind=14), "malformed.kind", {}),
        ("a reply that answers nothing", one(kind=int(Kind.REPLY)), "malformed.kind", {}),
        ("an unknown critical extension", one(extensions=[[99, True, b""]]), "malformed.extension", {}),
        ("extensions that do not ascend", one(extensions=[[9, False, b""], [9, False, b""]]), "malformed.extension",
         {}),
        ("for another instance", one(recipient_instance=b"x" * 16), "reject.recipient", {}),
        ("for another principal", one(recipient=of["erin"].id), "reject.recipient", {}),
        ("a lifetime of 601 s", one(deadline=of.now + 601 * SECOND), "reject.lifetime", {}),
        ("a deadline before the issue", one(deadline=of.now - 1), "reject.lifetime", {}),
        ("issued 31 s ahead", one(issued_at=of.now + 31 * SECOND), "reject.issued_in_future", {}),
        ("at its deadline", asked, "reject.expired", {"now": of.now + 60 * SECOND}),
        ("accepted before", asked, "reject.replayed", {"seen": [[str(carol.id), carol.running.instance_id.hex(),
         dave.running.instance_id.hex(), 1]]}),
        ("over another node's connection", asked, "reject.connection", {"peer": of["erin"].curve.public.hex()}),
        ("in another's name", one(sender=of["erin"].id), "reject.sender_key", {}),
        ("another instance id", one(sender_instance=b"y" * 16), "reject.sender_key", {}),
        ("an hour later, after the key's window", one(issued_at=of.now + hour, deadline=of.now + hour + SECOND),
         "reject.key_expired", {"now": of.now + hour}),
        ("the replay flag in a live run", one(flags=1), "reject.replay_flag", {}),
        ("a bit flipped in the signature", swap(asked, proof=bytes([proof[0] ^ 1]) + proof[1:]), "reject.signature",
         {}),
        ("signed with the purpose of a grant", as_grant, "reject.signature", {}),
        ("another header under the same signature", swap(asked, header=lone.header), "reject.signature", {}),
        ("another body", swap(asked, body=b"x" * len(sections.body)), "reject.body", {}),
        ("another salt", swap(asked, salt=bytes(32)), "reject.body", {}),
        ("another chain", swap(asked, chain=own), "reject.chain_digest", {}),
        ("the handover removed", swap(asked, handover=b""), "reject.handover_digest", {}),
        ("a reply to nothing that is open", answer, "reject.no_exchange", {}),
        ("somebody else's chain", one(given=own), "reject.chain_not_senders", {}),
        ("a chain sent back to its holder, its last link removed",
         one("dave", "carol", chain_bytes(twice[:1])), "reject.chain_not_senders", {}),
        ("a handover to somebody else", one(over=other_handover(of)), "reject.handover", {}),
        ("a handover forwarded by somebody else", one("dave", "carol", own, handover), "reject.handover", {}),
        ("a chain that holds in another conversation",
         one(given=chain_bytes(draw_chain("alice -[docs:*]-> carol", world=of,
                                          changes={0: {"conversation": b"o" * 16}}))),
         "reject.conversation", {}),
    ]  # fmt: skip
    revoked = world()
    revoked.revoke("instance", revoked["carol"].running.handle)
    then = [entry.hex() for entry in revoked.entries[len(of.entries) :]]
    cases.append(("from a revoked instance", asked, "reject.revoked", {"then": then}))
    me = {actor.running.instance_id.hex(): str(actor.id) for actor in (alice, carol, dave)}
    shown = [{"name": name, "frame": frame.hex(), "code": code, **more} for name, frame, code, more in cases]
    shown[0]["expect"] = {
        "digest": plain.digest.hex(), "header": plain.header.hex(), "body": plain.body.decode(),
        "sender": str(carol.id), "holder": str(carol.id), "handed_to": str(dave.id), "user": str(alice.id),
        "to_sign": batch_body(carol.instance.id, carol.running.instance_id, 1, plain.digest).hex(),
    }  # fmt: skip
    return {**trust_of(of), "me": me, "cases": shown}


def asked_sections(frame: bytes) -> Envelope:
    """The seven sections of a frame."""
    from agentbus.wire.frame import decode_frame
    from agentbus.wire.limits import LIMITS

    return decode_frame(frame, LIMITS)


def shorter(header: bytes) -> bytes:
    """The header without its last position."""
    return bytes(pack(pack_parts(header)[:-1]))


def other_handover(of: World) -> bytes:
    """A handover of carol's that is for erin."""
    links = draw_chain("alice -[docs:*]-> carol", world=of, depth=2)
    carol = of["carol"]
    made = extend(links, key=carol.instance, issuer=carol.id, issuer_key=carol.instance.id, audience=of["erin"].id)
    return encode_link(made[-1])


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

ORIGIN = "agentbus.local.test/carol/1"


def log_entries() -> list[bytes]:
    """One entry of each kind, in the order of a small log."""
    of = world()
    carol, dave = of["carol"], of["dave"]
    chain = chain_bytes(draw_chain("alice -[docs:*]-> dave", world=of))
    header = Header(
        1, Kind.REQUEST, seed("id")[:16], seed("conversation")[:16], dave.id, dave.running.instance_id,
        dave.instance.id, 1, carol.id, carol.running.instance_id, 1, None, None, None, None, "Ask", of.now,
        of.now + 60 * SECOND, "application/json", 2, commit_body(seed("salt"), b"{}"), chain_digest(chain), None,
        of.trust.size, of.trust.revocation_seq, None, None, 0, [],
    )  # fmt: skip
    draft = Draft.of(encode_header(header), chain, b"", seed("salt"), b"{}")
    batch = Batch.prepare([draft], key_id=dave.instance.id, instance_id=dave.running.instance_id)
    proof = batch.proofs(sign(dave.instance, Purpose.BATCH, batch.to_sign))[0]
    note = sign_checkpoint("agentbus.local.test/dave/1", 3, seed("root"), SigningKey(seed("dave's log")))
    common: Json = {
        "connection": dave.curve.public, "header": draft.header, "proof": proof, "statement": seed("statement"),
        "body": box_name(close_box(seed("salt") + b"{}", seed("box key"))), "chain": chain_digest(chain),
        "handover": None, "note": b"",
    }  # fmt: skip
    digest = draft.digest
    return [
        entry.opened(0, NOON, node="carol", domain=of.domain, software="agentbus"),
        entry.received(1, NOON, **common, code="ok", directory_size=of.trust.size, revocation_seq=0,
                       policy_version="1"),
        entry.step(2, NOON, digest=digest, step=entry.StepKind.CALL, name="look up", given=None, number=1, began=NOON,
                   outcome=entry.Outcome.RESULT, result=seed("a box")),
        entry.sent(3, NOON, **{**common, "note": note}),
        entry.unsent(4, NOON, digest=digest, reason="the connection takes no more"),
        entry.receipt(5, NOON, digest=digest, receipt=None, code="expired"),
        entry.receipt(6, NOON, digest=digest, receipt=seed("an error"), code="handler.failed"),
        entry.rejected(7, NOON, connection=None, code="malformed.frame", digest=seed("frame"), sample=b"junk"),
        entry.dropped(8, NOON, connection=None, count=990),
        entry.peer_checkpoint(9, NOON, connection=dave.curve.public, note=note),
        entry.redaction(10, NOON, commitment=header.body_commitment, authority="user/alice", reason="asked"),
        entry.gap(11, NOON, reason="torn", durable=8, cut=17),
        entry.closed(12, NOON, reason="clean"),
    ]  # fmt: skip


def log() -> Json:
    """A log with an entry of each kind, its checkpoint, tiles and proofs; and what must be refused."""
    entries, key = log_entries(), SigningKey(seed("carol's log"))
    leaves = [leaf_hash(data) for data in entries]
    tree = Tree(leaves)
    note = sign_checkpoint(ORIGIN, len(entries), tree.root(), key)
    tiles = TileTree()
    tiles.extend(leaves)
    files = {tile.path: tile.data for tile in tiles.partial()}
    files[tile_path(ENTRIES, 0, len(entries))] = encode_bundle(entries)
    proofs = [encode_log_proof(LogProof(at, tree.inclusion(at), note)) for at in (0, 1, 11)]
    box = close_box(seed("salt") + b"{}", seed("box key"))
    names = [entry.EntryKind(decode_entry(data).kind).name for data in entries]
    other = sign_checkpoint("agentbus.local.test/carol/2", len(entries), tree.root(), key)
    forged = sign_checkpoint(ORIGIN, len(entries), tree.root(), SigningKey(seed("another")))
    row = pack_parts(entries[-1])
    invalid_entries = [
        ("an unknown kind", bytes(pack([99, *row[1:]])), "malformed.entry"),
        ("a position too many", bytes(pack([*row, 0])), "malformed.entry"),
        ("text that is bytes", bytes(pack([*row[:3], b"clean"])), "malformed.entry"),
        ("a negative position", bytes(pack([row[0], -1, *row[2:]])), "malformed.entry"),
        ("an integer in a longer form", entries[-1].replace(b"\x0c", b"\xcc\x0c", 1), "malformed.not_canonical"),
        ("bytes left over", entries[-1] + b"\0", "malformed.codec"),
    ]
    invalid_proofs = [
        ("of another entry", 1, proofs[0], "reject.not_included"),
        ("a path cut short", 0, cut_line(proofs[0], 2), "malformed.path"),
        ("an index with a leading zero", 0, proofs[0].replace(b"index 0", b"index 00"), "malformed.tlog_proof"),
        ("a checkpoint of another epoch", 0, proofs[0].replace(note, other), "note.not_signed"),
        ("a checkpoint by another key", 0, proofs[0].replace(note, forged), "note.not_signed"),
        ("a checkpoint whose size was changed", 0, proofs[0].replace(b"\n13\n", b"\n14\n"), "key.bad_signature"),
    ]
    return {
        "origin": ORIGIN,
        "seed": key.seed.hex(),
        "public": key.public.raw.hex(),
        "entries": [{"kind": name, "data": data.hex()} for name, data in zip(names, entries, strict=True)],
        "leaves": [leaf.hex() for leaf in leaves],
        "checkpoint": note.decode(),
        "tiles": {path: data.hex() for path, data in sorted(files.items())},
        "proofs": [proof.decode() for proof in proofs],
        "box": {"content": (seed("salt") + b"{}").hex(), "key": seed("box key").hex(), "box": box.hex(),
                "name": box_name(box).hex()},
        "origins": {"good": [ORIGIN, "agentbus.a/b.c-d_e/999"], "invalid": [
            "agentbus.local.test/carol", "agentbus.Local/carol/1", "agentbus.a/b/0", "agentbus.a/b/01", "x.a/b/1"]},
        "invalid": {
            "entries": [{"name": n, "data": data.hex(), "code": code} for n, data, code in invalid_entries],
            "proofs": [
                {"name": n, "entry": at, "proof": p.decode(), "code": code} for n, at, p, code in invalid_proofs
            ],
        },
    }  # fmt: skip


def cut_line(text: bytes, number: int) -> bytes:
    """The text without one of its lines."""
    lines = text.split(b"\n")
    return b"\n".join([*lines[:number], *lines[number + 1 :]])


FILES: dict[str, Callable[[], Json]] = {
    "keys.json": keys,
    "merkle.json": merkle,
    "directory.json": directory,
    "chain.json": chains,
    "envelope.json": envelopes,
    "log.json": log,
}


def render(made: Json) -> str:
    """The file's text."""
    return json.dumps(made, indent=1, ensure_ascii=False, sort_keys=False) + "\n"


def main() -> None:
    """Write every file."""
    assert NOON == 1_767_268_800 * SECOND and len(thumbprint(bytes(32))) == 32
    for name, make in FILES.items():
        (HERE / name).write_text(render(make()), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
