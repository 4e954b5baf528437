"""Attacks on messages: what is replayed, moved, spoofed, reflected or sent by whoever was not asked.

Each runs against a whole node, over mallory's own connection or a network that repeats and misdelivers, and each
asserts the exact code on the victim's record and that no handler ran.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentbus import Agent, AgentBusError, Context, Denied, Rejected
from agentbus.crypto.keys import SigningKey
from agentbus.crypto.signing import Purpose, sign
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import Received
from agentbus.protocol.sealing import Draft
from agentbus.runtime import problems, refusals
from agentbus.runtime.inbound import AT_ONCE, BAD_FRAMES, HELD_BYTES, cut
from agentbus.wire.frame import ENVELOPE, decode_frame, decode_proof, encode_frame, encode_proof
from agentbus.wire.header import Header, Kind, decode_header, encode_header
from agentbus.wire.limits import LIMITS, SECOND

from .bank import Ask, Bank, ForUsers, Hold, Paid, Pay, Quote, Tick


def digest_of(frame: bytes) -> bytes:
    from agentbus.crypto.merkle import leaf_hash
    from agentbus.wire.frame import decode_frame

    return leaf_hash(decode_frame(frame, LIMITS).header)


def signature_at(frame: bytes) -> int:
    """Where the batch's signature begins: behind the lengths and the header."""
    return 29 + int.from_bytes(frame[1:5], "big")


async def test_a_frame_replayed_by_the_network_runs_no_handler_twice(net: Any, bank: Bank) -> None:
    alice = net.user("alice", scopes=["pay"])
    await alice.request("bank", Pay(cents=5))
    captured = net.attacker.capture("Pay", kind=Kind.REQUEST)
    for _ in range(3):
        assert await net.attacker.replay(captured) == "reject.replayed"
    assert bank.paid == [5]


async def test_a_frame_replayed_once_a_clock_that_was_ahead_is_right_again(net: Any, bank: Bank) -> None:
    """By the wall's time its deadline was long over, and nobody needed to remember it."""
    alice = net.user("alice", scopes=["pay"])
    await alice.request("bank", Pay(cents=5))
    captured = net.attacker.capture("Pay", kind=Kind.REQUEST)
    net.clock.shift_wall(7200)
    net._node.tick()
    net.clock.advance(61)
    net.clock.shift_wall(-7200 - 61)
    assert await net.attacker.replay(captured) == "reject.replayed"
    assert bank.paid == [5]


async def test_a_frame_replayed_over_another_connection(net: Any, bank: Bank) -> None:
    """Before its deadline and before the victim saw it: the window would not know it, the connection does."""
    frame = net.attacker.forge("bank", Quote())
    captured = net.attacker.capture(sender="broker")
    assert await net.attacker.replay(captured, frame=frame) == "reject.connection"
    assert bank.quoted == 0
    assert await net.attacker.deliver(frame) == "ok"
    assert await net.attacker.deliver(frame) == "reject.replayed"
    assert bank.quoted == 1


async def test_an_honest_frame_sent_again_by_mallory(net: Any, bank: Bank) -> None:
    alice = net.user("alice", scopes=["pay"])
    await alice.request("bank", Pay(cents=5))
    captured = net.attacker.capture("Pay", kind=Kind.REQUEST)
    fresh = captured.header._replace(peer_seq=captured.header.peer_seq + 1)
    section = captured.envelope._replace(header=encode_header(fresh))
    assert await net.attacker.deliver(encode_frame(section)) == "reject.connection"
    assert await net.attacker.replay(captured, frame=encode_frame(section)) == "reject.signature"
    assert bank.paid == [5]


async def test_one_bit_in_every_byte_of_a_frame(net: Any, bank: Bank) -> None:
    """Each byte in turn, over the real node and the honest sender's own connection: no handler runs."""
    alice = net.user("alice", scopes=["pay"])
    await alice.request("bank", Pay(cents=5))
    captured = net.attacker.capture("Pay", kind=Kind.REQUEST)
    handled, node = len(bank.paid), net._node
    received = net.verdicts().count("ok")
    for at in range(len(captured.frame)):
        turned = net.attacker.flip(captured.frame, at, at % 8)
        peer = node.inbound.accounts.get(captured.connection)
        if peer is not None:
            peer.bad = 0.0  # another connection each time, as far as the bucket goes
        node.received(captured.connection, turned)
    await net.settle()
    assert len(bank.paid) == handled
    assert net.verdicts().count("ok") == received


