"""The rules that ZeroMQ taught us, one test or more for each: options, deaths, queues, closing."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import threading
from pathlib import Path

import pytest
import zmq
from zmq_peers import process, public, secret, zmq_party

import agentbus.transport.zeromq as package
from agentbus.errors import ConfigError, InvalidKey, ProgrammingError
from agentbus.testing.transports import RecordingSink
from agentbus.transport.zeromq import ZmqTransport
from agentbus.transport.zeromq import sockets as options
from agentbus.transport.zeromq.sockets import Settings


def test_only_sockets_that_can_refuse_are_used() -> None:
    """PUB lost 184,000 of 200,000; zmq.asyncio is slow, and its cancelled recv loses messages (pyzmq#1925)."""
    sources = "".join(path.read_text() for path in Path(package.__file__).parent.glob("*.py"))
    types = set(re.findall(r"zmq\.(PUB|SUB|XPUB|XSUB|PUSH|PULL|REQ|REP|PAIR|DEALER|ROUTER|STREAM)\b", sources))
    assert types == {"ROUTER", "DEALER", "PAIR"}
    assert "zmq.asyncio" not in sources
    assert not re.search(r"await [\w.]*\.(recv|send)", sources)


def test_every_option_of_the_rule_book_is_set() -> None:
    settings = Settings(bytes(secret("bob")), public("bob"), max_frame=5000, high_water=77)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    listener, dialler = options.listening(context, settings), options.dialling(context, settings, public("alice"))
    try:
        for socket in (listener, dialler):
            assert socket.getsockopt(zmq.HEARTBEAT_IVL) == 1000
            assert socket.getsockopt(zmq.HEARTBEAT_TIMEOUT) == 3000
            assert socket.getsockopt(zmq.HEARTBEAT_TTL) == 3000
            assert socket.getsockopt(zmq.HANDSHAKE_IVL) == 5000
            assert socket.getsockopt(zmq.SNDHWM) == socket.getsockopt(zmq.RCVHWM) == 77
            assert 5000 < int(socket.getsockopt(zmq.MAXMSGSIZE)) < 5100
            assert socket.getsockopt(zmq.LINGER) == 0
            assert socket.getsockopt(zmq.MECHANISM) == zmq.CURVE
        assert listener.getsockopt(zmq.CURVE_SERVER) == 1
        assert listener.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1
        assert dialler.getsockopt(zmq.RECONNECT_IVL) == -1
        assert dialler.getsockopt(zmq.IMMEDIATE) == 0
    finally:
        listener.close()
        dialler.close()
        context.term()


def test_no_two_connections_share_a_routing_id() -> None:
    settings = Settings(bytes(secret("bob")), public("bob"))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    diallers = [options.dialling(context, settings, public("alice")) for _ in range(20)]
    ids = {bytes(dialler.getsockopt(zmq.ROUTING_ID)) for dialler in diallers}  # type: ignore[arg-type]
    for dialler in diallers:
        dialler.close()
    context.term()
    assert len(ids) == 20
    assert all(len(routing_id) == 16 and routing_id[0] != 0 for routing_id in ids)


# Deaths.


async def test_a_killed_listener_is_lost_and_its_successor_gets_none_of_its_frames() -> None:
    """80 of 80 sends to a killed peer were accepted, and the process after it received them."""
    async with zmq_party("alice") as alice:
        async with process("listen", "bob") as bob:
            connection = alice.transport.dial(bob.endpoint, bob.key)
            assert connection.offer(b"hello")
            assert await alice.sink.until_frames(1) == [b"re: hello"]
            bob.send_signal(signal.SIGSTOP)  # nothing of what follows is read
            assert all(connection.offer(b"for the predecessor %d" % number) for number in range(500))
            bob.send_signal(signal.SIGKILL)
            await alice.sink.until_lost(connection)
            assert not connection.offer(b"into the void")
        async with process("listen", "bob", listen=bob.endpoint) as successor:
            again = alice.transport.dial(successor.endpoint, successor.key)
            assert again is not connection
            for number in range(3):
                assert again.offer(b"fresh %d" % number)
                assert await successor.line() == f"fresh {number}"
            await alice.sink.until_frames(4)
            assert alice.sink.payloads == [b"re: hello", b"re: fresh 0", b"re: fresh 1", b"re: fresh 2"]
            assert await successor.end() == 0


async def test_a_killed_dialler_is_lost() -> None:
    async with (
        zmq_party("alice") as alice,
        process("dial", "bob", endpoint=alice.endpoint, key=alice.key.hex()) as bob,
    ):
        await alice.sink.until_frames(1)
        connection, _ = alice.sink.frames[0]
        assert connection.peer == bob.key
        bob.send_signal(signal.SIGKILL)
        await alice.sink.until_lost(connection)
        assert not connection.offer(b"into the void")


async def test_stopped_peers_are_lost_by_their_silence() -> None:
    """No TCP connection breaks when a process is stopped or a cable is cut; only heartbeats tell."""
    async with (
        zmq_party("alice") as alice,
        process("listen", "bob") as bob,
        process("dial", "carol", endpoint=alice.endpoint, key=alice.key.hex()) as carol,
    ):
        to_bob = alice.transport.dial(bob.endpoint, bob.key)
        assert to_bob.offer(b"hello")
        await alice.sink.until_frames(2)
        from_carol = next(connection for connection, _ in alice.sink.frames if connection.peer == carol.key)
        bob.send_signal(signal.SIGSTOP)
        carol.send_signal(signal.SIGSTOP)
        await alice.sink.until_lost(to_bob)
        await alice.sink.until_lost(from_carol)
        assert len(alice.sink.losses) == 2


async def test_a_listener_that_never_speaks_is_lost() -> None:
    """It accepts the TCP connection, as the kernel does for a stopped process, and there is no handshake."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with zmq_party("alice", listen=None) as alice:
            connection = alice.transport.dial(f"tcp://127.0.0.1:{server.getsockname()[1]}", public("bob"))
            assert connection.offer(b"anybody?")
            await alice.sink.until_lost(connection)


async def test_frames_sent_right_before_the_end_are_delivered_before_lost() -> None:
    async with zmq_party("bob") as bob:
        order: list[object] = []
        bob.sink.on_frame = lambda connection, frame: order.append(int(frame))
        bob.sink.on_lost = lambda connection: order.append("lost")
        for _ in range(20):
            async with zmq_party("alice", listen=None) as alice:
                connection = alice.transport.dial(bob.endpoint, bob.key)
                assert connection.offer(b"0")
                await bob.sink.until(lambda: order)
                assert all(connection.offer(b"%d" % number) for number in range(1, 100))
            await bob.sink.until(lambda: order[-1] == "lost")
            assert order == [*range(100), "lost"]
            order.clear()


async def test_a_lost_peer_does_not_wait_for_the_others_to_fall_silent() -> None:
    """The listener's queue is never empty here, so "nothing left to read" never comes."""
    async with zmq_party("bob") as bob, zmq_party("flood", listen=None) as flood:
        async with zmq_party("alice", listen=None) as alice:
            alice.transport.dial(bob.endpoint, bob.key).offer(b"hello")
            await bob.sink.until_frames(1)
            theirs, _ = bob.sink.frames[0]
            bob.sink.on_frame = lambda connection, frame: bob.sink.frames.clear()
            torrent = flood.transport.dial(bob.endpoint, bob.key)

            async def pour() -> None:
                while True:
                    while torrent.offer(b"x"):
                        pass
                    await asyncio.sleep(0)

            pouring = asyncio.ensure_future(pour())
            await bob.sink.until(lambda: bob.sink.frames == [])
        await bob.sink.until_lost(theirs)
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)


