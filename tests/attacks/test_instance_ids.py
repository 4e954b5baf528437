"""An instance id is chosen by whoever starts an instance. Mallory chooses carol's, and gains nothing by it."""

from __future__ import annotations

import pytest

from agentbus.directory.rules import may_revoke
from agentbus.errors import DirectoryRefused
from agentbus.protocol.seen import ReplayWindow
from agentbus.testing.draw import NOON, World, draw_world
from agentbus.wire.header import Header, Kind
from agentbus.wire.limits import SECOND


@pytest.fixture
def world() -> World:
    made = draw_world("carol", "dave", "mallory")
    made.start(made["mallory"], salt="copied", instance_id=made["carol"].running.instance_id)
    return made


def test_revoking_ones_own_instance_does_not_revoke_the_one_with_the_same_id(world: World) -> None:
    mallory, carol = world["mallory"].running, world["carol"].running
    assert mallory.instance_id == carol.instance_id and mallory.handle != carol.handle
    text = f"{mallory.principal}#{mallory.instance_id.hex()}"
    handle, _ = may_revoke(world.trust, mallory.principal, "instance", text, "", now=NOON)
    world.revoke("instance", handle)
    assert world.trust.refuses(mallory, NOON) == "reject.revoked"
    assert world.trust.refuses(carol, NOON) is None


def test_nobody_revokes_the_other_one_by_the_id_they_share(world: World) -> None:
    mallory, carol = world["mallory"].running, world["carol"].running
    text = f"{carol.principal}#{mallory.instance_id.hex()}"
    with pytest.raises(DirectoryRefused) as caught:
        may_revoke(world.trust, mallory.principal, "instance", text, "", now=NOON)
    assert caught.value.code == "directory.not_owner"


def test_counting_ahead_under_a_shared_id_spoils_nobodys_replay_window(world: World) -> None:
    """Mallory uses up every number towards dave; carol's first message is new all the same."""
    window = ReplayWindow()
    for number in range(1, 50):
        window.add(header(world, "mallory", number), now=NOON, mono=0)
    assert window.seen(header(world, "mallory", 7))
    assert not window.seen(header(world, "carol", 1))


def header(world: World, sender: str, number: int) -> Header:
    me, you = world[sender], world["dave"]
    return Header(
        1, Kind.REQUEST, b"m" * 16, b"c" * 16, me.id, me.running.instance_id, me.instance.id, number, you.id,
        you.running.instance_id, number, None, None, None, None, "Ask", NOON, NOON + SECOND, "application/json", 2,
        b"b" * 32, b"d" * 32, None, 1, 0, None, None, 0, [],
    )  # fmt: skip