async def test_one_bit_in_every_byte_of_a_frame_that_was_never_delivered(net: Any, bank: Bank) -> None:
    """As above, where the replay window cannot help; the untouched frame is then accepted."""
    frame = net.attacker.forge("bank", Quote())
    bodies = len(frame)
    for at in range(bodies):
        for bit in (0, 3, 7):
            peer = net._node.inbound.accounts.get(net.attacker.connection())
            assert peer is None or peer.bad <= BAD_FRAMES
            net._node._engine.receive(
                net.attacker.flip(frame, at, bit), route=None, peer=net.attacker.node._curve_key,
                trust=net._node.source.trust, policy=net._node.policy, now=net.clock.now(), mono=0, age=0,
            ) if _known(net, frame, at, bit) else None  # fmt: skip
    await net.settle()
    assert bank.quoted == 0
    assert net._node._engine.exchanges.serving == []
    assert await net.attacker.deliver(frame) == "ok"


def _known(net: Any, frame: bytes, at: int, bit: int) -> bool:
    """Whether the flipped frame still names a key that is known: else the node would only look it up."""
    from agentbus.wire.frame import decode_frame

    try:
        header = decode_header(decode_frame(net.attacker.flip(frame, at, bit), LIMITS).header, LIMITS)
    except AgentBusError:
        return True
    return header.sender_key in net._node.source.trust.instances


async def test_a_spoofed_sender(net: Any, bank: Bank) -> None:
    """Mallory signs with her key and claims to be the broker."""
    broker = net.attacker.instance_of("broker")
    mallory = net.attacker
    frame = mallory.forge("bank", Quote(), sender=broker.principal)
    assert await mallory.deliver(frame) == "reject.sender_key"
    frame = mallory.forge("bank", Quote(), sender=broker.principal, sender_instance=broker.instance_id)
    assert await mallory.deliver(frame) == "reject.sender_key"
    assert bank.quoted == 0


async def test_a_spoofed_senders_key_over_mallorys_connection(net: Any, bank: Bank) -> None:
    """Every claim is the broker's, key id and all; the connection is mallory's, and the signature too."""
    honest = net.attacker.capture(sender="broker")
    broker, key_id = net.attacker.instance_of("broker"), honest.header.sender_key
    claims = {"sender": broker.principal, "sender_instance": broker.instance_id, "sender_key": key_id}
    frame = net.attacker.forge("bank", Quote(), **claims)
    assert await net.attacker.deliver(frame) == "reject.connection"
    assert await net.attacker.replay(honest, frame=frame) == "reject.signature"
    assert bank.quoted == 0


async def test_a_key_nobody_published(net: Any, bank: Bank) -> None:
    key = SigningKey(bytes(range(32)))
    frame = net.attacker.forge("bank", Quote(), key=key, sender_key=key.id)
    assert await net.attacker.deliver(frame) == "reject.sender_key"
    assert bank.quoted == 0


async def test_signed_with_the_identity_key(net: Any, bank: Bank) -> None:
    """An identity key signs statements; envelopes are an instance key's."""
    frame = net.attacker.forge("bank", Quote(), key=net.attacker.voice.identity.key)
    assert await net.attacker.deliver(frame) == "reject.signature"


@pytest.mark.parametrize("purpose", [p for p in Purpose if p is not Purpose.BATCH])
async def test_a_signature_for_another_artefact(net: Any, bank: Bank, purpose: Purpose) -> None:
    frame = net.attacker.forge("bank", Quote(), purpose=purpose)
    assert await net.attacker.deliver(frame) == "reject.signature"
    assert bank.quoted == 0


async def test_a_replay_runs_message_is_not_accepted_live(net: Any, bank: Bank) -> None:
    frame = net.attacker.forge("bank", Quote(), purpose=Purpose.REPLAY_BATCH, flags=1)
    assert await net.attacker.deliver(frame) == "reject.replay_flag"


async def test_other_artefacts_as_a_frame(net: Any, bank: Bank) -> None:
    """A statement, a chain, a link, a log's checkpoint and a synchronisation frame are no messages."""
    mallory = net.attacker
    artefacts = {
        "statement": mallory.voice.statement,
        "chain": mallory.authority.data,
        "head": net._core.head(net.clock.now()),
        "entry": next(iter(net._node.recorder.log)),
    }
    for name, artefact in artefacts.items():
        before = len(net.verdicts())
        assert await mallory.deliver(b"\x01" + artefact) == "malformed.frame", name
        await mallory.deliver(artefact)
        assert net.verdicts()[before + 1 :] in ([], ["malformed.frame"]), name
    assert bank.quoted == 0


