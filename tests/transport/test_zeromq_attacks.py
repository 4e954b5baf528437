"""Attacks on the ZeroMQ transport. Mallory is enrolled, unless it says otherwise: her key is good, her manners are not.

Where libzmq could abort its process, the victim is a process of its own and has to end in good order.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket as sockets
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import zmq
from curve import LOW_ORDER, Client, command, greeting, hello
from proxy import between
from zmq_peers import Attacker, Process, attacker, process, public, secret, zmq_party

from agentbus.testing.transports import PATIENCE, Party, RecordingSink
from agentbus.transport.common import WAITING
from agentbus.transport.zeromq import gate as gates
from agentbus.transport.zeromq import sockets as options
from agentbus.transport.zeromq import unfinished, unsent, zap
from agentbus.transport.zeromq.monitor import Accepted
from agentbus.transport.zeromq.sockets import Settings

Figure = Callable[[str, float, str], None]
NO_HANDSHAKE_ENDS: Final = 600_000  # ms; with libzmq's own limit far away, who is cut was cut by us


@pytest.fixture
def mallory() -> Iterator[Attacker]:
    with attacker() as villain:
        yield villain


@pytest.fixture
async def alice() -> AsyncIterator[Party]:
    async with zmq_party("alice") as party:
        yield party


@pytest.fixture
async def victim() -> AsyncIterator[Process]:
    """An echo server in its own process, which has to survive."""
    async with process("listen", "victim") as peer:
        yield peer
        assert await peer.end() == 0


@pytest.fixture
async def patient() -> AsyncIterator[Process]:
    """A victim whose libzmq ends no handshake while a test lasts."""
    async with process("listen", "victim", handshake=NO_HANDSHAKE_ENDS) as peer:
        yield peer
        assert await peer.end() == 0


@pytest.fixture
def no_handshake_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for listeners that are opened in this process."""
    monkeypatch.setattr(options, "HANDSHAKE", NO_HANDSHAKE_ENDS)


async def _still_serves(alice: Party, victim: Process) -> None:
    before = len(alice.sink.frames)
    assert alice.transport.dial(victim.endpoint, victim.key).offer(b"still there?")
    frames = await alice.sink.until_frames(before + 1)
    assert frames[before] == b"re: still there?"


# Routing ids: peers choose them.


async def test_nobody_aborts_over_a_routing_id(mallory: Attacker, alice: Party, victim: Process) -> None:
    hostile = [b"\x00", b"\x00" * 5, b"\x00" * 255, b"\xff" * 255, b"x", b"a" * 16, b"\x00" + b"kEEP", b"x", b"x"]
    talkers = [mallory.socket("mallory", victim.key, routing_id=routing_id) for routing_id in hostile]
    for talker in talkers:
        assert await mallory.attempt(talker, victim.endpoint) == "in"
        talker.send(b"echo")
    for talker in talkers[:-2]:  # the last two share the id of an earlier one and are not heard
        assert await mallory.receive(talker) == [b"re: echo"]
    assert [talker.poll(0) for talker in talkers[-2:]] == [0, 0]
    await _still_serves(alice, victim)


async def test_the_ids_that_libzmq_counts_up_cannot_be_guessed(
    mallory: Attacker, alice: Party, victim: Process
) -> None:
    """libzmq names a nameless peer 0x6B8B4567 + n in *every* process, and aborts if that name is taken."""
    for ahead in range(16):
        squatter = mallory.socket("mallory", victim.key, routing_id=b"\x00" + struct.pack(">I", 0x6B8B4567 + ahead))
        assert await mallory.attempt(squatter, victim.endpoint) == "in"
    for _ in range(8):
        nameless = mallory.socket("mallory", victim.key)
        assert await mallory.attempt(nameless, victim.endpoint) == "in"
        nameless.send(b"echo")
        assert await mallory.receive(nameless) == [b"re: echo"]
    await _still_serves(alice, victim)


