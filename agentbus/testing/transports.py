"""What any transport has to do, as tests to inherit.

::

    class TestMine(TransportConformance):
        def make(self, *, listen, queue, max_frame):
            key = ...
            return MyTransport(...), key

Nothing here asserts a time: each wait ends when something happens, and fails after :data:`PATIENCE`.
Needs pytest and pytest-asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from agentbus.errors import Malformed, Unavailable
from agentbus.transport.base import Connection, Transport
from agentbus.transport.common import WAITING

PATIENCE: Final = 20.0  # seconds; only a failing test waits that long
QUEUE: Final = 16  # frames, unless a test says otherwise
MAX_FRAME: Final = 64 * 1024  # bytes


class RecordingSink:
    """Remembers what it is told, and notices being called while it is being called."""

    def __init__(self) -> None:
        self.frames: list[tuple[Connection, bytes]] = []
        self.losses: list[tuple[Connection, str]] = []
        self.asked: list[bytes] = []
        self.reentered = False
        self.on_frame: Callable[[Connection, bytes], object] = lambda connection, frame: None
        self.on_lost: Callable[[Connection], object] = lambda connection: None
        self.judge: Callable[[bytes], Awaitable[Any]] = _admit_all
        self._changed = asyncio.Event()
        self._inside = False

    def received(self, connection: Connection, frame: bytes) -> None:
        """See the port."""
        self.frames.append((connection, frame))
        self._note(lambda: self.on_frame(connection, frame))

    def lost(self, connection: Connection, reason: str) -> None:
        """See the port."""
        self.losses.append((connection, reason))
        self._note(lambda: self.on_lost(connection))

    async def admit(self, key: bytes) -> bool:
        """See the port."""
        self.asked.append(key)
        self._changed.set()
        return await self.judge(key)  # type: ignore[no-any-return]  # tests answer nonsense, too

    @property
    def payloads(self) -> list[bytes]:
        """The frames alone."""
        return [frame for _, frame in self.frames]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition`` holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_frames(self, number: int) -> list[bytes]:
        """The payloads, once there are ``number``."""
        await self.until(lambda: len(self.frames) >= number)
        return self.payloads

    async def until_lost(self, connection: Connection) -> str:
        """Why ``connection`` was lost, once it is."""
        await self.until(lambda: any(lost is connection for lost, _ in self.losses))
        return next(reason for lost, reason in self.losses if lost is connection)

    def _note(self, act: Callable[[], object]) -> None:
        self.reentered |= self._inside
        self._inside = True
        try:
            act()
        finally:
            self._inside = False
            self._changed.set()


class Party:
    """A transport, the key under which others know it, and what its sink was told."""

    def __init__(self, transport: Transport, key: bytes) -> None:
        self.transport = transport
        self.key = key
        self.sink = RecordingSink()

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return self.transport.endpoints[0]

    def dial(self, other: Party) -> Connection:
        """A connection to ``other``."""
        return self.transport.dial(other.endpoint, other.key)

    async def meet(self, other: Party) -> tuple[Connection, Connection]:
        """Our connection to ``other`` and its connection to us, after one frame has gone each way."""
        ours, here, there = self.dial(other), len(self.sink.frames), len(other.sink.frames)
        assert ours.offer(b"hello")
        await other.sink.until_frames(there + 1)
        theirs, frame = other.sink.frames[there]
        assert frame == b"hello"
        assert theirs.offer(b"welcome")
        await self.sink.until_frames(here + 1)
        assert self.sink.frames[here] == (ours, b"welcome")
        return ours, theirs


class TransportConformance:
    """Inherit, and say how to :meth:`make` a transport."""

    pytestmark = pytest.mark.asyncio

    def make(self, *, listen: bool, queue: int, max_frame: int) -> tuple[Transport, bytes]:
        """A transport that is not open yet, and its CURVE key. All those of one test must be able to meet."""
        raise NotImplementedError

    @asynccontextmanager
    async def party(
        self, *, listen: bool = True, queue: int = QUEUE, max_frame: int = MAX_FRAME
    ) -> AsyncIterator[Party]:
        """An open transport for one test; nobody may re-enter its sink in the meantime."""
        transport, key = self.make(listen=listen, queue=queue, max_frame=max_frame)
        party = Party(transport, key)
        await transport.open(party.sink)
        try:
            yield party
        finally:
            await transport.aclose()
        assert not party.sink.reentered

    # frames

    async def test_it_is_a_transport(self) -> None:
        async with self.party() as alice, self.party(listen=False) as bob:
            assert isinstance(alice.transport, Transport)
            assert len(alice.transport.endpoints) == 1
            assert bob.transport.endpoints == ()

    async def test_frames_arrive_byte_for_byte(self) -> None:
        async with self.party() as alice, self.party() as bob:
            frames = [b"", b"\x00", b"x", bytes(range(256)), b"\xff" * 4097, b"m" * MAX_FRAME]
            connection = alice.dial(bob)
            assert all(connection.offer(frame) for frame in frames)
            assert await bob.sink.until_frames(len(frames)) == frames

    async def test_one_connection_keeps_the_order_and_joins_nothing(self) -> None:
        async with self.party(queue=1000) as alice, self.party(queue=1000) as bob:
            frames = [str(number).encode() for number in range(1000)]
            connection = alice.dial(bob)
            assert all(connection.offer(frame) for frame in frames)
            assert await bob.sink.until_frames(len(frames)) == frames

    async def test_replies_go_back_on_the_connection_that_asked(self) -> None:
        async with self.party() as alice, self.party() as bob, self.party(listen=False) as carol:
            bob.sink.on_frame = lambda connection, frame: connection.offer(b"re: " + frame)
            from_alice, from_carol = alice.dial(bob), carol.dial(bob)
            assert from_alice.offer(b"a") and from_carol.offer(b"c")
            await alice.sink.until_frames(1)
            await carol.sink.until_frames(1)
            assert alice.sink.frames == [(from_alice, b"re: a")]
            assert carol.sink.frames == [(from_carol, b"re: c")]

    async def test_both_sides_know_the_others_key(self) -> None:
        async with self.party() as alice, self.party() as bob:
            ours, theirs = await alice.meet(bob)
            assert (ours.peer, ours.dialled) == (bob.key, True)
            assert (theirs.peer, theirs.dialled) == (alice.key, False)
            assert ours.id != theirs.id
            assert bob.sink.asked == [alice.key]

    async def test_an_oversized_frame_is_refused_before_it_costs_the_connection(self) -> None:
        async with self.party() as alice, self.party() as bob:
            ours, theirs = await alice.meet(bob)
            for connection in (ours, theirs):
                with pytest.raises(Malformed):
                    connection.offer(b"x" * (MAX_FRAME + 1))
            assert ours.offer(b"after") and theirs.offer(b"after")
            assert await bob.sink.until_frames(2) == [b"hello", b"after"]
            assert await alice.sink.until_frames(2) == [b"welcome", b"after"]

    async def test_a_peer_that_sends_more_than_we_take_is_cut_off(self) -> None:
        async with self.party() as alice, self.party(max_frame=100) as bob:
            ours, theirs = await alice.meet(bob)
            ours.offer(b"x" * 5000)
            await alice.sink.until_lost(ours)
            await bob.sink.until_lost(theirs)
            assert bob.sink.payloads == [b"hello"]

    # admission

    @pytest.mark.parametrize("answer", ["false", "none", "one", "raises", "hangs"])
    async def test_nobody_enters_unless_admit_says_true(self, answer: str) -> None:
        async with self.party() as alice, self.party() as bob:
            bob.sink.judge = _JUDGES[answer]
            connection = alice.dial(bob)
            connection.offer(b"let me in")
            await alice.sink.until_lost(connection)
            assert bob.sink.asked == [alice.key]
            assert bob.sink.frames == [] and bob.sink.losses == []

    async def test_one_slow_admission_does_not_hold_up_another(self) -> None:
        async with self.party() as alice, self.party() as bob, self.party() as carol:

            async def judge(key: bytes) -> bool:
                return key == carol.key or await _hang(key)

            bob.sink.judge = judge
            slow = alice.dial(bob)
            await bob.sink.until(lambda: bob.sink.asked)
            await carol.meet(bob)
            slow.drop()

    # queues

    async def test_a_full_queue_says_so_and_never_waits(self) -> None:
        async with self.party() as alice, self.party() as bob:
            gate = asyncio.Event()

            async def judge(key: bytes) -> bool:
                return await gate.wait()

            bob.sink.judge = judge
            connection = alice.dial(bob)
            accepted = [number for number in range(20 * QUEUE) if connection.offer(b"%d" % number)]
            assert QUEUE <= len(accepted) <= 2 * QUEUE
            gate.set()
            assert await bob.sink.until_frames(len(accepted)) == [b"%d" % number for number in accepted]
            assert connection.offer(b"room again")
            await bob.sink.until_frames(len(accepted) + 1)

    async def test_what_waits_for_one_peer_is_bounded_in_bytes(self) -> None:
        """However few frames they are; and room is made by what leaves."""
        async with self.party(queue=4096) as alice, self.party(queue=4096) as bob:
            gate = asyncio.Event()

            async def judge(key: bytes) -> bool:
                return await gate.wait()

            bob.sink.judge = judge
            connection = alice.dial(bob)
            accepted = 0
            while accepted < 4096 and connection.offer(b"x" * MAX_FRAME):
                accepted += 1
            assert 0.9 * WAITING <= accepted * MAX_FRAME <= WAITING
            gate.set()
            await bob.sink.until_frames(accepted)
            await bob.sink.until(lambda: connection.offer(b"x" * MAX_FRAME))
            await bob.sink.until_frames(accepted + 1)

    async def test_whoever_reads_is_sent_any_number_of_bytes(self) -> None:
        async with self.party(queue=4096) as alice, self.party(queue=4096) as bob:
            for connection in await alice.meet(bob):
                sink = bob.sink if connection.dialled else alice.sink
                for n in range(2, 3 * WAITING // MAX_FRAME, 16):
                    assert all(connection.offer(b"x" * MAX_FRAME) for _ in range(16))
                    await sink.until_frames(n + 15)

    # ends

    async def test_a_peer_that_closes_is_lost_once_and_stays_lost(self) -> None:
        async with self.party() as alice, self.party() as carol:
            async with self.party() as bob:
                ours, _ = await alice.meet(bob)
            await alice.sink.until_lost(ours)
            assert not ours.offer(b"too late")
            ours.drop()
            await alice.meet(carol)
            assert [connection for connection, _ in alice.sink.losses] == [ours]

    async def test_a_dialler_that_closes_is_lost_once(self) -> None:
        async with self.party() as bob, self.party() as carol:
            async with self.party() as alice:
                _, theirs = await alice.meet(bob)
            await bob.sink.until_lost(theirs)
            assert not theirs.offer(b"too late")
            theirs.drop()
            await carol.meet(bob)
            assert [connection for connection, _ in bob.sink.losses] == [theirs]

    @pytest.mark.parametrize("dropper", ["dialler", "listener"])
    async def test_drop_ends_a_connection_on_both_sides(self, dropper: str) -> None:
        async with self.party() as alice, self.party() as bob:
            ours, theirs = await alice.meet(bob)
            dropped = ours if dropper == "dialler" else theirs
            dropped.drop()
            assert not dropped.offer(b"after")
            dropped.drop()
            await alice.sink.until_lost(ours)
            await bob.sink.until_lost(theirs)
            assert not ours.offer(b"after") and not theirs.offer(b"after")
            assert len(alice.sink.losses) == len(bob.sink.losses) == 1
            assert bob.sink.payloads == [b"hello"] and alice.sink.payloads == [b"welcome"]

    async def test_nothing_is_received_after_drop(self) -> None:
        async with self.party() as alice, self.party() as bob:
            bob.sink.on_frame = lambda connection, frame: connection.drop()
            connection = alice.dial(bob)
            for number in range(QUEUE):
                connection.offer(b"%d" % number)
            await alice.sink.until_lost(connection)
            await bob.sink.until(lambda: bob.sink.losses)
            assert bob.sink.payloads == [b"0"]

    async def test_dialling_a_live_peer_again_finds_the_same_connection(self) -> None:
        async with self.party() as alice, self.party() as bob, self.party() as carol:
            first = alice.dial(bob)
            assert alice.dial(bob) is first
            assert alice.dial(carol) is not first
            await alice.meet(bob)
            assert alice.dial(bob) is first
            first.drop()
            second = alice.dial(bob)
            assert second is not first and second.id != first.id
            assert (await alice.meet(bob))[0] is second
            assert alice.dial(bob) is second

    async def test_dialling_nowhere_is_lost(self) -> None:
        async with self.party() as alice:
            async with self.party() as bob:
                endpoint = bob.endpoint
            for nowhere in (endpoint, "", "nonsense", "inproc://zeromq.zap.01", "ipc:///etc/passwd", "tcp://*:*"):
                connection = alice.transport.dial(nowhere, bob.key)
                connection.offer(b"anybody?")
                assert all(lost is not connection for lost, _ in alice.sink.losses)  # never from within dial
                await alice.sink.until_lost(connection)

    async def test_a_listener_with_another_key_gets_nothing(self) -> None:
        """Mallory sits at Bob's address."""
        async with self.party() as alice, self.party() as bob, self.party() as mallory:
            connection = alice.transport.dial(mallory.endpoint, bob.key)
            connection.offer(b"for bob only")
            await alice.sink.until_lost(connection)
            assert mallory.sink.frames == [] and mallory.sink.losses == []

    async def test_what_was_accepted_leaves_before_the_transport_closes(self) -> None:
        async with self.party() as bob:
            async with self.party() as alice:
                connection, _ = await alice.meet(bob)
                assert all(connection.offer(b"last %d" % number) for number in range(QUEUE // 2))
            await bob.sink.until(lambda: bob.sink.losses)
            assert bob.sink.payloads == [b"hello", *(b"last %d" % number for number in range(QUEUE // 2))]

    async def test_closing_twice_is_closing_once_and_silence_follows(self) -> None:
        async with self.party() as alice, self.party() as bob:
            ours, _ = await alice.meet(bob)
            ours.drop()  # its ``lost`` is still to be told
            await asyncio.gather(alice.transport.aclose(), alice.transport.aclose())
            await alice.transport.aclose()
            await bob.sink.until(lambda: bob.sink.losses)
            assert alice.sink.payloads == [b"welcome"]
            assert not ours.offer(b"after")
            with pytest.raises(Unavailable):
                alice.dial(bob)

    async def test_a_transport_that_never_opened_can_be_closed(self) -> None:
        transport, _ = self.make(listen=True, queue=QUEUE, max_frame=MAX_FRAME)
        await transport.aclose()
        await transport.aclose()

    # the sink

    async def test_a_sink_is_never_called_within_its_own_calls(self) -> None:
        """Each side does all it may from within ``received``; ``party`` checks that nothing came of it right then."""
        async with self.party() as alice, self.party() as bob:

            def play(connection: Connection, frame: bytes) -> None:
                number = int(frame)
                if number == 99:
                    connection.drop()
                else:
                    connection.offer(b"%d" % (number + 1))

            alice.sink.on_frame = bob.sink.on_frame = play
            ours = alice.dial(bob)
            ours.offer(b"0")
            again: list[Connection] = []

            def once_more(connection: Connection) -> None:
                if connection is ours:
                    again.append(_dial_and_drop(alice, bob))

            alice.sink.on_lost = once_more
            await alice.sink.until_lost(ours)
            await alice.sink.until_lost(again[0])
            await bob.sink.until(lambda: bob.sink.losses)
            assert sorted(map(int, alice.sink.payloads + bob.sink.payloads)) == list(range(100))

    async def test_a_sink_that_raises_loses_one_frame_and_no_more(self) -> None:
        async with self.party() as alice, self.party() as bob:
            raised: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: raised.append(context))

            def stumble(connection: Connection, frame: bytes) -> None:
                if frame == b"1":
                    raise RuntimeError("a fault in the sink")

            bob.sink.on_frame = stumble
            connection = alice.dial(bob)
            assert all(connection.offer(b"%d" % number) for number in range(5))
            assert await bob.sink.until_frames(5) == [b"0", b"1", b"2", b"3", b"4"]
            assert len(raised) == 1


def _dial_and_drop(party: Party, other: Party) -> Connection:
    connection = party.dial(other)
    connection.drop()
    return connection


async def _admit_all(key: bytes) -> bool:
    return True


async def _hang(key: bytes) -> bool:
    await asyncio.Event().wait()
    return True


async def _raise(key: bytes) -> bool:
    raise RuntimeError("the directory is on fire")


def _answering(value: object) -> Callable[[bytes], Awaitable[Any]]:
    async def judge(key: bytes) -> Any:
        return value

    return judge


_JUDGES: Final[dict[str, Callable[[bytes], Awaitable[Any]]]] = {
    "false": _answering(False),
    "none": _answering(None),
    "one": _answering(1),
    "raises": _raise,
    "hangs": _hang,
}