async def test_a_message_for_another_recipient(net: Any, bank: Bank) -> None:
    """Cross-recipient: what was sealed for the broker is moved to the bank, and the other way round."""
    mallory = net.attacker
    broker, target = mallory.instance_of("broker"), mallory.instance_of("bank")
    frame = mallory.forge("bank", Quote(), recipient_instance=broker.instance_id)
    assert await mallory.deliver(frame) == "reject.recipient"
    frame = mallory.forge("broker", Quote(), recipient_instance=target.instance_id)
    assert await mallory.deliver(frame) == "reject.recipient"
    frame = mallory.forge("bank", Quote(), recipient_instance=bytes(16))
    assert await mallory.deliver(frame) == "reject.recipient"
    assert bank.quoted == 0


async def test_what_mallory_was_sent_is_passed_on_to_the_bank(net: Any, bank: Bank) -> None:
    """Alice asks mallory; mallory passes the very frame on."""
    net._services[0].voice.local.peer_seq.clear()
    helper = Agent("mallory")

    @helper.handler
    async def quote(request: Quote, ctx: Context) -> Paid:
        return Paid(cents=0)

    async with net.attacker.serve(helper):
        await net.user("alice", scopes=["pay"]).request("mallory", Quote())
        got = net.attacker.capture("Quote", kind=Kind.REQUEST, mine=True)
        assert await net.attacker.deliver(got.frame) == "reject.recipient"
    assert bank.quoted == 0


async def test_reflection(net: Any, bank: Bank) -> None:
    """The victim's own frame comes back to it: it is for somebody else, and not from this connection."""
    asking = asyncio.ensure_future(net.user("alice", scopes=["pay"]).request("broker", Ask(cents=1), delegate=["pay"]))
    await asking
    for one in [c for c in net.captured if c.header.kind in (Kind.REQUEST, Kind.REPLY)]:
        assert await net.attacker.deliver(one.frame) == "reject.replayed"
    helper = Agent("mallory")

    @helper.handler
    async def quote(request: Quote, ctx: Context) -> Paid:
        return Paid(cents=0)

    async with net.attacker.serve(helper):
        await net.user("bob", scopes=[]).request("mallory", Quote())
        got = net.attacker.capture("Quote", kind=Kind.REQUEST, mine=True)
        assert await net.attacker.deliver(got.frame) == "reject.recipient"


async def test_a_reply_sent_back_as_a_request(net: Any, bank: Bank) -> None:
    """The positions of a reply, with the kind of a request: malformed, whoever signs it."""
    await net.attacker.request("bank", Quote())
    reply = net.attacker.capture("Quote", kind=Kind.REPLY, mine=True)
    frame = net.attacker.forge("bank", Quote(), in_reply_to=reply.header.in_reply_to)
    assert await net.attacker.deliver(frame) == "malformed.kind"
    assert await net.attacker.deliver(reply.frame) == "reject.recipient"
    assert bank.quoted == 1


async def test_an_expired_message(net: Any, bank: Bank) -> None:
    frame = net.attacker.forge("bank", Quote(), timeout=30)
    net.clock.advance(30)
    assert await net.attacker.deliver(frame) == "reject.expired"


async def test_a_message_from_the_future(net: Any, bank: Bank) -> None:
    now = net.clock.now()
    frame = net.attacker.forge("bank", Quote(), issued_at=now + 31 * SECOND, deadline=now + 60 * SECOND)
    assert await net.attacker.deliver(frame) == "reject.issued_in_future"
    frame = net.attacker.forge("bank", Quote(), issued_at=now + 30 * SECOND, deadline=now + 60 * SECOND)
    assert await net.attacker.deliver(frame) == "ok"


async def test_a_message_that_lives_too_long(net: Any, bank: Bank) -> None:
    assert await net.attacker.deliver(net.attacker.forge("bank", Quote(), timeout=601)) == "reject.lifetime"
    assert await net.attacker.deliver(net.attacker.forge("bank", Quote(), timeout=0)) == "reject.lifetime"
    job = net.attacker.forge("bank", Quote(), kind=Kind.JOB, timeout=7 * 86400 + 1)
    assert await net.attacker.deliver(job) == "reject.lifetime"


