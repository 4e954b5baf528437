"""Who runs where, whose node has which name, and what the directory remembers of the grants it signed."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agentbus.crypto.keys import SigningKey
from agentbus.delegation.grant import decode_links
from agentbus.delegation.statements import Instance, directory_id
from agentbus.delegation.trust import Trust
from agentbus.directory import life, presence, survival
from agentbus.directory.core import Directory
from agentbus.directory.presence import NODE_NAMES
from agentbus.directory.receipt import read_receipt
from agentbus.directory.store import SqliteStore
from agentbus.errors import AgentBusError
from agentbus.host import register_here
from agentbus.identity import Identity
from agentbus.wire.limits import SECOND
from tests.directory.registry import Registry


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    for name in ("planner", "mallory"):
        made.enrol(name)
    return made


def statement(of: Identity, now: int, *, node: str, life: float = 3600, **changes: Any) -> bytes:
    """An instance statement of ``of``, with fresh keys where none are given."""
    key = SigningKey(os.urandom(32))
    instance = Instance(
        of.id, 1, os.urandom(16), key.public.raw, of.key.id, node, SigningKey(os.urandom(32)).public.raw,
        of.curve.public, [], ["envelope", "grant"], now, now + int(life * SECOND),
    )._replace(**changes)  # fmt: skip
    return instance.signed_by(of.key, key).encode()


def publish(core: Directory, of: Identity, now: int, *, node: str, **changes: Any) -> bytes:
    """Publish an instance, and return the digest of its standing grant."""
    chain = core.presence.publish(statement(of, now, node=node, **changes), now=now, link_id=os.urandom(16))
    return decode_links(chain)[-1].digest


def people(registry: Registry) -> tuple[Identity, Identity]:
    return registry.enrol("anna"), registry.enrol("bert")


def code(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(AgentBusError) as caught:
        call(*arguments, **named)
    return caught.value.code


# ── names of nodes ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_name_of_a_node_that_is_down_is_not_taken_by_another_principal(registry: Registry) -> None:
    """Its log's origin is made of that name: a squatter could sign checkpoints that look like the victim's."""
    core = registry.core
    anna, bert = people(registry)
    publish(core, anna, registry.now, node="anna")
    core.presence.leave(anna.curve.public)
    assert code(publish, core, bert, registry.tick(), node="anna") == "directory.node_taken"
    core.presence.forget_expired(registry.tick(7200))
    assert code(publish, core, bert, registry.now, node="anna") == "directory.node_taken"
    life.retire(core, anna.id, now=registry.tick())
    assert code(publish, core, bert, registry.now, node="anna") == "directory.node_taken"


def test_a_name_is_bound_after_a_restart_of_the_directory_too(registry: Registry) -> None:
    core = registry.core
    anna, bert = people(registry)
    publish(core, anna, registry.now, node="anna")
    again = Directory(core.store, core.keys, core.trust.root, now=registry.now)
    assert again.trust.nodes["anna"] == anna.id and again.trust.principals[anna.id].nodes == ("anna",)
    assert code(publish, again, bert, registry.tick(), node="anna") == "directory.node_taken"
    publish(again, anna, registry.tick(), node="anna", log_key=SigningKey(os.urandom(32)).public.raw)


def test_every_verifier_refuses_an_instance_in_a_node_of_another_principal(registry: Registry) -> None:
    """Not only the directory's own word: whoever folds the log refuses the statement."""
    core = registry.core
    anna, bert = people(registry)
    publish(core, anna, registry.now, node="anna")
    trust = Trust.pinned(core.trust.root).advance(core.store.entries(), now=registry.now)
    squatting = statement(bert, registry.now, node="anna")
    assert code(trust.advance, squatting, now=registry.now) == "reject.node_name"