async def test_a_live_peers_routing_id_cannot_be_taken(mallory: Attacker, alice: Party) -> None:
    """Bob's id is known to Mallory. She gets none of his replies, and nothing she sends counts as his."""
    alice.sink.on_frame = lambda connection, frame: connection.offer(b"for bob: " + frame)
    bob = mallory.socket("bob", alice.key, routing_id=b"bob's id")
    assert await mallory.attempt(bob, alice.endpoint) == "in"
    bob.send(b"0")
    assert await mallory.receive(bob) == [b"for bob: 0"]
    thief = mallory.socket("mallory", alice.key, routing_id=b"bob's id")
    assert await mallory.attempt(thief, alice.endpoint) == "in"
    for number in range(1, 50):
        thief.send(b"I am bob")
        bob.send(b"%d" % number)
        assert await mallory.receive(bob) == [b"for bob: %d" % number]
    assert thief.poll(0) == 0
    assert {connection.peer for connection, _ in alice.sink.frames} == {public("bob")}
    assert alice.sink.payloads == [b"%d" % number for number in range(50)]


async def test_a_dead_peers_routing_id_brings_nothing_else_of_its_with_it(mallory: Attacker, alice: Party) -> None:
    bob = mallory.socket("bob", alice.key, routing_id=b"bob's id")
    assert await mallory.attempt(bob, alice.endpoint) == "in"
    bob.send(b"hello")
    await alice.sink.until_frames(1)
    of_bob, _ = alice.sink.frames[0]
    mallory.hang_up(bob)
    await alice.sink.until_lost(of_bob)
    thief = mallory.socket("mallory", alice.key, routing_id=b"bob's id")
    assert await mallory.attempt(thief, alice.endpoint) == "in"
    thief.send(b"I am bob")
    await alice.sink.until_frames(2)
    of_thief, _ = alice.sink.frames[1]
    assert of_thief is not of_bob and of_thief.peer == public("mallory")
    assert not of_bob.offer(b"for bob")
    assert of_thief.offer(b"for mallory")
    assert await mallory.receive(thief) == [b"for mallory"]


# Messages: one frame each, of bounded size.


@pytest.mark.parametrize("parts", [[b"a", b"b"], [b""] * 3, [b"x"] * 5000, [b"", b"hello"]])
async def test_a_message_of_several_parts_costs_the_connection(
    mallory: Attacker, alice: Party, parts: list[bytes]
) -> None:
    sender = mallory.socket("mallory", alice.key)
    assert await mallory.attempt(sender, alice.endpoint) == "in"
    sender.send_multipart(parts)
    assert await mallory.outcome(sender) == "cut"
    await alice.sink.until(lambda: alice.sink.losses)
    assert alice.sink.frames == []
    assert alice.transport.malformed == 1  # type: ignore[attr-defined]
    again = mallory.socket("mallory", alice.key)
    assert await mallory.attempt(again, alice.endpoint) == "refused"
    async with zmq_party("bob") as bob:
        await bob.meet(alice)


