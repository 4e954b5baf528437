"""Attacks on the directory by those who may connect: what they ask for, leave unread, publish and never say."""

from __future__ import annotations

import os
from typing import Any

import pytest

from agentbus.delegation.statements import Instance, decode_signed
from agentbus.directory import life
from agentbus.services import peers
from agentbus.transport.common import MAX_FRAME
from agentbus.wire.sync import decode_sync, encode_sync
from tests.services.synchronising import Speaker, Town, settle

HOST = ".".join(letter * 60 for letter in "abc")
FAT = [f"tcp://{HOST}.{'d' * 50}:{1000 + i}" for i in range(8)]


@pytest.fixture
async def town() -> Town:
    made = Town()
    await made.open()
    return made


async def speaker(town: Town, name: str) -> Speaker:
    return await Speaker(town, town.enrol(name)).open()


def owners(statements: list[bytes]) -> list[str]:
    return [Instance.decode(decode_signed(one).body).principal.short for one in statements]


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_more_instances_than_fit_into_a_frame_are_answered_in_part_and_crowd_out_nobody(town: Town) -> None:
    mallory, anna = await speaker(town, "mallory"), await speaker(town, "anna")
    for _ in range(450):
        mallory.send("publish", mallory.statement(endpoints=FAT))
    assert (await anna.call("publish", anna.statement()))[0] == "standing"
    await settle()
    operation, (found,) = await mallory.call("find", [], [mallory.identity.id, anna.identity.id, mallory.identity.id])
    assert operation == "found" and 10 < len(found) < 450
    assert "anna" in owners(found)
    assert max(mallory.sizes) < MAX_FRAME // 2


async def test_an_answer_that_cannot_leave_is_answered_with_a_refusal(town: Town, monkeypatch: Any) -> None:
    """Whatever makes an answer too large: it is nobody's trouble but that of who asked."""
    mallory = await speaker(town, "mallory")
    await mallory.call("publish", mallory.statement())
    town.transport.max_frame = 200
    assert (await mallory.call("find", [], [mallory.identity.id]))[0] == "refused"


async def test_many_instances_that_end_at_once_are_told_in_frames_that_every_node_takes(
    town: Town, monkeypatch: Any
) -> None:
    assert len(decode_sync(encode_sync("push", 0, b"", [], [], [bytes(32)] * peers.ITEMS))[2][3]) == peers.ITEMS
    monkeypatch.setattr(peers, "ITEMS", 100)
    mallory, anna = await speaker(town, "mallory"), await speaker(town, "anna")
    await anna.call("poll", 0, b"", b"")
    for _ in range(250):
        mallory.send("publish", mallory.statement())
    await settle()
    mallory.connection.drop()
    await settle()
    told = [ended for _, _, _, ended in anna.pushed() if ended]
    assert [len(ended) for ended in told] == [100, 100, 50]
    assert len({key for ended in told for key in ended}) == 250


# ── what is asked for again and again ────────────────────────────────────────────────────────────────────────────────


async def test_a_page_is_sent_once_to_who_asks_without_reading(town: Town) -> None:
    mallory = await speaker(town, "mallory")
    for n in range(60):
        town.enrol(f"agent-{n}")
    size = town.core.trust.size
    answers = [await mallory.call("poll", 0, b"", b"") for _ in range(50)]
    assert [len(parts[1]) for _, parts in answers] == [size] + [0] * 49
    town.clock.advance(3)
    assert len((await mallory.call("poll", 0, b"", b""))[1][1]) == size


async def test_long_answers_to_short_questions_are_bounded_for_a_key(town: Town, monkeypatch: Any) -> None:
    monkeypatch.setattr(peers, "FOUND_BURST", 20_000)
    mallory, anna = await speaker(town, "mallory"), await speaker(town, "anna")
    again = await Speaker(town, mallory.identity).open()
    for _ in range(3):
        await mallory.call("publish", mallory.statement(endpoints=FAT))
    answers = [(await one.call("find", [], [mallory.identity.id]))[0] for one in [mallory, again] * 10]
    assert answers[0] == "found" and answers[-2:] == ["refused", "refused"]
    assert (await anna.call("find", [], [mallory.identity.id]))[0] == "found"
    await town.pass_time(1)
    assert (await again.call("find", [], [mallory.identity.id]))[0] == "found"