@pytest.mark.parametrize("kind", [Kind.JOB, Kind.EVENT])
async def test_kinds_that_nobody_serves_break_nothing(net: Any, bank: Bank, kind: Kind) -> None:
    """They open no exchange, so no table is asked for moves it does not have when the deadline comes."""
    topic = {"topic": "t"} if kind is Kind.EVENT else {}
    frame = net.attacker.forge("bank", Quote(), kind=kind, timeout=5, **topic)
    assert await net.attacker.deliver(frame) == "handler.missing"
    await net.advance(6)
    net._node.lost(net.attacker.connection(), "test")
    assert bank.quoted == 0


async def test_other_content_than_was_signed(net: Any, bank: Bank) -> None:
    """Body, chain and handover are exchanged behind the header's back."""
    mallory = net.attacker
    alice = net.user("alice", scopes=["pay"])
    await alice.request("bank", Pay(cents=1))
    other = mallory.capture("Pay", kind=Kind.REQUEST).envelope

    def swapped(**sections: bytes) -> bytes:
        from agentbus.wire.frame import decode_frame

        return encode_frame(decode_frame(mallory.forge("bank", Quote()), LIMITS)._replace(**sections))

    assert await mallory.deliver(swapped(body=other.body)) == "reject.body"
    assert await mallory.deliver(swapped(salt=other.salt)) == "reject.body"
    assert await mallory.deliver(swapped(chain=other.chain)) == "reject.chain_digest"
    assert await mallory.deliver(swapped(handover=b"\x90")) == "reject.handover_digest"
    assert await mallory.deliver(swapped(proof=other.proof)) == "reject.signature"


async def test_a_proof_moved_within_its_batch(net: Any, bank: Bank) -> None:
    """Two headers under one signature: the path of one does not lead from the other."""
    from agentbus.protocol.sealing import Batch
    from agentbus.wire.frame import decode_frame

    mallory = net.attacker
    drafts = []
    for _ in range(2):
        sections = decode_frame(mallory.forge("bank", Quote()), LIMITS)
        drafts.append(Draft.of(sections.header, sections.chain, sections.handover, sections.salt, sections.body))
    batch = Batch.prepare(drafts, key_id=mallory.voice.key.id, instance_id=mallory.voice.local.instance_id)
    first, second = batch.attach(sign(mallory.voice.key, Purpose.BATCH, batch.to_sign))
    one, two = decode_frame(first, LIMITS), decode_frame(second, LIMITS)
    assert await mallory.deliver(encode_frame(one._replace(proof=two.proof))) == "reject.signature"
    cut = decode_proof(one.proof, LIMITS)._replace(path=())
    assert (await mallory.deliver(encode_frame(one._replace(proof=encode_proof(cut))))).startswith("malformed.")
    assert [await mallory.deliver(first), await mallory.deliver(second)] == ["ok", "ok"]


# ── exchanges ────────────────────────────────────────────────────────────────────────────────────────────────────────


def answer(net: Any, to: Header, kind: Kind, **changes: Any) -> bytes:
    """Mallory's answer to somebody's question, with everything she can know about it."""
    from agentbus.wire.frame import decode_frame

    model = Paid(cents=666)
    frame: bytes = net.attacker.forge(
        "bank", model, kind=kind, recipient=to.sender, recipient_instance=to.sender_instance,
        conversation=to.conversation, action=to.action,
        **{"in_reply_to": digest_of(net.attacker.capture(kind=to.kind, sender=to.sender).frame), **changes},
    )  # fmt: skip
    assert decode_frame(frame, LIMITS)
    return frame


async def test_a_reply_by_a_third_party(net: Any, bank: Bank) -> None:
    """Alice asks the bank; mallory answers first."""
    asking = asyncio.ensure_future(net.user("alice", scopes=[]).request("bank", Hold()))
    await bank.holding.wait()
    question = net.attacker.capture("Hold", kind=Kind.REQUEST).header
    for kind, extra in ((Kind.REPLY, {}), (Kind.ERROR, {}), (Kind.PROGRESS, {})):
        assert await net.attacker.deliver(answer(net, question, kind, **extra)) == "reject.no_exchange"
    assert not asking.done()
    bank.release.set()
    assert (await asking).cents == 9