# Queues.


@pytest.mark.parametrize("slow_side", ["listener", "dialler"])
async def test_a_slow_consumer_means_backpressure_and_bounded_memory(slow_side: str) -> None:
    async with zmq_party("alice", high_water=1000) as alice:
        if slow_side == "listener":
            async with process("listen", "bob", pause=0.1, high_water=1000) as bob:
                connection = alice.transport.dial(bob.endpoint, bob.key)
                await _fill(alice.sink, connection)
        else:
            async with process("dial", "bob", pause=0.1, endpoint=alice.endpoint, key=alice.key.hex()):
                await alice.sink.until_frames(1)
                await _fill(alice.sink, alice.sink.frames[0][0])


async def _fill(sink: RecordingSink, connection: object) -> None:
    """Offer until the queue stays full: 200 ticks in a row in which not one frame was taken."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    accepted = full = 0
    while full < 200:
        if connection.offer(b"x" * 4096):  # type: ignore[attr-defined]
            accepted, full = accepted + 1, 0
        else:
            full += 1
            await asyncio.sleep(0.001)  # the I/O thread needs a core now and then
        assert accepted < 30_000
    assert accepted >= 1000
    assert sink.losses == []
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 64  # MiB


# Configuration and closing.


def test_a_wrong_pair_of_keys_is_found_at_once() -> None:
    with pytest.raises(ConfigError):
        ZmqTransport(secret_key=bytes(secret("alice")), public_key=public("bob"))
    with pytest.raises(ConfigError):
        ZmqTransport(secret_key=b"short", public_key=public("bob"))


def test_the_secret_key_does_not_show() -> None:
    assert bytes(secret("bob")).hex()[:8] not in repr(Settings(bytes(secret("bob")), public("bob")))
    assert str(bytes(secret("bob")))[2:-1] not in repr(Settings(bytes(secret("bob")), public("bob")))


async def test_what_others_are_told_to_dial_is_configurable() -> None:
    async with zmq_party("alice", advertise="tcp://planner.example:*") as alice:
        assert re.fullmatch(r"tcp://planner\.example:\d+", alice.endpoint)
    async with zmq_party("alice", advertise="tcp://planner.example:7000") as alice:
        assert alice.endpoint == "tcp://planner.example:7000"


@pytest.mark.parametrize(
    ("listen", "advertise"),
    [
        ("tcp://0.0.0.0:*", None),
        ("tcp://*:*", None),
        ("tcp://127.0.0.1:*", "tcp://0.0.0.0:*"),
        ("tcp://127.0.0.1:*", "planner.example:7500"),
        ("tcp://127.0.0.1:*", "ipc:///tmp/x"),
        ("tcp://127.0.0.1:*", "tcp://planner.example"),
    ],
)
async def test_nobody_is_told_an_address_that_cannot_be_dialled(listen: str, advertise: str | None) -> None:
    transport = ZmqTransport(
        secret_key=bytes(secret("bob")), public_key=public("bob"), listen=listen, advertise=advertise
    )
    with pytest.raises(ConfigError) as caught:
        await transport.open(RecordingSink())
    assert caught.value.code == "config.advertise"


async def test_an_address_in_use_is_an_error_that_leaves_nothing_behind() -> None:
    async with zmq_party("alice") as alice:
        threads = threading.active_count()
        fds = _descriptors()
        second = ZmqTransport(secret_key=bytes(secret("bob")), public_key=public("bob"), listen=alice.endpoint)
        with pytest.raises(ConfigError):
            await second.open(RecordingSink())
        assert (_descriptors(), threading.active_count()) == (fds, threads)


async def test_misuse_is_told() -> None:
    transport = ZmqTransport(secret_key=bytes(secret("bob")), public_key=public("bob"))
    with pytest.raises(ProgrammingError):
        transport.dial("tcp://127.0.0.1:1", public("alice"))
    await transport.open(RecordingSink())
    with pytest.raises(ProgrammingError):
        await transport.open(RecordingSink())
    with pytest.raises(InvalidKey):
        transport.dial("tcp://127.0.0.1:1", b"no key")
    await transport.aclose()


async def test_closing_leaves_no_descriptor_thread_or_task_behind() -> None:
    await _come_and_go()
    before = (_descriptors(), threading.active_count(), len(asyncio.all_tasks()))
    for _ in range(10):
        await _come_and_go()
    assert (_descriptors(), threading.active_count(), len(asyncio.all_tasks())) == before


async def _come_and_go() -> None:
    """Every kind of connection: live, dropped by either side, refused, undecided, and to nowhere."""
    async with zmq_party("alice") as alice, zmq_party("bob") as bob, zmq_party("carol") as carol:
        await alice.meet(bob)
        ours, theirs = await bob.meet(carol)
        theirs.drop()
        await bob.sink.until_lost(ours)
        (await carol.meet(alice))[0].drop()

        async def undecided(key: bytes) -> bool:
            return await asyncio.Event().wait()

        carol.sink.judge = undecided
        alice.transport.dial(carol.endpoint, carol.key).offer(b"waiting")
        await carol.sink.until(lambda: alice.key in carol.sink.asked)
        alice.transport.dial("tcp://127.0.0.1:1", carol.key).offer(b"nobody")


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