async def test_whoever_goes_on_from_the_page_it_got_is_sent_the_next(town: Town, monkeypatch: Any) -> None:
    monkeypatch.setattr(peers, "PAGE", 4000)
    anna = await speaker(town, "anna")
    for n in range(20):
        town.enrol(f"agent-{n}")
    entries: list[bytes] = []
    while len(entries) < town.core.trust.size:
        _, (_, page, _) = await anna.call("poll", len(entries), b"", b"")
        assert page
        entries += page
    assert entries == list(town.core.store.entries())


async def test_whoever_asked_for_somebody_once_is_not_told_of_all_that_it_publishes_for_ever(
    town: Town, monkeypatch: Any
) -> None:
    monkeypatch.setattr(peers, "TOLD", 10)
    mallory, anna = await speaker(town, "mallory"), await speaker(town, "anna")
    await anna.call("poll", 0, b"", b"")
    await anna.call("find", [], [mallory.identity.id])

    async def publish(count: int) -> int:
        before = len([parts for parts in anna.pushed() if parts[2]])
        for _ in range(count):
            mallory.send("publish", mallory.statement())
        await settle()
        return len([parts for parts in anna.pushed() if parts[2]]) - before

    assert await publish(1) == 1
    assert await publish(50) == 9
    await town.pass_time(61)
    assert await publish(1) == 1
    await town.pass_time(3600)
    assert await publish(1) == 0


# ── presence ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_instance_of_a_connection_that_never_polled_ends_with_it(town: Town) -> None:
    mallory = await speaker(town, "mallory")
    await mallory.call("find", [], [mallory.identity.id])
    await mallory.call("publish", mallory.statement())
    assert town.core.presence.running(mallory.identity.id, town.clock.now()) == 1
    mallory.connection.drop()
    await settle()
    assert town.core.presence.running(mallory.identity.id, town.clock.now()) == 0
    assert len(town.server._peers) == 0 and not town.server._peers._homes


async def test_whoever_is_revoked_is_cut_off_whether_it_polled_or_not(town: Town) -> None:
    mallory, anna = await speaker(town, "mallory"), await speaker(town, "anna")
    for one in (mallory, anna):
        await one.call("find", [], [])
    life.set_state(town.core, mallory.identity.id, "suspended", now=town.clock.now())
    await settle()
    assert mallory.lost_reason is not None and anna.lost_reason is None


async def test_nobody_hides_anothers_death_by_its_instance_id(town: Town) -> None:
    mallory, victim = await speaker(town, "mallory"), await speaker(town, "victim")
    instance_id = os.urandom(16)
    await victim.call("publish", victim.statement(instance_id=instance_id))
    assert (await mallory.call("publish", mallory.statement(instance_id=instance_id)))[0] == "standing"
    mallory.send("leave", [instance_id])
    await settle()
    assert town.core.presence.running(victim.identity.id, town.clock.now()) == 1, "hers alone has left"
    await mallory.call("publish", mallory.statement(instance_id=instance_id))
    victim.connection.drop()
    await settle()
    assert town.core.presence.running(victim.identity.id, town.clock.now()) == 0
    assert town.core.presence.running(mallory.identity.id, town.clock.now()) == 1


async def test_an_instance_that_came_back_over_another_connection_outlives_the_first(town: Town) -> None:
    anna = await speaker(town, "anna")
    again = await Speaker(town, anna.identity).open()
    instance_id = os.urandom(16)
    for one in (anna, again):
        await one.call("publish", one.statement(instance_id=instance_id))
    anna.connection.drop()
    await settle()
    assert town.core.presence.running(anna.identity.id, town.clock.now()) == 2
    again.connection.drop()
    await settle()
    assert town.core.presence.running(anna.identity.id, town.clock.now()) == 0


async def test_where_instances_lived_is_forgotten_when_they_are_over(town: Town) -> None:
    mallory = await speaker(town, "mallory")
    for _ in range(50):
        await mallory.call("publish", mallory.statement(life=1))
    assert len(town.server._peers._homes) == 50
    await town.pass_time(2)
    assert not town.server._peers._homes and not town.server.departed


async def test_who_takes_nothing_any_more_is_cut_off(town: Town) -> None:
    """Its queue is full: it would be told nothing, and kept everything."""
    mallory = await speaker(town, "mallory")
    await mallory.call("poll", 0, b"", b"")
    town.transport.queue = 0
    await town.pass_time(1)
    assert mallory.lost_reason is not None and len(town.server._peers) == 0