async def test_a_stream_item_by_a_third_party(net: Any, bank: Bank) -> None:
    async with net.user("alice", scopes=[]).stream("bank", Tick(count=2)) as items:
        assert [(await anext(items)).cents, (await anext(items)).cents] == [0, 1]
        question = net.attacker.capture("Tick", kind=Kind.STREAM).header
        for kind in (Kind.ITEM, Kind.END):
            frame = answer(net, question, kind, stream_index=2)
            assert await net.attacker.deliver(frame) == "reject.no_exchange"
        assert not items._items
        bank.release.set()
        assert [item async for item in items] == []


async def test_a_cancel_or_credit_by_a_third_party(net: Any, bank: Bank) -> None:
    asking = asyncio.ensure_future(net.user("alice", scopes=[]).request("bank", Hold()))
    await bank.holding.wait()
    question = net.attacker.capture("Hold", kind=Kind.REQUEST)
    target = {"in_reply_to": digest_of(question.frame)}
    assert await net.attacker.deliver(net.attacker.forge("bank", Quote(), kind=Kind.CANCEL, **target)) == (
        "reject.no_exchange"
    )
    frame = net.attacker.forge("bank", Quote(), kind=Kind.CREDIT, stream_index=9999, **target)
    assert await net.attacker.deliver(frame) == "reject.no_exchange"
    bank.release.set()
    assert (await asking).cents == 9


async def test_an_unsolicited_reply(net: Any, bank: Bank) -> None:
    frame = net.attacker.forge("bank", Paid(cents=1), kind=Kind.REPLY, in_reply_to=bytes(32))
    assert await net.attacker.deliver(frame) == "reject.no_exchange"


async def test_a_reply_moved_to_another_question(net: Any, bank: Bank) -> None:
    """Mallory is asked twice and answers the second question where the first was put: each digest has one answer."""
    helper, gate = Agent("mallory"), asyncio.Event()

    @helper.handler
    async def quote(request: Quote, ctx: Context) -> Paid:
        await gate.wait()
        return Paid(cents=1)

    @helper.handler
    async def pay(request: Pay, ctx: Context) -> Paid:
        return Paid(cents=request.cents)

    async with net.attacker.serve(helper):
        alice, bob = net.user("alice", scopes=[]), net.user("bob", scopes=[])
        asking = asyncio.ensure_future(alice.request("mallory", Quote()))
        await net.settle()
        assert (await bob.request("mallory", Pay(cents=2))).cents == 2
        reply = net.attacker.capture("Pay", kind=Kind.REPLY)
        question = net.attacker.capture("Quote", kind=Kind.REQUEST, mine=True)
        moved = reply.header._replace(in_reply_to=digest_of(question.frame), peer_seq=reply.header.peer_seq + 50)
        signed = net.attacker.seal(
            Draft.of(encode_header(moved), reply.envelope.chain, b"", reply.envelope.salt, reply.envelope.body)
        )
        assert await net.attacker.deliver(signed) == "reject.no_exchange"  # asked by alice, answered to bob
        unsigned = encode_frame(reply.envelope._replace(header=encode_header(moved)))
        assert await net.attacker.deliver(unsigned) == "reject.signature"
        assert not asking.done()
        gate.set()
        assert (await asking).cents == 1


async def test_two_answers_to_one_question(net: Any, bank: Bank) -> None:
    helper = Agent("mallory")

    @helper.handler
    async def quote(request: Quote, ctx: Context) -> Paid:
        return Paid(cents=1)

    async with net.attacker.serve(helper):
        assert (await net.user("alice", scopes=[]).request("mallory", Quote())).cents == 1
        reply = net.attacker.capture("Quote", kind=Kind.REPLY)
        again = reply.header._replace(peer_seq=reply.header.peer_seq + 1, message_id=bytes(16))
        sealed = net.attacker.seal(
            Draft.of(encode_header(again), reply.envelope.chain, b"", reply.envelope.salt, reply.envelope.body)
        )
        assert await net.attacker.deliver(sealed) == "ok"  # hers, and about her exchange: on the record, and no more
        assert await net.attacker.replay(reply) == "reject.replayed"


