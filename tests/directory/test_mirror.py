"""A node's copy of the directory's log: what goes wrong with it stops no node, and what it knew is not thrown away."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentbus.delegation.trust import Trust
from agentbus.directory import survival
from agentbus.directory.mirror import Mirror
from agentbus.directory.store import FILE, SqliteStore
from agentbus.errors import LogError
from agentbus.runtime.trust_cache import TrustCache
from agentbus.testing import ManualClock
from agentbus.testing.draw import NOON, chain_bytes, draw_chain, draw_world
from agentbus.wire.limits import LIMITS, SECOND
from agentbus.wire.sync import encode_sync
from tests.directory.registry import Registry
from tests.directory.test_revocations import entry


@pytest.fixture
def entries() -> list[bytes]:
    registry = Registry()
    registry.enrol("planner")
    return list(registry.core.store.entries())


def root() -> bytes:
    return Registry().root.id


def test_whoever_reads_a_mirror_holds_nobody_up(tmp_path: Path, entries: list[bytes]) -> None:
    """An auditor who copies it, or reads it slowly, would else stop the node that writes it."""
    mirror = Mirror(tmp_path)
    mirror.append(entries[:3])
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as auditor:
        auditor.execute("BEGIN")
        assert len(auditor.execute("SELECT * FROM entries").fetchall()) == 3
        mirror.append(entries[3:])
        assert len(auditor.execute("SELECT * FROM entries").fetchall()) == 3
        assert survival.mirrored(tmp_path) == entries
    mirror.close()
    assert survival.mirrored(tmp_path) == entries


def test_what_could_not_be_written_is_written_with_the_next(
    tmp_path: Path, entries: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = Mirror(tmp_path)
    mirror.append(entries[:2])
    works = SqliteStore.append

    def full(*_: Any, **__: Any) -> bool:
        raise LogError("log.directory_unreadable", "the disk is full")

    with caplog.at_level(logging.ERROR):
        monkeypatch.setattr(SqliteStore, "append", full)
        mirror.append(entries[2:4])
        mirror.append(entries[4:5])
    assert [record.levelname for record in caplog.records] == ["ERROR"]  # once, and not for each
    assert mirror.entries() == entries[:2]
    monkeypatch.setattr(SqliteStore, "append", works)
    mirror.append(entries[5:])
    assert mirror.entries() == entries
    mirror.close()


def test_a_damaged_mirror_is_kept_for_whoever_looks_into_it(
    tmp_path: Path, entries: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        (tmp_path / FILE).write_bytes(b"no database at all" * number * 100)
        with caplog.at_level(logging.ERROR):
            mirror = Mirror(tmp_path)
        assert mirror.load(root(), now=NOON).size == 0
        mirror.append(entries)
        mirror.close()
        assert (tmp_path / f"{FILE}.unusable{number}").read_bytes().startswith(b"no database")
    assert len(caplog.records) == 2


def test_a_mirror_of_another_trust_domain_is_set_aside(tmp_path: Path, entries: list[bytes]) -> None:
    mirror = Mirror(tmp_path)
    mirror.append(entries)
    mirror.close()
    again = Mirror(tmp_path)
    assert again.load(bytes(32), now=NOON).size == 0 and again.entries() == []
    again.close()
    assert (tmp_path / f"{FILE}.unusable1").exists()


def test_a_mirror_that_cannot_be_read_is_not_forgotten(tmp_path: Path) -> None:
    """Else whoever can hold a file for a moment makes a node believe another past."""
    (tmp_path / FILE).mkdir()
    with pytest.raises(LogError) as caught:
        Mirror(tmp_path)
    assert caught.value.code == "log.directory_unreadable"
    (tmp_path / FILE).rmdir()
    mirror = Mirror(tmp_path)
    mirror.append(list(Registry().core.store.entries()))
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        mirror.close()
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LogError) as caught:
            Mirror(tmp_path)
        assert caught.value.code == "log.directory_unreadable"
        other.execute("ROLLBACK")
    again = Mirror(tmp_path)
    assert again.load(root(), now=NOON).size > 0
    again.close()


def test_evidence_that_cannot_be_written_hides_no_fork(
    tmp_path: Path, entries: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    mirror = Mirror(tmp_path)
    mirror.append(entries)
    (tmp_path / "fork-3.json").mkdir()
    with caplog.at_level(logging.ERROR):
        assert mirror.convict(3, b"note\n") is None
    assert "cannot be written" in caplog.text
    mirror.close()


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_clock_that_is_put_forward_and_back_brings_no_revoked_grant_back() -> None:
    """A revocation is forgotten once its grant has expired: by the directory's clock, not by this machine's alone."""
    world = draw_world("carol")
    links = draw_chain("alice -[pay]-> carol", world=world)
    world.add(entry(world, "grant", links[0].digest, "user/alice", chain_bytes(links)))
    clock = ManualClock()
    cache = TrustCache(None, endpoint="", key=b"", root=world.root.id, clock=clock)  # type: ignore[arg-type]
    cache.trust = world.trust
    assert clock.now() >= NOON
    clock.advance(30 * 24 * 3600)
    cache._forget()
    assert cache.trust.is_revoked("grant", links[0].digest)
    over = links[0].grant.expires + LIMITS.skew + SECOND
    world.now = over
    world.event("time", world.domain, [b"r" * 16])
    cache.trust = world.trust
    cache._forget()
    assert not cache.trust.is_revoked("grant", links[0].digest)
    assert Trust.pinned(world.root.id).advance(world.entries, now=over).is_revoked("grant", links[0].digest)


def test_a_node_keeps_nothing_of_ended_instances_that_it_never_knew() -> None:
    """Whoever publishes and leaves fills nobody's memory, and what is known is kept as long as its statement."""
    world = draw_world("carol")
    clock = ManualClock()
    cache = TrustCache(None, endpoint="", key=b"", root=world.root.id, clock=clock)  # type: ignore[arg-type]
    cache.trust = world.trust
    known = next(iter(world.trust.instances))
    cache.received(encode_sync("push", 0, b"", [], [], [n.to_bytes(32) for n in range(4096)]))
    cache.received(encode_sync("push", 0, b"", [], [], [known]))
    assert cache.departed == {known}
    world.now += 2 * 3600 * SECOND
    world.event("time", world.domain, [b"r" * 16])
    clock.advance(2 * 3600)
    cache.trust = world.trust
    cache._forget()
    assert not cache.departed