async def test_a_listener_that_replies_in_several_parts_is_lost() -> None:
    """Here the listener is the villain: a bare ROUTER under the key that Alice dials."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.CURVE_SERVER, 1)
    router.setsockopt(zmq.CURVE_SECRETKEY, bytes(secret("mallory")))
    port = router.bind_to_random_port("tcp://127.0.0.1")
    async with zmq_party("alice", listen=None) as alice:
        connection = alice.transport.dial(f"tcp://127.0.0.1:{port}", public("mallory"))
        connection.offer(b"hello")
        routing_id, _ = await asyncio.to_thread(router.recv_multipart)
        router.send_multipart([routing_id, b"a", b"b"])
        await alice.sink.until_lost(connection)
        assert alice.sink.frames == []
    router.close(0)
    context.term()


@pytest.mark.parametrize("size", [1001, 1100, 5_000_000])
async def test_an_oversized_frame_costs_the_connection(mallory: Attacker, size: int) -> None:
    """Just over the limit is ours to notice; far over it, libzmq stops before it has read the frame."""
    async with zmq_party("alice", max_frame=1000) as alice:
        sender = mallory.socket("mallory", alice.key)
        assert await mallory.attempt(sender, alice.endpoint) == "in"
        sender.send(b"x" * 1000)
        await alice.sink.until_frames(1)
        sender.send(b"x" * size)
        assert await mallory.outcome(sender) == "cut"
        await alice.sink.until(lambda: alice.sink.losses)
        assert alice.sink.payloads == [b"x" * 1000]


async def test_a_dropped_key_is_kept_out_for_a_while_and_no_other(mallory: Attacker, alice: Party) -> None:
    sender, bystander = mallory.socket("mallory", alice.key), mallory.socket("bob", alice.key)
    for name in (sender, bystander):
        assert await mallory.attempt(name, alice.endpoint) == "in"
        name.send(b"hello")
    await alice.sink.until_frames(2)
    of_mallory = next(c for c, _ in alice.sink.frames if c.peer == public("mallory"))
    of_mallory.drop()
    assert await mallory.outcome(sender) == "cut"
    assert await mallory.attempt(mallory.socket("mallory", alice.key), alice.endpoint) == "refused"
    assert await mallory.attempt(mallory.socket("bob", alice.key), alice.endpoint) == "in"
    bystander.send(b"still here")
    assert (await alice.sink.until_frames(3))[2] == b"still here"
    assert [connection for connection, _ in alice.sink.losses] == [of_mallory]


async def test_a_key_that_is_cut_and_not_kept_out_returns_once_it_is_admitted_again(
    mallory: Attacker, alice: Party
) -> None:
    """Who was suspended is refused by ``admit``, and comes back when that says yes, not seconds later."""
    sender, suspended = mallory.socket("mallory", alice.key), True

    async def judge(key: bytes) -> bool:
        return not suspended

    assert await mallory.attempt(sender, alice.endpoint) == "in"
    sender.send(b"hello")
    await alice.sink.until_frames(1)
    alice.sink.judge = judge
    alice.sink.frames[0][0].drop(keep_out=False)
    assert await mallory.outcome(sender) == "cut"
    assert await mallory.attempt(mallory.socket("mallory", alice.key), alice.endpoint) == "refused"
    suspended = False
    assert await mallory.attempt(mallory.socket("mallory", alice.key), alice.endpoint) == "in"


# Strangers.


async def test_strangers_get_nowhere(mallory: Attacker, alice: Party) -> None:
    """Without encryption, with a password, with a key that is not enrolled, or with a key for somebody else."""

    async def judge(key: bytes) -> bool:
        return key == public("bob")

    alice.sink.judge = judge
    null, plain = mallory.socket(None, alice.key), mallory.socket(None, alice.key)
    plain.setsockopt(zmq.PLAIN_USERNAME, b"bob")
    plain.setsockopt(zmq.PLAIN_PASSWORD, b"secret")
    unenrolled, misled = mallory.socket("stranger", alice.key), mallory.socket("bob", public("carol"))
    for stranger, outcome in ((null, "failed"), (plain, "failed"), (unenrolled, "refused"), (misled, "failed")):
        assert await mallory.attempt(stranger, alice.endpoint, b"let me in") == outcome
    async with zmq_party("bob") as bob:
        await bob.meet(alice)
    assert alice.sink.payloads == [b"hello"]
    assert alice.sink.asked == [public("stranger"), public("bob")]


async def test_garbage_on_the_wire_disturbs_nobody(alice: Party, victim: Process) -> None:
    hi = greeting(server=False)
    garbage = [
        b"GET / HTTP/1.1\r\nHost: victim\r\n\r\n" * 10,
        os.urandom(5000),
        b"\x00" * 500,
        b"\xff" * 500,
        hi + os.urandom(500),
        hi + b"\x04\xc8" + b"\x05HELLO" + os.urandom(194),
        hi + b"\x06" + b"\xff" * 8 + b"x" * 100,
        hi.replace(b"CURVE", b"CURSE") + b"\x04\x05\x04ERROR",
        greeting(server=True) + hello(victim.key),
        hi + hello(victim.key, claim=LOW_ORDER),  # the mirror image of what a hostile listener can do to a dialler
        hi + hello(victim.key, claim=b"\x01" + bytes(31)),
        hi + hello(victim.key) + command(b"INITIATE", os.urandom(240)),
        hi + hello(victim.key) + command(b"INITIATE", os.urandom(60_000)),
        hi + hello(victim.key) + command(b"MESSAGE", os.urandom(100)),
        hi + hello(victim.key) + command(b"READY", os.urandom(100)),
        hi + hello(victim.key) + hello(victim.key),
    ]
    with ExitStack() as open_until_the_end:
        for data in garbage * 5:
            stranger = open_until_the_end.enter_context(_tcp(victim.endpoint))
            stranger.sendall(data)
        await _still_serves(alice, victim)
    await _still_serves(alice, victim)


async def test_strangers_cannot_make_us_hold_their_bytes(alice: Party, patient: Process, figure: Figure) -> None:
    """MAXMSGSIZE is for messages of a megabyte, and libzmq grants it to a handshake's commands, too."""
    await _still_serves(alice, patient)
    before = _memory(patient.pid)
    with ExitStack() as open_until_the_end:
        modest = open_until_the_end.enter_context(_tcp(patient.endpoint))
        modest.sendall(greeting(server=False))
        strangers = [open_until_the_end.enter_context(_tcp(patient.endpoint)) for _ in range(100)]
        for stranger in strangers:
            stranger.sendall(greeting(server=False) + b"\x06" + (1_000_000).to_bytes(8, "big"))
        await asyncio.wait_for(asyncio.gather(*(_pour(stranger, 900_000) for stranger in strangers)), PATIENCE)
        await _still_serves(alice, patient)
        await asyncio.wait_for(asyncio.gather(*(_until_closed(stranger) for stranger in strangers)), PATIENCE)
        grown = _memory(patient.pid) - before
        figure("100 strangers with 900 kB each made it grow by", grown, "MiB")
        assert grown < 40  # of the 86 that they sent
        assert _is_open(modest)
    await _still_serves(alice, patient)
    assert alice.sink.losses == []