async def test_a_stream_that_skips_an_item_is_broken(net: Any, bank: Bank) -> None:
    from agentbus import StreamBroken

    helper, gate, stopped = Agent("mallory"), asyncio.Event(), asyncio.Event()

    @helper.handler
    async def tick(request: Tick, ctx: Context) -> AsyncIterator[Paid]:
        try:
            yield Paid(cents=0)
            await gate.wait()
        finally:
            stopped.set()

    async with net.attacker.serve(helper):
        async with net.user("alice", scopes=[]).stream("mallory", Tick(count=1)) as items:
            assert (await anext(items)).cents == 0
            first = net.attacker.capture("Tick", kind=Kind.ITEM)
            skipped = first.header._replace(stream_index=2, peer_seq=first.header.peer_seq + 1, message_id=bytes(16))
            envelope = first.envelope
            await net.attacker.deliver(
                net.attacker.seal(Draft.of(encode_header(skipped), envelope.chain, b"", envelope.salt, envelope.body))
            )
            with pytest.raises(StreamBroken) as caught:
                await anext(items)
            assert caught.value.code == "stream.broken"
            async with asyncio.timeout(5):
                await stopped.wait()  # what nobody can use is called off at once, not when the block is left
        gate.set()


# ── floods and copies ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_flood_of_bad_frames_drops_only_that_connection(net: Any, bank: Bank) -> None:
    alice = net.user("alice", scopes=[])
    await alice.request("bank", Quote())
    honest = net.attacker.capture("Quote", kind=Kind.REQUEST).connection
    frame = net.attacker.forge("bank", Quote())
    bad = net.attacker.connection()
    for n in range(BAD_FRAMES + 1):
        bad.offer(net.attacker.flip(frame, signature_at(frame) + n % 64) if n % 2 else b"\x07 rubbish")
    await net.settle()
    assert bad.gone  # type: ignore[attr-defined]
    assert not honest.gone  # type: ignore[attr-defined]
    assert (await alice.request("bank", Quote())).cents == 7
    assert await net.attacker.deliver(frame) == "ok"  # over a new connection: the bucket is the connection's
    assert len([v for v in net.verdicts() if v == "reject.signature"]) <= 10  # and the log was not filled with them


async def test_bad_frames_are_forgiven_in_time(net: Any, bank: Bank) -> None:
    frame = net.attacker.forge("bank", Quote(), timeout=600)
    connection = net.attacker.connection()
    for _ in range(BAD_FRAMES * 2):
        connection.offer(net.attacker.flip(frame, signature_at(frame)))
        await net.settle(10)
        net.clock.advance(1)
    assert not connection.gone  # type: ignore[attr-defined]
    assert await net.attacker.deliver(frame) == "ok"


async def test_the_body_of_what_is_refused_fills_nobodys_disk(net: Any, bank: Bank) -> None:
    """Whoever may say nothing here says a megabyte: the record keeps what it committed to, and verifies."""
    alice = net.user("alice", scopes=["pay"])
    await alice.request("bank", Pay(cents=5))
    code = await net.attacker.deliver(net.attacker.forge("bank", ForUsers()))
    assert code.startswith("denied.")
    net._node.recorder.flush()
    log = net._node.recorder.log
    received = [one for one in map(decode_entry, log) if isinstance(one, Received)]
    assert [one.code for one in received if one.body is None] == [code]
    report = net.evidence("bank").verify()
    assert report.ok and report["MISSING"].ok
    assert report["MISSING"].reason == "1 refused messages are kept without their bodies"


async def test_who_is_refused_without_end_is_dropped_and_verified_no_more(
    net: Any, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "BURST", 10.0)
    frames = [net.attacker.forge("bank", ForUsers()) for _ in range(40)]
    bad = net.attacker.connection()
    for frame in frames:
        bad.offer(frame)
    await net.settle(200)
    assert bad.gone  # type: ignore[attr-defined]
    denied = [code for code in net.verdicts() if code.startswith("denied.")]
    assert 3 <= len(denied) <= 11
    assert "backpressure.connection" in net.verdicts(), "what came behind is counted, and was not verified"
    again = net.attacker.connection()
    again.offer(net.attacker.forge("bank", ForUsers()))
    await net.settle(200)
    assert again.gone, "a new connection of the same key has no bucket of its own"  # type: ignore[attr-defined]
    assert len([code for code in net.verdicts() if code.startswith("denied.")]) == len(denied) + 1, "it verified"
    net.clock.advance(1)
    assert str(await net.attacker.deliver(net.attacker.forge("bank", ForUsers()))).startswith("denied.")


