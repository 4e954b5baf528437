"""A directory outlives its keys, its disk and its operator; and it is never two."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.note import Checkpoint, sign_note
from agentbus.delegation.statements import Instance, KeyEvent, directory_id, directory_origin
from agentbus.delegation.trust import Trust
from agentbus.directory import life, survival
from agentbus.directory.core import Directory
from agentbus.directory.data import DirectoryData
from agentbus.directory.store import SqliteStore
from agentbus.errors import AgentBusError
from agentbus.host import make_operator
from agentbus.identity import Identity
from agentbus.services.once import Once
from agentbus.testing.draw import NOON
from agentbus.wire.ids import name_id
from agentbus.wire.limits import SECOND
from tests.directory.registry import Registry

HOUR = 3600 * SECOND


@pytest.fixture
def data(tmp_path: Path) -> DirectoryData:
    made = DirectoryData(tmp_path / "data")
    with made:
        made.create("agents.example", now=NOON, max_age=30).store.close()
    return made


def load(data: DirectoryData, now: int = NOON) -> Directory:
    return data.load(now=now)


def refused(code: str, call: object, *arguments: object, **named: object) -> None:
    with pytest.raises(AgentBusError) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    assert caught.value.code == code, caught.value


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_directory_runs_without_its_root_key_and_what_needs_it_says_so(data: DirectoryData, tmp_path: Path) -> None:
    away = tmp_path / "stick" / "root.json"
    away.parent.mkdir()
    (data.keyring.folder / "root.json").rename(away)
    core = load(data)
    core.add_principal(name_id("planner", core.domain), now=NOON, owner="")
    refused("config.root_away", data.keyring.root)
    assert data.keyring.root(away).id == core.trust.root
    other = DirectoryData(tmp_path / "other")
    with other:
        other.create("agents.example", now=NOON, max_age=30)
    refused("config.root_other", data.keyring.root, other.keyring.folder / "root.json")
    away.chmod(0o644)
    refused("key.readable", data.keyring.root, away)


def test_online_keys_are_followed_by_others_under_the_same_root(data: DirectoryData) -> None:
    core = load(data)
    old, pin = core.keys, core.trust.root
    fresh = survival.rotate_online(data, core, data.keyring.root(), now=NOON + 1)
    core.time_leaf(b"by the new key", now=NOON + 2)
    entries = list(core.store.entries())
    trust = Trust.pinned(pin).advance(entries, now=NOON).accept_head(core.head(NOON + 3), sent_at=1)
    assert trust.consent_key(old.consent.id, NOON + HOUR) is not None  # standing grants run out
    assert trust.consent_key(old.consent.id, NOON + 1 + HOUR) is None
    assert trust.consent_key(fresh.consent.id, NOON + HOUR) is not None
    active = trust.active_key(directory_id(core.domain))
    assert active is not None and active.key.id == fresh.identity.id
    core.keys = old  # whoever has a copy of the old online keys signs nothing that counts
    refused("reject.statement_signer", core.time_leaf, b"by the old key", now=NOON + 3)
    refused("reject.statement_signature", trust.accept_head, core.head(NOON + 9), sent_at=2)
    core.close()
    assert load(data).keys.identity.id == fresh.identity.id


def test_nobody_stops_a_directory_with_a_head_key_that_the_root_did_not_introduce(data: DirectoryData) -> None:
    """An enrolled node may show what it likes: only the root key's signature says that a larger log was signed."""
    core = load(data)
    thief, online = SigningKey(b"t" * 32), core.keys.head

    def entry(by: SigningKey, key: SigningKey, kind: str = "online", role: str = "head", **changes: object) -> bytes:
        made = KeyEvent(core.trust.size + 5, NOON, core.domain, kind, role, [key.public.raw])
        return made._replace(**changes).signed_by(by).encode()  # type: ignore[arg-type]

    def head(by: SigningKey, size: int) -> bytes:
        origin, lines = directory_origin(core.domain), ("instant 1", "revocations 0")
        return sign_note(Checkpoint(origin, size, bytes(32), lines).text, origin, by)

    larger, root = core.trust.size + 9, data.keyring.root()
    for note, introduced in (
        (head(thief, larger), entry(thief, thief)),
        (head(thief, larger), entry(core.keys.identity, thief)),
        (head(thief, larger), entry(root, thief, role="consent")),
        (head(thief, larger), entry(root, thief, kind="online-retired")),
        (head(thief, larger), entry(root, thief, domain="other.example")),
        (head(thief, larger), entry(root, SigningKey(b"o" * 32))),
        (head(thief, larger), entry(root, thief, payload=[])),
        (head(thief, larger), entry(root, online)),
        (head(thief, larger), b"junk"),
        (b"junk", entry(root, thief)),
    ):
        refused("directory.restored", core.shown, larger, note, introduced)  # who shows it is refused, alone
        assert core.behind == 0
    refused("directory.restored", core.shown, larger, head(thief, larger), entry(root, thief))
    assert core.behind == larger  # the root said so


