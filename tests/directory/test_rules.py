"""Who may revoke what: an id that was merely seen, or a chain made up around it, is not enough."""

from __future__ import annotations

import pytest

from agentbus.delegation.grant import encode_chain
from agentbus.directory.rules import may_revoke
from agentbus.errors import DirectoryRefused
from agentbus.testing.draw import NOON, alter, draw_chain, draw_world


@pytest.mark.parametrize("who", ["user/alice", "carol"])
def test_an_issuer_at_or_above_a_link_revokes_it(who: str) -> None:
    world = draw_world("carol", "dave")
    links = draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world)
    handle, proof = may_revoke(
        world.trust, world.id(who), "grant", links[1].digest.hex(), encode_chain(links).hex(), now=NOON
    )
    assert handle == links[1].digest and proof == encode_chain(links)


def test_a_holder_cannot_revoke_the_link_above_it_that_it_merely_saw() -> None:
    world = draw_world("carol", "dave")
    links = draw_chain("alice -[pay]-> carol -[pay]-> dave", world=world)
    with pytest.raises(DirectoryRefused) as caught:
        may_revoke(world.trust, world.id("dave"), "grant", links[0].digest.hex(), encode_chain(links).hex(), now=NOON)
    assert caught.value.code == "directory.not_issuer"


def test_a_chain_made_up_around_a_grant_revokes_nothing() -> None:
    world = draw_world("carol", "dave")
    links = draw_chain("alice -[pay]-> carol", world=world)
    forged = alter(links, 0, key=world["dave"].identity, purpose="mine")
    for chain, handle in ((forged, forged[0].digest), (forged, links[0].digest)):
        with pytest.raises(DirectoryRefused) as caught:
            may_revoke(world.trust, world.id("dave"), "grant", handle.hex(), encode_chain(chain).hex(), now=NOON)
        assert caught.value.code == "directory.bad_handle"
