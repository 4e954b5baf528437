"""N × N: every signed artefact against every verifier. All are refused but the diagonal.

Twice: with *one* key behind everything, so that nothing but the purpose of a signature can tell two artefacts apart;
and in a trust domain, every artefact whole, as it is carried, given to every entry point that takes bytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from agentbus.authn.foreign import verify_foreign
from agentbus.authn.jws import read_compact, sign_compact, verify_compact
from agentbus.crypto.keys import SigningKey
from agentbus.crypto.merkle import leaf_hash
from agentbus.crypto.note import Checkpoint, note_key_id, open_checkpoint
from agentbus.crypto.signing import Purpose, sign, verify
from agentbus.delegation.chain import verify_chain, verify_handover
from agentbus.delegation.grant import chain_digest, encode_link
from agentbus.delegation.outside import Issuer, IssuerKey
from agentbus.delegation.scope import scopes
from agentbus.delegation.statements import (
    INSTANCE,
    KEY_EVENT,
    REVOCATION,
    Instance,
    KeyEvent,
    Revocation,
    Rotation,
    Signed,
    directory_id,
    directory_origin,
    enrolment_transcript,
)
from agentbus.delegation.trust import NeedsTrust
from agentbus.directory.receipt import Retirement, open_receipt
from agentbus.errors import AgentBusError
from agentbus.log.checkpoint import sign_checkpoint, verify_checkpoint
from agentbus.protocol.opening import open_envelope
from agentbus.protocol.sealing import Batch, Draft, batch_body, commit_body
from agentbus.services.exchange_rules import Access
from agentbus.services.exchange_tokens import sign_access, verify_access
from agentbus.testing.draw import HOUR, NOON, World, chain_bytes, draw_chain, draw_world, extend, seed, standing
from agentbus.wire.codec import pack
from agentbus.wire.header import Header, Kind, encode_header
from agentbus.wire.ids import b64, name_id
from agentbus.wire.limits import SECOND

DOMAIN = "local.test"
KEY = SigningKey(seed("one key behind everything"))
ORIGIN, HEAD = f"agentbus.{DOMAIN}/carol/1", directory_origin(DOMAIN)
CAROL, DAVE = name_id("carol", DOMAIN), name_id("dave", DOMAIN)
IDP = "https://idp.example"
ISSUER = Issuer(IDP, True, "bus", (IssuerKey(b64(KEY.id), "EdDSA", KEY.public.raw),), (), (), "sub", "", 4, 0, ())


# ── one key: only the purpose tells them apart ───────────────────────────────────────────────────────────────────────


def bodies() -> dict[str, bytes]:
    """What is signed, of each kind: real bodies, made by the code that makes them."""
    instance = Instance(
        CAROL, 1, b"i" * 16, KEY.public.raw, KEY.id, "carol", b"l" * 32, b"c" * 32, [], ["envelope"], NOON, NOON + HOUR
    )
    revocation = Revocation(7, NOON, DOMAIN, "key", KEY.id, directory_id(DOMAIN), "reason", NOON, 1, b"")
    rotation = Rotation(DOMAIN, CAROL, 1, KEY.id, KEY.public.raw, "activate", 3600, NOON)
    retirement = Retirement(DOMAIN, CAROL, NOON, "reason", 1, 2, [KEY.id], [], [], [], [])
    return {
        "batch": batch_body(KEY.id, b"i" * 16, 1, b"r" * 32),
        "replay batch": batch_body(KEY.id, b"i" * 16, 1, b"r" * 32),
        "grant": draw_chain("alice -[quote]-> carol", world=draw_world("carol"))[0].body,
        "instance": instance.signed_by(KEY, KEY).body,
        "possession": instance.signed_by(KEY, KEY).body,
        "key event": KeyEvent(7, NOON, DOMAIN, "time", DOMAIN, [b"r"]).signed_by(KEY).body,
        "revocation": revocation.signed_by(KEY).body,
        "enrolment": enrolment_transcript(DOMAIN, CAROL, b"token", KEY.public.raw, b"c" * 32, NOON),
        "rotation": rotation.encode(),
        "retirement": bytes(pack([1, *retirement])),
        "checkpoint": Checkpoint(ORIGIN, 3, b"r" * 32).text.encode(),
        "head": Checkpoint(HEAD, 3, b"r" * 32, ("instant 1", "revocations 0")).text.encode(),
        "access token": sign_compact(KEY, {"typ": "at+jwt"}, ACCESS_CLAIMS).rpartition(".")[0].encode(),
        "foreign token": sign_compact(KEY, {"typ": "JWT"}, FOREIGN_CLAIMS).rpartition(".")[0].encode(),
    }


ACCESS_CLAIMS = {
    "iss": f"spiffe://{DOMAIN}", "sub": str(CAROL), "aud": str(DAVE), "client_id": str(CAROL), "jti": "j", "scope": "a",
    "iat": NOON // SECOND, "exp": NOON // SECOND + 60, "agentbus_links": [], "agentbus_targets": [],
    "agentbus_depth": 0,
}  # fmt: skip
FOREIGN_CLAIMS = {"iss": IDP, "sub": "ann", "aud": "bus", "exp": NOON // SECOND + 60}

PURPOSES = {
    "batch": Purpose.BATCH, "replay batch": Purpose.REPLAY_BATCH, "grant": Purpose.GRANT, "instance": Purpose.INSTANCE,
    "possession": Purpose.INSTANCE_POSSESSION, "key event": Purpose.KEY_EVENT, "revocation": Purpose.REVOCATION,
    "enrolment": Purpose.POP, "rotation": Purpose.ROTATION, "retirement": Purpose.RETIREMENT,
}  # fmt: skip


def signature_of(kind: str, body: bytes) -> bytes:
    return sign(KEY, PURPOSES[kind], body) if kind in PURPOSES else KEY.sign(body)


def by_statement(tag: int) -> Callable[[bytes, bytes], Any]:
    return lambda body, signature: Signed(tag, body, KEY.id, signature, bytes(64)).verify(KEY.public)


def by_note(origin: str) -> Callable[[bytes, bytes], Any]:
    def check(body: bytes, signature: bytes) -> Any:
        line = b64encode(note_key_id(origin, KEY.public) + signature)
        return open_checkpoint(body + b"\n\xe2\x80\x94 " + origin.encode() + b" " + line + b"\n", origin, KEY.public)

    return check


def by_token(body: bytes, signature: bytes) -> Any:
    """As an access token of ours: form, key, type, signature; then whose it says it is."""
    token = read_compact(f"{body.decode('latin-1')}.{b64(signature)}")
    claims = verify_compact(token, IssuerKey(b64(KEY.id), "EdDSA", KEY.public.raw), types=("at+jwt",))
    assert claims["iss"] == f"spiffe://{DOMAIN}"
    return claims


VERIFIERS: dict[str, Callable[[bytes, bytes], Any]] = {
    **{k: (lambda body, signature, p=p: verify(KEY.public, p, body, signature)) for k, p in PURPOSES.items()},
    "instance": by_statement(INSTANCE),
    "key event": by_statement(KEY_EVENT),
    "revocation": by_statement(REVOCATION),
    "retirement": lambda body, signature: open_receipt(bytes(pack([body, KEY.id, signature])), KEY.public),
    "checkpoint": by_note(ORIGIN),
    "head": by_note(HEAD),
    "access token": by_token,
    "foreign token": lambda body, signature: verify_foreign(
        f"{body.decode('latin-1')}.{b64(signature)}", {IDP: ISSUER}, now=NOON
    ),
}


def test_every_purpose_has_its_place_in_the_matrix() -> None:
    """A new kind of signature that nobody tried against the others is found here."""
    assert set(PURPOSES.values()) == set(Purpose)
    assert set(VERIFIERS) == set(bodies())


@pytest.mark.parametrize("made", bodies())
def test_under_one_key_every_signature_is_good_for_one_purpose(made: str) -> None:
    body = bodies()[made]
    signature = signature_of(made, body)
    for kind, check in VERIFIERS.items():
        if kind == made:
            check(body, signature)
            continue
        with pytest.raises(AgentBusError):
            check(body, signature)


@pytest.mark.parametrize("made", bodies())
def test_a_signature_is_moved_under_another_kinds_own_body(made: str) -> None:
    """The container and body of one kind, with the signature of another: of the right key, over the wrong bytes."""
    all_of = bodies()
    signature = signature_of(made, all_of[made])
    for kind, check in VERIFIERS.items():
        if kind != made:
            with pytest.raises(AgentBusError):
                check(all_of[kind], signature)


# ── a trust domain: whole artefacts, every entry point ───────────────────────────────────────────────────────────────


def whole() -> tuple[World, dict[str, bytes], dict[str, Callable[[bytes], Any]]]:
    """Artefacts as they are carried, and whatever takes such bytes from a stranger."""
    world = draw_world("bob", "carol", "dave")
    carol, dave = world["carol"], world["dave"]
    links = draw_chain("alice -[docs:*]-> carol", world=world, depth=2)
    chain = chain_bytes(links)
    handed = extend(
        links, key=carol.instance, issuer=carol.id, audience=dave.id, audience_epoch=1, expires=world.now + 60 * SECOND
    )
    after = verify_chain(chain, trust=world.trust, now=NOON)
    log_key, trust = SigningKey(seed("carol's log")), world.trust
    statement = world.statement(world["bob"], salt="again")[1].encode()
    event = world.draft("time", DOMAIN, [b"r"])
    revocation = Revocation(
        trust.size, NOON, DOMAIN, "principal", str(dave.id).encode(), directory_id(DOMAIN), "x", NOON, 1, b""
    ).signed_by(world.online["identity"]).encode()  # fmt: skip
    retirement = Retirement(DOMAIN, dave.id, NOON, "x", 1, 2, [], [], [], [], [])
    access = Access(dave.id, carol.id, dave.id, ("docs:read",), NOON + 60 * SECOND, None, (), (), 0, "")
    foreign_key = SigningKey(seed("an outside issuer"))
    rule = Issuer(
        IDP,
        True,
        "bus",
        (IssuerKey("k", "EdDSA", foreign_key.public.raw),),
        scopes(["docs:*"]),
        (),
        "sub",
        "",
        4,
        0,
        (),
    )
    made = {
        "frame": frame(world, chain),
        "replay frame": frame(world, chain, replay=True),
        "chain": chain,
        "standing chain": chain_bytes(standing(world, "carol")),
        "handover": encode_link(handed[-1]),
        "instance": statement,
        "key event": event,
        "revocation": revocation,
        "head": world.head(),
        "checkpoint": sign_checkpoint(ORIGIN, 3, b"r" * 32, log_key),
        "receipt": retirement.signed_by(world.online["identity"]),
        "access token": sign_access(access, world.online["token"], domain=DOMAIN, now=NOON, jti=b"j" * 16).encode(),
        "foreign token": sign_compact(foreign_key, {"typ": "JWT", "kid": "k"}, FOREIGN_CLAIMS).encode(),
    }
    me = {dave.running.instance_id: dave.id}

    def opened(data: bytes, purpose: Purpose) -> Any:
        return open_envelope(
            data, me=me, trust=trust, now=NOON, seen=lambda _: False, exchanges=lambda *_: None, purpose=purpose
        )

    def advanced(data: bytes, kind: str) -> Any:
        from agentbus.delegation.statements import decode_signed

        signed = decode_signed(data)
        after = trust.advance(data, now=NOON)
        if {"instance": INSTANCE, "key event": KEY_EVENT, "revocation": REVOCATION}[kind] != signed.tag:
            raise AgentBusError("reject", "another kind of statement")
        return after

    takes: dict[str, Callable[[bytes], Any]] = {
        "frame": lambda data: opened(data, Purpose.BATCH),
        "replay frame": lambda data: opened(data, Purpose.REPLAY_BATCH),
        "chain": lambda data: verify_chain(data, trust=trust, now=NOON),
        "handover": lambda data: verify_handover(data, after=after, trust=trust, now=NOON),
        "instance": lambda data: advanced(data, "instance"),
        "key event": lambda data: advanced(data, "key event"),
        "revocation": lambda data: advanced(data, "revocation"),
        "head": lambda data: trust.accept_head(data, sent_at=1),
        "checkpoint": lambda data: verify_checkpoint(data, ORIGIN, log_key.public),
        "receipt": lambda data: open_receipt(data, world.online["identity"].public),
        "access token": lambda data: verify_access(data.decode("latin-1"), trust, now=NOON),
        "foreign token": lambda data: verify_foreign(data.decode("latin-1"), {IDP: rule}, now=NOON),
    }
    return world, made, takes


def frame(world: World, chain: bytes, *, replay: bool = False) -> bytes:
    """A request of carol's to dave."""
    carol, dave = world["carol"], world["dave"]
    salt, body = seed("salt"), b"{}"
    header = Header(
        1, Kind.REQUEST, b"m" * 16, b"c" * 16, carol.id, carol.running.instance_id, carol.instance.id, 1, dave.id,
        dave.running.instance_id, 1, None, None, None, None, "Ask", NOON, NOON + SECOND, "application/json", 2,
        commit_body(salt, body), chain_digest(chain), None, world.trust.size, 0, None, None, int(replay), [],
    )  # fmt: skip
    draft = Draft.of(encode_header(header), chain, b"", salt, body)
    batch = Batch.prepare([draft], key_id=carol.instance.id, instance_id=carol.running.instance_id)
    purpose = Purpose.REPLAY_BATCH if replay else Purpose.BATCH
    return batch.attach(sign(carol.instance, purpose, batch.to_sign))[0]


