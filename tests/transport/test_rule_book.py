"""The rows of docs/reference/transport.md that no other test shows: routing, edges, contexts, threads, encryption."""

from __future__ import annotations

import inspect
import re
import time
from pathlib import Path

import pytest
import zmq
from zmq_peers import attacker, public, secret, zmq_party

import agentbus.transport.zeromq as package
from agentbus.transport.zeromq import ZmqTransport, zap
from agentbus.transport.zeromq import sockets as options
from agentbus.transport.zeromq.sockets import Settings

SOURCES = {path.name: path.read_text("utf-8") for path in Path(package.__file__).parent.glob("*.py")}


async def test_a_frame_that_cannot_be_routed_is_refused_and_not_swallowed() -> None:
    """A ROUTER drops it without a word unless ROUTER_MANDATORY is set. Here the loop never runs between Bob's end and
    our sends, so no monitor has told: only EHOSTUNREACH can."""
    async with zmq_party("alice") as alice:
        with attacker() as peers:
            bob = peers.socket("bob", alice.key)
            assert await peers.attempt(bob, alice.endpoint) == "in"
            bob.send(b"hello")
            await alice.sink.until_frames(1)
            of_bob, _ = alice.sink.frames[0]
            peers.hang_up(bob)
            refused = 0
            for _ in range(1000):  # libzmq's I/O thread needs a moment to see it
                refused += not of_bob.offer(b"x")
                if refused > 1:
                    break
                time.sleep(0.01)  # on purpose: the loop must not run
            assert refused > 1 and alice.sink.losses == []
            assert await alice.sink.until_lost(of_bob) == "the peer is gone"
            assert len(alice.sink.losses) == 1


@pytest.mark.parametrize("side", ["listener", "dialler"])
async def test_an_edge_that_a_send_swallows_is_not_lost(side: str) -> None:
    """A socket's descriptor announces a frame once. It arrives while the loop is busy, and then we send: libzmq notes
    the arrival within the send, the descriptor falls silent, and nothing else would ever make us read."""
    async with zmq_party("alice") as alice:
        with attacker() as peers:
            if side == "listener":
                peer = peers.socket("bob", alice.key)
                assert await peers.attempt(peer, alice.endpoint) == "in"
                peer.send(b"hello")
                await alice.sink.until_frames(1)
                connection, route = alice.sink.frames[0][0], []
            else:
                peer, port = peers.listener("bob")
                connection = alice.transport.dial(f"tcp://127.0.0.1:{port}", public("bob"))
                connection.offer(b"hello")
                route = (await peers.receive(peer))[:1]
            for number in range(10):
                seen = len(alice.sink.frames)
                peer.send_multipart([*route, b"%d" % number])
                time.sleep(0.02)  # on purpose: the loop is busy while it arrives
                assert connection.offer(b"swallow")
                await alice.sink.until_frames(seen + 1)
            assert alice.sink.payloads[-10:] == [b"%d" % number for number in range(10)]


async def test_one_bus_has_one_context_and_one_zap_handler() -> None:
    """A context has room for one ZAP handler; a second context would be a second set of connections without one."""
    async with zmq_party("alice") as alice, zmq_party("bob") as bob, zmq_party("carol") as carol:
        for other in (bob, carol):
            await alice.meet(other)
        transport = alice.transport
        assert isinstance(transport, ZmqTransport)
        listener = transport._listener
        assert listener is not None
        used = {dialled._socket.context for dialled in transport._open}
        used |= {listener._socket.context, listener._zap._socket.context, listener._monitor._pair.context}
        assert used == {transport._context}
        assert transport._context is not None
        second = transport._context.socket(zmq.ROUTER)
        with pytest.raises(zmq.ZMQError) as caught:
            second.bind(zap.ENDPOINT)
        assert caught.value.errno == zmq.EADDRINUSE
        second.close()


def test_sockets_are_touched_by_their_loop_alone() -> None:
    """libzmq's sockets are not thread-safe. The one thread here ends the context, after the last socket was closed."""
    threads = re.compile(r"threading\.\w+\(|to_thread|run_in_executor|call_soon_threadsafe|ThreadPool")
    uses = {name: threads.findall(text) for name, text in SOURCES.items() if threads.search(text)}
    assert uses == {"transport.py": ["call_soon_threadsafe", "threading.Thread("]}


def test_one_place_reads_each_socket() -> None:
    """Two readers would each get some of the messages."""
    reads = {name: len(re.findall(r"\b_?\w*\.recv\w*\(", text)) for name, text in SOURCES.items()}
    assert {name for name, number in reads.items() if number} == {"dialled.py", "listener.py", "monitor.py", "zap.py"}
    makers = [name for name, text in SOURCES.items() if "add_reader(" in text]
    assert makers == ["reader.py"]


def test_there_is_no_way_without_encryption() -> None:
    """CURVE costs next to nothing, so nobody is offered the choice."""
    names = {name for function in (ZmqTransport, Settings) for name in inspect.signature(function).parameters}
    assert not any(re.search("secure|plain|curve|encrypt|verify", name) for name in names)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    settings = Settings(bytes(secret("bob")), public("bob"))
    made = [options.listening(context, settings), options.dialling(context, settings, public("alice"))]
    mechanisms = {socket.getsockopt(zmq.MECHANISM) for socket in made}
    for socket in made:
        socket.close()
    context.term()
    assert mechanisms == {zmq.CURVE}
    others = re.findall(r"context\.socket\(zmq\.(\w+)\)", "".join(SOURCES.values()))
    assert sorted(others) == ["DEALER", "PAIR", "ROUTER", "ROUTER"]  # the two above, the monitor, the ZAP handler