@pytest.mark.parametrize("first", ["her first message", "after another"])
async def test_a_message_that_never_ends_costs_the_connection(
    alice: Party, victim: Process, first: str, figure: Figure
) -> None:
    """Mallory is enrolled. Each part is small, and libzmq would collect them for ever: 301 MiB were seen."""
    await _still_serves(alice, victim)
    assert await victim.line() == "still there?"
    before = _memory(victim.pid)
    sender = await asyncio.to_thread(Client, secret("mallory"), victim.endpoint, victim.key)
    with sender:
        if first == "after another":
            sender.socket.sendall(sender.message(b"hello", more=False))
            assert await victim.line() == "hello"
        poured = await asyncio.to_thread(sender.pour, b"x" * 60_000, 5000)  # 300 MB, if nobody stopped her
    assert poured < 5000
    grown = _memory(victim.pid) - before
    figure("a message without an end made it grow by", grown, "MiB")
    await _still_serves(alice, victim)
    assert alice.sink.losses == []


async def test_large_messages_in_a_row_are_no_attack(alice: Party) -> None:
    """As large as may be, and read late: the loop of the one who reads is held up again and again."""
    frames = 60
    async with zmq_party("bob", listen=None) as bob:
        connection = bob.transport.dial(alice.endpoint, alice.key)
        alice.sink.on_frame = lambda connection, frame: time.sleep(0.02)  # on purpose
        sent = 0
        while sent < frames:
            sent += connection.offer(b"%03d" % sent + b"x" * 1_000_000)
            await asyncio.sleep(0)
        got = await alice.sink.until_frames(frames)
        assert [frame[:3] for frame in got] == [b"%03d" % number for number in range(frames)]
        assert alice.sink.losses == bob.sink.losses == []


async def test_a_large_first_message_over_a_slow_line_is_no_attack(no_handshake_ends: None) -> None:
    """300 kB in about three seconds, and strangers who do the same are cut meanwhile."""
    async with (
        zmq_party("alice") as alice,
        between(alice.endpoint, pace=100_000) as line,
        zmq_party("bob", listen=None) as bob,
    ):
        connection = bob.transport.dial(line.endpoint, alice.key)
        assert connection.offer(b"x" * 300_000)
        await alice.sink.until(lambda: bob.key in alice.sink.asked)
        with _tcp(alice.endpoint) as stranger:
            stranger.sendall(greeting(server=False) + b"\x06" + (1_000_000).to_bytes(8, "big") + b"x" * 100_000)
            await asyncio.wait_for(_until_closed(stranger), PATIENCE)
        assert await alice.sink.until_frames(1) == [b"x" * 300_000]
        assert bob.sink.losses == []