async def test_two_instances_that_share_a_key(net: Any, bank: Bank) -> None:
    """A second statement that binds mallory's instance key to another instance id is refused by the directory."""
    voice = net.attacker.voice
    twin = voice.instance._replace(instance_id=bytes(16))
    statement = twin.signed_by(voice.identity.key, voice.key).encode()
    with pytest.raises(Rejected) as caught:
        await net.attacker.node.source.publish(statement)
    assert caught.value.code == "reject.statement_invalid"
    frame = net.attacker.forge("bank", Quote(), sender_instance=bytes(16))
    assert await net.attacker.deliver(frame) == "reject.sender_key"


async def test_registering_somebody_elses_instance_key(net: Any, bank: Bank) -> None:
    """Mallory cannot countersign with the broker's instance key, so its key never becomes hers."""
    broker = net.attacker.instance_of("broker")
    voice = net.attacker.voice
    claim = voice.instance._replace(key=broker.key, instance_id=bytes(16))
    with pytest.raises(Rejected) as caught:
        await net.attacker.node.source.publish(claim.signed_by(voice.identity.key, voice.key).encode())
    assert caught.value.code == "reject.statement_signature"


async def test_the_recipients_own_rules(net: Any, bank: Bank) -> None:
    assert await net.attacker.deliver(net.attacker.forge("bank", ForUsers())) == "denied.user_required"
    assert await net.attacker.deliver(net.attacker.forge("bank", Quote(), action="Nothing")) == "handler.missing"
    with pytest.raises(Denied) as caught:
        await net.attacker.request("broker", Ask(cents=1))
    assert caught.value.code == "denied.nothing_handed_over"
    assert bank.quoted == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[" * 100_000, "handler.failed"),
        (b'{"code":"problem","message":"m","retryable":false,"details":{"message":1}}', "problem"),
        (b'{"code":"problem","message":"m","retryable":false,"details":{"self":1}}', "problem"),
        (b'{"code":1,"message":"m","retryable":false,"details":{}}', "handler.failed"),
        (b"\xff", "handler.failed"),
        (b"", "handler.failed"),
    ],
    ids=["deep", "message", "self", "types", "text", "empty"],
)
async def test_whatever_a_peer_puts_into_an_error_is_an_error(body: bytes, code: str) -> None:
    assert problems.decode(body, "mallory").code == code


async def test_a_flood_of_unknown_senders_costs_twenty_look_ups_a_second(net: Any, bank: Bank) -> None:
    """Each frame names another key: what the directory is asked on a connection's behalf is bounded."""
    asked: list[bytes] = []
    source = net._node.source
    find = source.find

    async def counted(keys: Any = (), principals: Any = ()) -> None:
        asked.extend(keys)
        await find(keys, principals)

    source.find = counted
    for n in range(50):
        key = SigningKey(bytes([n]) * 32)
        await net.attacker.deliver(net.attacker.forge("bank", Quote(), key=key, sender_key=key.id))
    assert 0 < len(set(asked)) <= 20
    assert bank.quoted == 0


async def test_frames_of_one_step_are_judged_and_recorded_in_their_order(net: Any, bank: Bank) -> None:
    """Good ones, a forgery, the first one again and what is no frame, all in one step: each is judged by itself."""
    assert await net.attacker.deliver(net.attacker.forge("bank", Quote())) == "ok"
    captured, since = net.attacker.capture("Quote", sender="mallory"), net._node.recorder.log.size
    good = [net.attacker.forge("bank", Quote()) for _ in range(4)]
    forged = net.attacker.flip(net.attacker.forge("bank", Quote()), signature_at(good[0]))
    cut_off = good[3][:-1]
    handled = bank.quoted
    for frame in (good[0], good[1], forged, good[0], good[2], cut_off, good[3]):
        net._node.received(captured.connection, frame)
    await net.settle()
    ok, malformed = "ok", "malformed.frame"
    assert net.verdicts(since) == [ok, ok, "reject.signature", "reject.replayed", ok, malformed, ok]
    assert bank.quoted == handled + 4


async def test_what_waits_for_a_look_up_is_bounded_in_bytes(net: Any, bank: Bank) -> None:
    """One frame of a sender that has to be looked up, and the largest ones behind it: they must not fill our memory."""
    assert await net.attacker.deliver(net.attacker.forge("bank", Quote())) == "ok"
    captured, node = net.attacker.capture("Quote", sender="mallory"), net._node
    unknown = net.attacker.forge("bank", Quote(), edit=lambda header: header._replace(sender_key=b"?" * 32))
    captured.sink.received(captured.connection, unknown)
    account = node.inbound.accounts[captured.connection]
    assert account.looking
    largest = bytes([ENVELOPE]) * LIMITS.frame
    for _ in range(64):
        node.inbound._admit(captured.connection, largest, cut(largest), [])
        assert account.held_bytes == sum(map(len, account.held)) <= HELD_BYTES, cut
    await net.settle()
    assert not captured.connection.offer(unknown)  # it was dropped
    assert account.held_bytes == len(account.held) == 0


