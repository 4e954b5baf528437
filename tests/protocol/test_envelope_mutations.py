"""A hundred thousand mutated envelopes, and not one is accepted: bits, fields, splices, strips, grafts, reorders."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from agentbus.crypto.cache import SignatureCache
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.chain import Authority
from agentbus.delegation.decide import Policy, Rule, decide
from agentbus.delegation.grant import decode_links, encode_chain
from agentbus.delegation.trust import NeedsTrust
from agentbus.errors import AgentBusError
from agentbus.protocol.engine import Engine, Local
from agentbus.protocol.opening import open_envelope
from agentbus.testing.draw import World, draw_chain, draw_world
from agentbus.wire.codec import pack, unpack
from agentbus.wire.frame import Envelope, decode_frame, encode_frame
from agentbus.wire.header import Kind
from agentbus.wire.limits import LIMITS, SECOND

SHORT = 100_000


def valid_frames(world: World) -> list[bytes]:
    """Envelopes of carol to dave under chains of two lengths: a batch of five, and a lone one."""
    rng = random.Random(1)
    engine = Engine(rng.randbytes)
    carol, dave = world["carol"], world["dave"]
    local = Local(carol.id, carol.epoch, carol.running.instance_id, carol.instance.id)
    engine.add_local(local)
    short = encode_chain(draw_chain("alice -[docs:*]-> carol", world=world, depth=4))
    long = encode_chain(draw_chain("alice -[docs:*,pay]-> erin -[docs:*]-> carol", world=world, depth=4))
    frames = []
    for count in (5, 1):
        for n in range(count):
            engine.ask(
                Kind.REQUEST, local, dave.running, action="Quote", body=b'{"n":%d}' % n,
                chain=Authority.from_bytes(long if n % 2 else short), now=world.now, mono=0,
                deadline=world.now + 30 * SECOND, trust=world.trust, route=None,
            )  # fmt: skip
        for batch in engine.take_batches():
            engine.attach(batch, sign(carol.instance, Purpose.BATCH, batch.batch.to_sign))
        frames += [ready.frame for ready in engine.take_frames()]
    return frames


def mutations(frames: list[bytes], rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Endless (kind of mutation, frame)."""

    def flip(frame: bytes) -> bytes:
        data = bytearray(frame)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)

    def cut(frame: bytes) -> bytes:
        at, length = rng.randrange(len(frame)), rng.randrange(1, 40)
        kinds = (frame[:at], frame[:at] + frame[at + length :], frame[:at] + rng.randbytes(length) + frame[at:])
        return rng.choice(kinds)

    def splice(frame: bytes) -> bytes:
        """A section of another valid frame."""
        section = rng.choice(Envelope._fields)
        other = decode_frame(rng.choice(frames), LIMITS)
        return encode_frame(decode_frame(frame, LIMITS)._replace(**{section: getattr(other, section)}))

    def field(frame: bytes) -> bytes:
        """One position of the header, changed and encoded as it should be."""
        envelope = decode_frame(frame, LIMITS)
        row = unpack(envelope.header)
        at = rng.randrange(len(row))
        value = row[at]
        if isinstance(value, bytes):
            row[at] = rng.choice((rng.randbytes(len(value)), None, b""))
        elif isinstance(value, int):
            row[at] = max(0, value + rng.choice((-(10**7), -1, 1, 10**7)))
        elif isinstance(value, str):
            row[at] = rng.choice((value + "x", value.replace("carol", "dave"), "spiffe://local.test/user/alice"))
        else:
            row[at] = rng.choice((rng.randbytes(32), 0, "x", [[1, True, b""]]))
        return encode_frame(envelope._replace(header=bytes(pack(row))))

    def chain(frame: bytes) -> bytes:
        """Links dropped, doubled, swapped, grafted from another chain, or changed in one position."""
        envelope = decode_frame(frame, LIMITS)
        links = list(decode_links(envelope.chain))
        others = decode_links(decode_frame(rng.choice(frames), LIMITS).chain)
        at = rng.randrange(len(links))
        what = rng.randrange(5)
        if what == 0:
            del links[at]
        elif what == 1:
            links.insert(at, links[at])
        elif what == 2:
            links.reverse()
        elif what == 3:
            links.append(rng.choice(others))
        else:
            rows = unpack(envelope.chain)
            body = unpack(rows[at][0])
            position = rng.randrange(len(body))
            body[position] = rng.choice((0, 1, b"x" * 32, None, [["pay", []]], "spiffe://local.test/agent/dave", 2**40))
            rows[at][0] = bytes(pack(body))
            return encode_frame(envelope._replace(chain=bytes(pack(rows))))
        return encode_frame(envelope._replace(chain=encode_chain(tuple(links))))

    kinds: tuple[Callable[[bytes], bytes], ...] = (flip, flip, flip, cut, splice, field, field, chain)
    while True:
        kind = rng.choice(kinds)
        yield kind.__name__, kind(rng.choice(frames))


def run(count: int, seed: int) -> None:
    world = draw_world("carol", "dave", "erin")
    frames = valid_frames(world)
    dave = world["dave"]
    policy = Policy("test", {(dave.id, "Quote"): Rule(("docs:read",))})
    cache = SignatureCache()

    def judge(frame: bytes) -> None:
        message = open_envelope(
            frame, me={dave.running.instance_id: dave.id}, trust=world.trust, now=world.now, seen=lambda header: False,
            exchanges=lambda digest, answering: None, cache=cache,
        )  # fmt: skip
        decide(message, trust=world.trust, policy=policy, now=world.now, age=0)

    for frame in frames:
        judge(frame)
    seen: Counter[str] = Counter()
    tried, made = 0, mutations(frames, random.Random(seed))
    while tried < count:
        kind, frame = next(made)
        if frame in frames:
            continue
        tried += 1
        try:
            judge(frame)
        except NeedsTrust:
            seen["needs trust"] += 1
        except AgentBusError as error:
            seen[error.code] += 1
        else:
            pytest.fail(f"accepted after {kind}: {frame.hex()}")
    # A campaign that stops at the first length check shows nothing: every stage has to have refused some.
    stages = ("malformed.frame", "malformed.header", "malformed.path", "reject.signature", "reject.body")
    assert all(seen[code] > 20 for code in (*stages, "reject.chain_digest", "reject.recipient")), seen


def test_no_mutated_envelope_is_accepted() -> None:
    run(SHORT, seed=20_26)


@pytest.mark.campaign
def test_no_mutated_envelope_is_accepted_in_a_long_run() -> None:
    run(20 * SHORT, seed=random.randrange(2**32))