MINE = {"standing chain": "chain"}
"""A standing chain is a chain, and taken as one: whose it is and what it gives is another question."""


def test_every_artefact_is_taken_where_it_belongs_and_nowhere_else() -> None:
    _, made, takes = whole()
    accepted = set()
    for (name, data), (place, take) in product(made.items(), takes.items()):
        try:
            take(data)
        except (AgentBusError, NeedsTrust):
            continue
        accepted.add((name, place))
    assert accepted == {(name, MINE.get(name, name)) for name in made}


def test_no_artefact_is_taken_with_another_ones_signature() -> None:
    """The last 64 bytes of one artefact (where most have their signature) at the end of another."""
    _, made, takes = whole()
    for name, other in product(made, made):
        if name == other or made[name][-64:] == made[other][-64:]:
            continue
        mixed = made[name][:-64] + made[other][-64:]
        for take in takes.values():
            with pytest.raises((AgentBusError, NeedsTrust)):
                take(mixed)


def test_the_digest_of_one_artefact_is_no_digest_of_another() -> None:
    """Digests name things in revocations, replies and logs: each kind has a prefix of its own."""
    _, made, _ = whole()
    link = draw_chain("alice -[docs:*]-> carol", world=draw_world("carol"))[0]
    assert len({link.digest, chain_digest(link.body), leaf_hash(link.body), leaf_hash(made["chain"])}) == 4
