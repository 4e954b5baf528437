"""Key files: who may read them, what locks them, and what is left of them when somebody is killed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.errors import ConfigError, KeyFileError
from agentbus.identity import Identity
from agentbus.keyfile import SALT, KeyFile, Keys, Lock
from agentbus.testing.draw import seed
from agentbus.wire.ids import PrincipalId

WHO = PrincipalId("spiffe://agents.example/agent/planner")


def made(path: Path, passphrase: str | None = None) -> Identity:
    lock = None if passphrase is None else Lock.of(passphrase, os.urandom(SALT))
    Identity(WHO, SigningKey(seed("a key")), CurveKey(seed("a curve"))).save(path, lock=lock)
    return Identity.from_file(path, passphrase=passphrase)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("AGENTBUS_KEY_PASSPHRASE_FILE", raising=False)
    return tmp_path / "keys" / "planner.json"


def refused(code: str, path: Path, passphrase: str | None = None) -> KeyFileError:
    with pytest.raises(KeyFileError) as caught:
        Identity.from_file(path, passphrase=passphrase)
    assert caught.value.code == code
    return caught.value


def test_a_key_file_is_its_owners_alone(path: Path) -> None:
    made(path)
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_a_key_file_that_others_can_read_is_refused_and_not_repaired(path: Path, mode: int) -> None:
    made(path)
    path.chmod(mode)
    refused("key.readable", path)
    assert path.stat().st_mode & 0o777 == mode


def test_a_key_file_is_never_overwritten(path: Path) -> None:
    before = made(path)
    with pytest.raises(KeyFileError) as caught:
        Identity(WHO, SigningKey(seed("other")), CurveKey(seed("other"))).save(path)
    assert caught.value.code == "key.exists" and Identity.from_file(path).key.id == before.key.id


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_key_file_cut_anywhere_is_said_to_be_damaged(path: Path, passphrase: str | None) -> None:
    made(path, passphrase)
    whole = path.read_bytes()
    for length in {0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:length])
        error = refused("key.file", path, passphrase)
        assert "Traceback" not in error.message and str(seed("a key")) not in error.message
    for junk in (b"{}", b"[]", b"null", b'{"v":2}', b'{"v":1}', b"\xff\xfe", b'{"v":1,"id":"planner"}'):
        path.write_bytes(junk)
        refused("key.file", path, passphrase)


# ── passphrases ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_passphrase_locks_a_key_file(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = made(path, "correct horse")
    assert opened.key.id == SigningKey(seed("a key")).id and opened.id == WHO
    refused("key.locked", path)
    for wrong in ("", "Correct horse", "correct horse "):
        refused("key.passphrase" if wrong else "key.locked", path, wrong)
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n", "utf-8")
    monkeypatch.setenv("AGENTBUS_KEY_PASSPHRASE_FILE", str(secret))
    assert Identity.from_file(path).key.id == opened.key.id
    for bad in ("", "\n"):
        secret.write_text(bad, "utf-8")
        with pytest.raises(ConfigError) as caught:
            Identity.from_file(path)
        assert caught.value.code == "config.passphrase"
    secret.unlink()
    with pytest.raises(ConfigError):
        Identity.from_file(path)


def test_a_locked_file_shows_nothing_of_the_keys(path: Path) -> None:
    made(path, "correct horse")
    text = path.read_text("utf-8")
    data = json.loads(text)
    assert set(data) == {"v", "id", "kdf", "ops", "memory", "salt", "box"} and data["kdf"] == "argon2id"
    for secret in (seed("a key"), seed("a curve")):
        assert secret.hex() not in text and str(secret) not in text


def test_the_box_of_somebody_else_under_ones_own_name_is_refused(path: Path) -> None:
    made(path, "correct horse")
    data = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(data | {"id": str(WHO).replace("planner", "operator")}), "utf-8")
    refused("key.file", path, "correct horse")


def test_weaker_parameters_of_a_lock_are_refused(path: Path) -> None:
    """Else whoever writes the file makes the next passphrase cheap to guess, or its reader run out of memory."""
    made(path, "correct horse")
    data = json.loads(path.read_text("utf-8"))
    for change in ({"ops": 1}, {"memory": 8192}, {"memory": 1 << 40}, {"kdf": "scrypt"}):
        path.write_text(json.dumps(data | change), "utf-8")
        refused("key.file", path, "correct horse")


def test_a_successor_is_locked_as_its_predecessor_was(path: Path) -> None:
    opened = made(path, "correct horse")
    after = opened.propose(SigningKey(seed("next")))
    assert after.file is not None
    after.file.accept()
    refused("key.locked", path)
    assert Identity.from_file(path, passphrase="correct horse").key.id == SigningKey(seed("next")).id


# ── successors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_old_key_stays_until_the_new_one_is_accepted(path: Path) -> None:
    before = made(path)
    after = before.propose(SigningKey(seed("next")))
    assert Identity.from_file(path).key.id == before.key.id
    assert after.file is not None
    after.file.accept()
    assert Identity.from_file(path).key.id == after.key.id != before.key.id
    after.file.accept()  # another process did it first: harmless
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_proposal_is_taken_up_and_never_replaced(path: Path) -> None:
    """Its key may have been accepted by a directory whose answer was lost."""
    before = made(path)
    first = before.propose(SigningKey(seed("next")))
    second = before.propose(SigningKey(seed("another")))
    assert first.key.id == second.key.id == SigningKey(seed("next")).id


def test_an_identity_without_a_file_has_successors_in_memory() -> None:
    identity = Identity(WHO, SigningKey(seed("a key")), CurveKey(seed("a curve")))
    assert identity.propose(SigningKey(seed("next"))).key.id == SigningKey(seed("next")).id


def test_what_an_enrolment_left_is_found_though_its_answer_was_not(path: Path) -> None:
    keys = Keys(WHO, SigningKey(seed("a key")), CurveKey(seed("a curve")))
    KeyFile(path).proposal.create(keys)
    assert Identity.from_file(path).key.id == keys.key.id
    refused("key.missing", path.with_name("nobody.json"))