def test_an_agents_own_name_is_kept_for_its_node_before_it_ever_ran(registry: Registry) -> None:
    core = registry.core
    anna, bert = people(registry)
    for name in ("anna", "anna-2", "bert-anna", "user-anna", "bert-01", "bert-1000", "bert-", "directory"):
        assert code(publish, core, bert, registry.now, node=name) == "directory.node_name", name
    for name in ("bert", "bert-2", "bert-999"):
        publish(core, bert, registry.tick(), node=name)
    publish(core, anna, registry.tick(), node="anna")


def test_a_user_and_an_agent_of_that_name_are_two_nodes(registry: Registry) -> None:
    core = registry.core
    agent, user = registry.enrol("user-carl"), registry.enrol("user/carl")
    publish(core, agent, registry.now, node="user-carl")
    assert code(publish, core, user, registry.now, node="user-carl") == "directory.node_taken"
    publish(core, user, registry.now, node="user-carl-2")


def test_two_processes_of_one_principal_are_two_nodes(registry: Registry) -> None:
    core = registry.core
    anna, _ = people(registry)
    mine = SigningKey(os.urandom(32)).public.raw
    publish(core, anna, registry.now, node="anna", log_key=mine)
    publish(core, anna, registry.tick(), node="anna", log_key=mine)  # another instance in the same node
    assert code(publish, core, anna, registry.tick(), node="anna") == "directory.node_taken"  # another log
    publish(core, anna, registry.tick(), node="anna-2")
    core.presence.leave(anna.curve.public)
    publish(core, anna, registry.tick(), node="anna")  # it began anew, elsewhere


def test_one_principal_cannot_take_all_names_there_are(registry: Registry) -> None:
    core = registry.core
    anna, bert = people(registry)
    for number in range(1, NODE_NAMES + 1):
        publish(core, anna, registry.now, node=f"anna-{number}")
    size = core.trust.size
    assert code(publish, core, anna, registry.now, node="anna-99") == "directory.node_names"
    assert core.trust.size == size
    publish(core, bert, registry.now, node="bert")


@pytest.mark.parametrize("name", ["Anna", "a/b", "a b", "-a", "a\n", "a" * 81])
def test_a_name_that_makes_no_origin_is_refused_and_changes_nothing(registry: Registry, name: str) -> None:
    core = registry.core
    anna, _ = people(registry)
    size = core.trust.size
    assert code(publish, core, anna, registry.now, node=name) in ("directory.node_name", "malformed.statement")
    assert core.trust.size == size and core.presence.running(anna.id, registry.now) == 0


def test_a_node_entry_is_judged_by_the_fold(registry: Registry) -> None:
    core = registry.core
    anna, bert = people(registry)
    core.write(registry.now, [("node", anna.id, ["anna"])])
    core.write(registry.now, [("node", bert.id, ["bert"])])
    for who, payload in ((bert.id, ["anna"]), (anna.id, ["anna"]), (anna.id, []), (anna.id, [b"x"]), ("x", ["new"]),
                         (anna.id, ["bert-2"]), (anna.id, ["anna-x"])):  # fmt: skip
        size = core.trust.size
        assert code(core.write, registry.now, [("node", who, payload)]).split(".")[0] in ("reject", "malformed")
        assert core.trust.size == size


# ── how much ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_principal_cannot_publish_without_end(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody who looks for somebody walks through what is published."""
    monkeypatch.setattr(presence, "LIVE", 3)
    monkeypatch.setattr(presence, "KNOWN", 5)
    core = registry.core
    anna, bert = people(registry)
    mine = SigningKey(os.urandom(32)).public.raw
    for _ in range(3):
        publish(core, anna, registry.now, node="anna", log_key=mine)
    assert code(publish, core, anna, registry.now, node="anna", log_key=mine) == "directory.instances"
    assert core.presence.running(anna.id, registry.now) == 3
    for _ in range(2):  # those that ended count until their windows are over, for their links still verify
        core.presence.leave(anna.curve.public)
        publish(core, anna, registry.now, node="anna", log_key=mine)
    core.presence.leave(anna.curve.public)
    assert code(publish, core, anna, registry.now, node="anna", log_key=mine) == "directory.instances"
    publish(core, bert, registry.now, node="bert")
    core.presence.forget_expired(registry.tick(3601))
    publish(core, anna, registry.now, node="anna", log_key=mine)