async def test_what_was_held_behind_a_look_up_takes_turns_and_keeps_its_order(net: Any, bank: Bank) -> None:
    """Small frames behind one of a sender that has to be looked up are not all judged in one step of the loop."""
    assert await net.attacker.deliver(net.attacker.forge("bank", Quote())) == "ok"
    captured, node = net.attacker.capture("Quote", sender="mallory"), net._node
    quoted = bank.quoted
    frames = [net.attacker.forge("bank", Quote()) for _ in range(600)]
    seqs = [decode_header(decode_frame(frame, LIMITS).header, LIMITS).seq for frame in frames]
    unknown = net.attacker.forge("bank", Quote(), edit=lambda header: header._replace(sender_key=b"?" * 32))
    captured.sink.received(captured.connection, unknown)
    account = node.inbound.accounts[captured.connection]
    assert account.looking
    for frame in frames[:500]:
        node.inbound._admit(captured.connection, frame, cut(frame), [])
    steps, judged = [], node.inbound._open
    taken: list[int] = []

    def count_steps(connection: Any, account: Any, frame: bytes, *more: Any, looked: int) -> None:
        if looked == 0:
            steps[-1] += 1
            taken.append(decode_header(decode_frame(frame, LIMITS).header, LIMITS).seq)
        judged(connection, account, frame, *more, looked=looked)

    turns = node.inbound._take_turns

    def step() -> None:
        steps.append(0)
        turns()

    node.inbound._open, node.inbound._take_turns = count_steps, step
    steps.append(0)
    while account.looking:
        await asyncio.sleep(0)
    for frame in frames[500:]:  # what comes now comes behind them
        captured.sink.received(captured.connection, frame)
    await net.settle()
    assert taken == seqs and bank.quoted == quoted + 600
    assert max(steps) <= AT_ONCE + 1 and not account.held and account.turns == 0


async def test_a_frame_that_nobody_can_judge_after_a_look_up_costs_its_own_connection_only(
    net: Any, bank: Bank, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault that a peer has found: it ends where any other does, and what was held behind it is not forgotten."""
    assert await net.attacker.deliver(net.attacker.forge("bank", Quote())) == "ok"
    captured, inbound = net.attacker.capture("Quote", sender="mallory"), net._node.inbound
    stray: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: stray.append(context))
    unknown = net.attacker.forge("bank", Quote(), edit=lambda header: header._replace(sender_key=b"?" * 32))
    behind = net.attacker.forge("bank", Quote())
    captured.sink.received(captured.connection, unknown)
    account, judged = inbound.accounts[captured.connection], inbound._open
    assert account.looking
    inbound._admit(captured.connection, behind, cut(behind), [])
    assert len(account.held) == 1
    quoted = bank.quoted

    def faulty(*of: Any, looked: int) -> None:
        if looked:
            raise RuntimeError
        judged(*of, looked=looked)

    inbound._open = faulty
    await net.settle()
    gc.collect()
    assert not account.looking and not account.held and account.turns == 0
    assert bank.quoted == quoted + 1  # it came before the connection ended
    assert "its connection is dropped" in caplog.text
    assert stray == []


async def test_nothing_is_kept_of_a_connection_that_is_gone(net: Any, bank: Bank) -> None:
    """Frames that were queued, and what they cost, come after the end of their connection."""
    assert await net.attacker.deliver(net.attacker.forge("bank", Quote())) == "ok"
    node = net._node
    gc.collect()
    before = len(node.inbound.accounts)
    for _ in range(50):
        gone = _Gone()
        node.inbound.received(gone, b"junk")
        node.inbound.lost(gone)
        node.inbound.charge(gone)
        node.inbound.received(gone, b"junk")
    await net.settle()
    del gone
    gc.collect()
    assert len(node.inbound.accounts) == before


class _Gone:
    """A connection of a transport."""

    id, peer, dialled = 1 << 40, b"g" * 32, False

    def drop(self, *, keep_out: bool = True) -> None:
        pass