async def _pour(stranger: sockets.socket, size: int) -> None:
    """So many bytes, or as many as are taken before the connection is cut."""
    stranger.setblocking(False)
    with suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(stranger, b"x" * size)


def _memory(pid: int) -> float:
    """MiB that the process has had at most since it started."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1024


async def test_a_peer_that_reads_nothing_makes_us_hold_so_many_bytes(mallory: Attacker, alice: Party) -> None:
    """What libzmq counts is frames: 4096 of them are 256 MB here, and ten times as much with the largest there are."""
    dealer = mallory.socket("mallory", alice.key)
    for option in (zmq.RCVHWM, zmq.SNDHWM):
        dealer.setsockopt(option, 1)
    dealer.setsockopt(zmq.RCVBUF, 4096)
    dealer.connect(alice.endpoint)
    dealer.send(b"hello")
    await alice.sink.until_frames(1)
    connection, _ = alice.sink.frames[0]
    accepted = quiet = 0
    while quiet < 50:
        if connection.offer(b"x" * 65_536):
            accepted, quiet = accepted + 1, 0
        else:
            quiet += 1
            await asyncio.sleep(0.002)
    assert WAITING // 65_536 - 1 <= accepted <= 2 * WAITING // 65_536


def test_a_frame_is_as_long_on_the_wire_as_is_counted() -> None:
    """Counted too long, whoever reads all would be taken for somebody who does not, in time."""
    assert [unsent.on_the_wire(size) for size in (0, 222, 223, 65_536)] == [35, 257, 265, 65_578]


def test_a_connection_that_ends_while_it_is_looked_at_ends_no_look() -> None:
    """libzmq's own thread closes descriptors whenever it likes: one that raised would leave nobody looking at all."""
    one, other = sockets.socketpair()
    closed = one.detach()
    os.close(closed)
    assert unfinished.taken(closed) is None and unsent.acknowledged(closed) is None
    other.close()


def test_heartbeats_alone_never_look_like_a_message_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is connected for a month and says nothing: some 60 bytes a second."""
    clock = _Clock()
    cut: list[int] = []
    watched = unfinished.Unfinished(
        clock,  # type: ignore[arg-type]
        connections=lambda: [(7, 1, 1)],
        quiet=lambda: True,
        admitted=list,
        cut=cut.append,
        max_frame=65_536,
    )
    taken = 1000.0
    monkeypatch.setattr(unfinished, "taken", lambda fd: int(taken))
    watched.watch()
    for _ in range(1000):
        clock.now += 2592.0
        taken += 2592.0 * 60
        clock.run()
    assert cut == []
    taken += 3 * 65_536 + unfinished.SLACK
    clock.now += 0.5
    clock.run()
    assert cut == [7]


def test_who_connects_during_a_look_starts_no_second_row_of_looks() -> None:
    """A second timer would be known to nobody: it would look for ever, and at a socket that was closed."""
    clock = _Clock()
    watched: unfinished.Unfinished

    def connections() -> list[tuple[int, int, int | None]]:
        watched.watch()  # the monitor is read for this, and says that somebody connected
        return [(7, 1, 1)]

    watched = unfinished.Unfinished(
        clock,
        connections=connections,
        quiet=lambda: False,
        admitted=list,
        cut=lambda fd: None,
        max_frame=65_536,  # type: ignore[arg-type]
    )
    watched.watch()
    for looks in range(2, 12):
        clock.now += 5.0
        clock.run()
        assert clock.calls == looks


class _Clock:
    """As much of a loop as a timer needs."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.call: Any = None
        self.calls = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Any) -> Any:
        self.call = call
        self.calls += 1
        return self

    def run(self) -> None:
        self.call()