def test_an_instance_that_runs_is_renewed_whatever_else_its_principal_published(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "KNOWN", 2)
    core = registry.core
    anna, _ = people(registry)
    key, log_key = SigningKey(os.urandom(32)), SigningKey(os.urandom(32)).public.raw

    def again(node: str) -> None:
        given = Instance(
            anna.id, 1, b"i" * 16, key.public.raw, anna.key.id, node, log_key, anna.curve.public, [], ["envelope"],
            registry.now, registry.now + 3600 * SECOND,
        ).signed_by(anna.key, key).encode()  # fmt: skip
        core.presence.publish(given, now=registry.now, link_id=os.urandom(16))

    again("anna")
    publish(core, anna, registry.now, node="anna-2")
    registry.tick()
    again("anna-3")
    assert core.presence.running(anna.id, registry.now) == 2
    core.presence.leave(anna.curve.public, [b"i" * 16])
    assert core.presence.running(anna.id, registry.now) == 1
    assert set(core.presence._at) == {"anna-2"}  # nothing is left behind of a node that it left


def test_a_node_ends_its_own_instances_only(registry: Registry) -> None:
    core = registry.core
    anna, bert = people(registry)
    same = os.urandom(16)
    for who in (anna, bert):
        publish(core, who, registry.now, node=who.id.name, instance_id=same)
    assert len(core.presence.leave(bert.curve.public, [same])) == 1
    assert core.presence.running(anna.id, registry.now) == 1 and core.presence.running(bert.id, registry.now) == 0


# ── a key in two uses ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_verifier_folds_the_same_whatever_it_knows_of_presence(registry: Registry) -> None:
    """An instance key that some knew and others had forgotten, made an identity key: who knew it refused the log."""
    core = registry.core
    anna, _ = people(registry)
    key = SigningKey(os.urandom(32))
    given = Instance(
        anna.id, 1, os.urandom(16), key.public.raw, anna.key.id, "anna", SigningKey(os.urandom(32)).public.raw,
        anna.curve.public, [], ["envelope", "grant"], registry.now, registry.now + 2 * SECOND,
    ).signed_by(anna.key, key).encode()  # fmt: skip
    core.presence.publish(given, now=registry.now, link_id=os.urandom(16))
    knows = Trust.pinned(registry.root.id).advance([*core.store.entries(), given], now=registry.now)
    assert key.id in knows.instances
    payload = list(registry.rotation(anna, key).proven_by(anna.key, key))
    assert code(life.rotate, core, payload, now=registry.now) == "directory.key_seen"
    core.presence.forget_expired(registry.tick(3))
    payload = list(registry.rotation(anna, key).proven_by(anna.key, key))
    size = core.trust.size
    life.rotate(core, payload, now=registry.now)
    core.revoke("principal", anna.id.encode(), revoker=directory_id("local.test"), reason="", now=registry.now)
    later = list(core.store.entries(size))
    for trust in (knows, Trust.pinned(registry.root.id).advance(core.store.entries(), now=registry.now)):
        there = trust if trust.size > size else trust.advance(later, now=registry.now)
        assert there.frontier.root() == core.trust.frontier.root() and key.id not in there.instances
        assert key.id not in there.present.get(anna.id, ())
        assert there.principals[anna.id].state == "revoked"


def test_an_instance_under_a_tainted_key_is_not_dated_to_before_the_taint(registry: Registry) -> None:
    core = registry.core
    anna, _ = people(registry)
    registry.tick(3600)
    early = registry.now - 60 * SECOND
    publish(core, anna, early, node="anna")
    life.taint(core, anna.id, now=registry.tick())
    back_dated = statement(anna, early, node="anna")
    assert code(core.presence.publish, back_dated, now=registry.tick(600), link_id=b"l" * 16) == "directory.must_rotate"