def test_online_keys_that_others_may_have_count_no_more_at_once(data: DirectoryData) -> None:
    """Else a thief signs roots for everybody's consent for an hour after he was found out."""
    core = load(data)
    old = core.keys
    survival.rotate_online(data, core, data.keyring.root(), now=NOON + 1, stolen=True)
    assert core.trust.consent_key(old.consent.id, core.trust.last_instant) is None
    assert core.trust.consent_key(core.keys.consent.id, core.trust.last_instant) is not None
    assert all(not core.trust.online[key.id].counts(NOON + 1) for key in (old.identity, old.head, old.token))


@pytest.mark.parametrize("where", ["before the entries", "after the entries"])
def test_killed_while_online_keys_change(data: DirectoryData, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    core, root = load(data), data.keyring.root()
    append = core.append

    def dies(entries: list[bytes], now: int) -> None:
        if where == "after the entries":
            append(entries, now)
        raise KeyboardInterrupt

    monkeypatch.setattr(core, "append", dies)
    with pytest.raises(KeyboardInterrupt):
        survival.rotate_online(data, core, root, now=NOON + 1)
    core.close()
    again = load(data)
    assert again.counts(again.keys)
    again.time_leaf(b"works", now=NOON + 2)
    survival.rotate_online(data, again, root, now=NOON + 3)
    again.time_leaf(b"works", now=NOON + 4)


def test_only_the_root_key_changes_online_keys(data: DirectoryData) -> None:
    core = load(data)
    size = core.trust.size
    refused("reject.statement_signer", survival.rotate_online, data, core, core.keys.identity, now=NOON + 1)
    assert core.trust.size == size and core.store.size() == size


def test_keys_that_the_log_does_not_know_start_nothing(data: DirectoryData, tmp_path: Path) -> None:
    """Keys of one backup and a log of another."""
    survival.back_up(data.folder, tmp_path / "old")
    core = load(data)
    survival.rotate_online(data, core, data.keyring.root(), now=NOON + 1)
    core.close()
    (data.keyring.folder / "online.json").write_bytes((tmp_path / "old" / "keys" / "online.json").read_bytes())
    refused("config.keys", load, data)
    (data.keyring.folder / "online.json").write_text("{}", "utf-8")
    refused("config.keys", load, data)


def test_a_directory_killed_while_it_is_made_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DirectoryData(tmp_path / "data")
    rename = Path.rename

    def dies(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", dies)
    with data, pytest.raises(KeyboardInterrupt):
        data.create("agents.example", now=NOON, max_age=30)
    monkeypatch.setattr(Path, "rename", rename)
    with data:
        data.create("agents.example", now=NOON, max_age=30).store.close()
        assert load(data).domain == "agents.example"


def test_a_directory_whose_keys_are_missing_founds_no_other_over_its_log(data: DirectoryData) -> None:
    """Not mounted, moved or lost: the log is the only one there is, and is never taken for what a start left."""
    before = list(load(data).store.entries())
    data.keyring.folder.rename(data.folder / "away")
    with data:
        refused("config.keys", data.create, "agents.example", now=NOON, max_age=30)
    assert list(SqliteStore(data.folder / "directory", read_only=True).entries()) == before
    (data.folder / "away").rename(data.keyring.folder)
    assert list(load(data).store.entries()) == before


async def test_a_backup_knows_which_tokens_were_used(data: DirectoryData, tmp_path: Path) -> None:
    once = Once(data.folder / "exchange")
    assert await once.use("https://idp.example", "jti", NOON + HOUR, now=NOON)
    survival.back_up(data.folder, tmp_path / "backup")
    again = Once(tmp_path / "backup" / "exchange")
    assert not await again.use("https://idp.example", "jti", NOON + HOUR, now=NOON)
    once.close()
    again.close()


def test_an_operator_killed_while_it_is_made_is_there_afterwards(
    data: DirectoryData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentbus.keyfile import KeyFile

    core, path = load(data), tmp_path / "home" / "operator.json"
    accept = KeyFile.accept

    def dies(self: KeyFile) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(KeyFile, "accept", dies)
    with pytest.raises(KeyboardInterrupt):
        make_operator(core, path, now=NOON)
    monkeypatch.setattr(KeyFile, "accept", accept)
    assert make_operator(core, path, now=NOON) is None
    active = core.trust.active_key(name_id("user/operator", core.domain))
    assert active is not None and Identity.from_file(path).key.id == active.key.id


# ── backups and mirrors ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_backup_is_a_directory_and_nothing_of_the_root_key_unless_asked(data: DirectoryData, tmp_path: Path) -> None:
    core = load(data)
    count = survival.back_up(data.folder, tmp_path / "b")
    assert count == core.trust.size
    assert sorted(p.name for p in (tmp_path / "b" / "keys").iterdir()) == ["online.json"]
    assert all(p.stat().st_mode & 0o077 == 0 for p in (tmp_path / "b").rglob("*.*"))
    survival.back_up(data.folder, tmp_path / "c", root=True)
    assert (tmp_path / "c" / "keys" / "root.json").exists()
    assert survival.digest(load(DirectoryData(tmp_path / "b")).trust) == survival.digest(core.trust)
    refused("config.backup", survival.back_up, data.folder, tmp_path / "b")
    (data.folder / "keys" / "root.json").rename(tmp_path / "root.json")
    refused("config.root_away", lambda: survival.back_up(data.folder, tmp_path / "d", root=True))
    assert not (tmp_path / "d").exists()
    refused("config.no_directory", survival.back_up, tmp_path / "home", tmp_path / "d")


def mirror_of(core: Directory, folder: Path) -> Path:
    store = SqliteStore(folder)
    store.append(0, list(core.store.entries()))
    store.close()
    return folder


def test_a_restored_backup_is_continued_from_a_mirror(data: DirectoryData, tmp_path: Path) -> None:
    survival.back_up(data.folder, tmp_path / "backup")
    core = load(data)
    for number in range(5):
        core.add_principal(name_id(f"agent-{number}", core.domain), now=NOON + number, owner="")
    mirror = mirror_of(core, tmp_path / "mirror")
    restored = load(DirectoryData(tmp_path / "backup"))
    assert survival.recover(restored, [mirror], now=NOON + 9) == 5
    assert survival.digest(restored.trust) == survival.digest(core.trust)
    assert survival.recover(restored, [mirror], now=NOON + 9) == 0
    restored.time_leaf(b"goes on", now=NOON + 10)


def test_a_log_that_went_its_own_way_is_not_continued(data: DirectoryData, tmp_path: Path) -> None:
    """The restored directory signed something before anybody showed it what it had signed before."""
    survival.back_up(data.folder, tmp_path / "backup")
    core = load(data)
    core.time_leaf(b"before the disk broke", now=NOON + 1)
    core.time_leaf(b"before the disk broke", now=NOON + 2)
    mirror = mirror_of(core, tmp_path / "mirror")
    restored = load(DirectoryData(tmp_path / "backup"))
    restored.time_leaf(b"after it was restored", now=NOON + 1)
    size = restored.trust.size
    refused("log.directory_fork", survival.recover, restored, [mirror], now=NOON + 9)
    assert restored.store.size() == restored.trust.size == size


def test_a_forged_mirror_adds_nothing(data: DirectoryData, tmp_path: Path) -> None:
    core = load(data)
    entries = list(core.store.entries())
    evil = Registry()
    for number, more in enumerate(([b"junk"], list(evil.core.store.entries())[-1:], [entries[-1]])):
        store = SqliteStore(tmp_path / str(number))
        store.append(0, [*entries, *more])
        store.close()
        refused("log.directory_mirror", survival.recover, core, [tmp_path / str(number)], now=NOON)
    refused("log.directory_mirror", survival.recover, core, [mirror_of(evil.core, tmp_path / "evil")], now=NOON)
    refused("log.directory_mirror", survival.recover, core, [tmp_path / "empty"], now=NOON)
    assert core.store.size() == len(entries)


def test_a_mirror_that_holds_presence_as_entries_adds_nothing(data: DirectoryData, tmp_path: Path) -> None:
    """An instance statement is signed and good, and no entry: it would shift every entry behind it."""
    core = load(data)
    key = SigningKey(b"i" * 32)
    statement = Instance(
        directory_id(core.domain), 1, b"i" * 16, key.public.raw, core.keys.identity.id, "node",
        SigningKey(b"l" * 32).public.raw, core.keys.curve.public, [], ["envelope"], NOON, NOON + HOUR,
    ).signed_by(core.keys.identity, key).encode()  # fmt: skip
    entries = list(core.store.entries())
    for number, lie in enumerate(([*entries, statement], [*entries[:-1], statement, entries[-1]])):
        store = SqliteStore(tmp_path / str(number))
        store.append(0, lie)
        store.close()
        refused("log.directory_mirror", survival.recover, core, [tmp_path / str(number)], now=NOON)
    refused("reject.statement_order", core.append, [statement], NOON)
    assert core.store.size() == core.trust.size == len(entries)


def test_the_digest_tells_states_apart() -> None:
    one, two = Registry(), Registry()
    assert survival.digest(one.core.trust) == survival.digest(two.core.trust)
    a, b = one.enrol("planner"), two.enrol("planner")
    assert survival.digest(one.core.trust) == survival.digest(two.core.trust)
    life.taint(two.core, b.id, now=two.now)
    life.retire(one.core, a.id, now=one.now)
    assert survival.digest(one.core.trust) != survival.digest(two.core.trust)


# ── the log is the directory ─────────────────────────────────────────────────────────────────────────────────────────


def rebuild(events: int, seed: int) -> tuple[float, int]:
    """A directory to which ``events`` things happen: seconds of one core to fold its log again, and its principals."""
    chance = random.Random(seed)
    registry = Registry()
    core, people = registry.core, [registry.enrol(f"agent-{n}") for n in range(50)]
    while core.trust.size < events:
        registry.tick(chance.random())
        what, at = chance.randrange(10), chance.randrange(len(people))
        try:
            if what < 3:
                people.append(registry.enrol(f"agent-{len(people)}", ceiling=["docs:read"]))
            elif what < 6:
                people[at] = registry.rotate(people[at])
            elif what == 6:
                core.amend(people[at].id, now=registry.now, purpose=str(at))
            elif what == 7:
                life.set_state(core, people[at].id, chance.choice(("active", "suspended")), now=registry.now)
            elif what == 8:
                core.time_leaf(b"t", now=registry.now)
            else:
                handle = f"{people[at].id}#{core.trust.size:032x}".encode()
                core.revoke("instance", handle, revoker=people[at].id, reason="", now=registry.now)
        except AgentBusError:
            continue
    entries = list(core.store.entries())
    began = time.process_time()
    again = Trust.pinned(registry.root.id).advance(entries, now=registry.now)
    seconds = time.process_time() - began
    assert again.frontier.root() == core.trust.frontier.root() and again.size == len(entries) >= events
    assert survival.digest(again) == survival.digest(core.trust)
    assert (again.principals, again.keys, again.revoked) == (
        core.trust.principals, core.trust.keys, core.trust.revoked
    )  # fmt: skip
    return seconds, len(again.principals)


def test_a_log_rebuilds_to_the_identical_state() -> None:
    rebuild(1500, seed=1)


@pytest.mark.campaign
def test_a_log_of_a_hundred_thousand_events_rebuilds_to_the_identical_state() -> None:
    seconds, principals = rebuild(100_000, seed=2)
    print(f"100,000 events, {principals} principals: rebuilt in {seconds:.1f} s of one core")