async def test_half_open_connections_do_not_keep_others_out(no_handshake_ends: None) -> None:
    """Slowloris: many connections that never finish their handshake. The oldest silent ones have to make room."""
    async with zmq_party("alice", connections=16) as alice, zmq_party("bob") as bob, zmq_party("carol") as carol:
        ours, theirs = await bob.meet(alice)
        with ExitStack() as open_until_the_end:
            loris = [open_until_the_end.enter_context(_tcp(alice.endpoint)) for _ in range(64)]
            await asyncio.wait_for(asyncio.gather(*(_until_closed(one) for one in loris[:49])), PATIENCE)
            assert all(_is_open(one) for one in loris[49:])  # 15 beside bob
            await carol.meet(alice)
            await asyncio.wait_for(_until_closed(loris[49]), PATIENCE)
            assert all(_is_open(one) for one in loris[50:])  # 14 beside bob and carol
            assert ours.offer(b"who speaks is not cut") and theirs.offer(b"nor does it lose its replies")
            await bob.sink.until_frames(2)
        assert alice.sink.losses == []


async def test_a_handshake_that_takes_too_long_is_cut(alice: Party) -> None:
    with _tcp(alice.endpoint) as stranger:
        await asyncio.wait_for(_until_closed(stranger), PATIENCE)


def _tcp(endpoint: str) -> sockets.socket:
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    return sockets.create_connection((host, int(port)))


async def _until_closed(stranger: sockets.socket) -> None:
    stranger.setblocking(False)
    try:
        while await asyncio.get_running_loop().sock_recv(stranger, 1000):
            pass  # the listener's own greeting
    except ConnectionResetError:
        pass


def _is_open(stranger: sockets.socket) -> bool:
    """Whether the listener has not cut it; what it said is read away."""
    stranger.setblocking(False)
    try:
        while stranger.recv(1000):
            pass
    except BlockingIOError:
        return True
    except ConnectionResetError:
        pass
    return False


# ZAP, asked directly.


async def test_a_listener_without_a_zap_handler_lets_nobody_in(mallory: Attacker) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    listener = options.listening(context, Settings(bytes(secret("alice")), public("alice")))
    port = listener.bind_to_random_port("tcp://127.0.0.1")
    stranger = mallory.socket("mallory", public("alice"))
    assert await mallory.attempt(stranger, f"tcp://127.0.0.1:{port}", b"let me in") == "failed"
    assert listener.poll(0) == 0
    listener.close()
    context.term()


class _Asking:
    """A ZAP handler and a socket that asks it as libzmq does."""

    def __init__(self, sink: RecordingSink) -> None:
        loop = asyncio.get_running_loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.now = 1000.0
        self.gate = gates.Gate(Accepted(), has_room=lambda: True, clock=lambda: self.now)
        self.handler = zap.ZapHandler(loop, self._context, sink, self.gate)
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(zap.ENDPOINT)

    def ask(self, *request: bytes) -> None:
        self._socket.send_multipart(request)

    def ask_for(self, key: bytes, number: int = 1) -> None:
        self.ask(b"", b"1.0", b"%d" % number, b"agentbus", b"127.0.0.1", b"", b"CURVE", key)

    async def answer(self) -> list[bytes]:
        assert await asyncio.to_thread(self._socket.poll, PATIENCE * 1000)
        return self._socket.recv_multipart()

    async def aclose(self) -> None:
        await self.handler.aclose()
        self._socket.close(0)
        self._context.term()


@pytest.fixture
async def asking() -> AsyncIterator[_Asking]:
    asked = _Asking(RecordingSink())
    yield asked
    await asked.aclose()


async def test_each_admission_has_an_identity_of_its_own(asking: _Asking) -> None:
    asking.ask_for(b"k" * 32, 1)
    first = await asking.answer()
    asking.ask_for(b"k" * 32, 2)
    second = await asking.answer()
    assert [first[:4], second[:4]] == [[b"", b"1.0", b"1", b"200"], [b"", b"1.0", b"2", b"200"]]
    assert first[5] != second[5]
    assert {gates.read_user_id(answer[5].decode())[0] for answer in (first, second)} == {b"k" * 32}