def test_tokens_do_not_outlive_the_keys_they_were_made_beside(registry: Registry) -> None:
    core, who = registry.core, registry.identity("dora").id
    core.add_principal(who, now=registry.now, owner="")
    for token in (b"1" * 32, b"2" * 32):
        core.issue_token(who, token, now=registry.now)
    dora = registry.identity("dora")
    register_here(core, dora, now=registry.now)
    assert not core.admits_token(b"1" * 32, registry.now)
    for end in (lambda: life.lose_key(core, who, now=registry.now),
                lambda: life.compromise(core, who, since=registry.now, now=registry.now)):  # fmt: skip
        core.issue_token(who, os.urandom(32), now=registry.now)
        left = core.store._db.execute("SELECT count(*) FROM tokens WHERE used = 0").fetchone()[0]  # type: ignore[attr-defined]
        end()
        after = core.store._db.execute("SELECT count(*) FROM tokens WHERE used = 0").fetchone()[0]  # type: ignore[attr-defined]
        assert (left, after) == (1, 0)
        register_here(core, registry.identity("dora"), now=registry.tick())


# ── the receipt of a retirement ──────────────────────────────────────────────────────────────────────────────────────


def test_a_receipt_names_what_was_signed_before_the_directory_was_started_again(tmp_path: Path) -> None:
    registry = Registry(SqliteStore(tmp_path))
    anna, bert = people(registry)
    first = publish(registry.core, anna, registry.now, node="anna")
    publish(registry.core, bert, registry.now, node="bert")
    short = publish(registry.core, anna, registry.now, node="anna-2", life=10)
    registry.core.close()
    core = Directory(SqliteStore(tmp_path), registry.core.keys, registry.root.id, now=registry.tick())
    second = publish(core, anna, registry.tick(), node="anna-3")
    receipt, _ = read_receipt(life.retire(core, anna.id, now=registry.tick(10)))
    assert receipt.grants == sorted([first, second]) and short not in receipt.grants
    assert len(receipt.instances) == 2 and all(i.startswith(anna.id.encode() + b"#") for i in receipt.instances)
    core.close()


def test_a_grant_is_written_down_before_it_is_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in between, there is a row too many and never one too few."""
    registry = Registry(SqliteStore(tmp_path))
    anna, _ = people(registry)

    grants = registry.core.presence.grants
    monkeypatch.setattr(grants, "_db", _Failing(grants._db))
    assert code(publish, registry.core, anna, registry.now, node="anna") == "log.directory_grants"
    assert registry.core.presence.running(anna.id, registry.now) == 0


class _Failing:
    """A database whose disk is full as soon as a grant is written."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def execute(self, text: str, *values: Any) -> Any:
        if text.startswith("INSERT OR REPLACE INTO grants"):
            raise sqlite3.OperationalError("database or disk is full")
        return self._real.execute(text, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_what_ended_by_itself_is_forgotten(tmp_path: Path) -> None:
    registry = Registry(SqliteStore(tmp_path))
    anna, _ = people(registry)
    publish(registry.core, anna, registry.now, node="anna")
    assert len(registry.core.presence.grants.of(anna.id, registry.now)) == 1
    registry.core.presence.forget_expired(registry.tick(3601))
    assert registry.core.presence.grants.of(anna.id, 0) == []
    registry.core.close()


# ── set back ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_backup_knows_whose_nodes_have_which_names(registry: Registry) -> None:
    anna, _ = people(registry)
    publish(registry.core, anna, registry.now, node="anna")
    entries = list(registry.core.store.entries())
    one = Trust.pinned(registry.root.id).advance(entries, now=registry.now)
    other = Trust.pinned(registry.root.id).advance(entries[:-1], now=registry.now)
    assert one.nodes and not other.nodes and survival.digest(one) != survival.digest(other)