@pytest.mark.parametrize(
    "request_",
    [
        [b"", b"1.0", b"1", b"", b"127.0.0.1", b"", b"NULL"],
        [b"", b"1.0", b"1", b"", b"127.0.0.1", b"", b"PLAIN", b"user", b"password"],
        [b"", b"1.0", b"1", b"", b"127.0.0.1", b"", b"GSSAPI", b"principal"],
        [b"", b"1.0", b"1", b"", b"127.0.0.1", b"", b"CURVE"],
        [b"", b"1.0", b"1", b"", b"127.0.0.1", b"", b"CURVE", b"short"],
        [b"", b"1.0", b"1", b"", b"127.0.0.1", b"", b"CURVE", b"k" * 33],
        [b"", b"1.0", b"1", b"", b"127.0.0.1", b"", b"CURVE", b"k" * 32, b"more"],
        [b"", b"2.0", b"1", b"", b"127.0.0.1", b"", b"CURVE", b"k" * 32],
        [b"?", b"1.0", b"1", b"", b"127.0.0.1", b"", b"CURVE", b"k" * 32],
        [b"", b"1.0", b"1"],
    ],
)
async def test_zap_refuses_whatever_is_not_curve(asking: _Asking, request_: list[bytes]) -> None:
    asking.ask(b"")  # too short even to answer
    asking.ask(*request_)
    answer = await asking.answer()
    assert answer[3] == b"400" and answer[5] == b""


async def test_undecided_admissions_are_bounded(asking: _Asking) -> None:
    sink = RecordingSink()
    gate = asyncio.Event()

    async def judge(key: bytes) -> bool:
        return await gate.wait()

    sink.judge = judge
    await asking.aclose()
    busy = _Asking(sink)
    try:
        for number in range(zap.PENDING):
            busy.ask_for(number.to_bytes(32, "big"), number)
        await sink.until(lambda: len(sink.asked) == zap.PENDING)
        busy.ask_for(b"k" * 32, 9999)
        assert (await busy.answer())[2:4] == [b"9999", b"400"]
        gate.set()
        assert {(await busy.answer())[3] for _ in range(zap.PENDING)} == {b"200"}
    finally:
        await busy.aclose()
        asking.__init__(RecordingSink())  # type: ignore[misc]  # for the fixture to close


async def test_one_key_cannot_connect_at_any_pace(asking: _Asking) -> None:
    """Each connection costs us a handshake, and a guess at the routing ids that libzmq counts up."""
    burst = int(gates.BURST)
    verdicts = []
    for number in range(burst + 1):
        asking.ask_for(b"k" * 32, number)
        verdicts.append((await asking.answer())[3])
    assert verdicts == [b"200"] * burst + [b"400"]
    asking.ask_for(b"j" * 32)
    assert (await asking.answer())[3] == b"200"
    asking.now += 1 / gates.PACE
    asking.ask_for(b"k" * 32)
    assert (await asking.answer())[3] == b"200"


# File descriptors are used again.


def test_a_descriptor_is_told_from_its_next_user() -> None:
    accepted = Accepted()
    accepted.opened(12)
    first = accepted.next_number()
    assert accepted.is_open(12, first)
    accepted.closed(12)
    assert not accepted.is_open(12, first)
    accepted.opened(12)
    second = accepted.next_number()
    assert accepted.is_open(12, second) and not accepted.is_open(12, first)


def test_a_descriptor_that_changes_hands_while_it_is_duplicated_is_not_cut() -> None:
    ours, theirs = sockets.socketpair()
    with ours, theirs:
        accepted = Accepted()
        accepted.opened(ours.fileno())

        def changes_hands() -> bool:
            accepted.closed(ours.fileno())
            accepted.opened(ours.fileno())
            return False

        accepted.shut(ours.fileno(), changes_hands)
        theirs.send(b"alive")
        assert ours.recv(10) == b"alive"
        accepted.shut(ours.fileno(), lambda: False)
        assert theirs.recv(10) == b""
        assert len(accepted) == 0
        accepted.shut(99_999, lambda: False)
