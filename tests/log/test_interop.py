"""Others agree: Go's golang.org/x/mod/sumdb reads our checkpoints, tiles, bundles and proofs."""

from __future__ import annotations

import os
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest
from loglab import ORIGIN

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.note import note_key_id
from agentbus.errors import AgentBusError, BadSignature, Malformed, Rejected
from agentbus.log import entry
from agentbus.log.checkpoint import read_checkpoint
from agentbus.log.tiles import TileReader
from agentbus.log.tlogproof import LogProof, decode_log_proof, encode_log_proof, verify_log_proof
from agentbus.logstore.files import FileLog
from agentbus.testing.draw import NOON
from tests.tools import need

KEY = SigningKey(b"l" * 32)
GOPATH = "/usr/share/gocode"


def prove(folder: Path, position: int, note: bytes) -> LogProof:
    reader = TileReader(read_checkpoint(note).size, lambda name: (folder / name).read_bytes())
    return LogProof(position, reader.inclusion(position), note)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A log of 1,300 entries with proofs from several of its sizes."""
    folder, proofs = tmp_path_factory.mktemp("interop"), []
    log = FileLog.open(folder, key=KEY, origin=ORIGIN, now=NOON)
    for size in (1, 256, 300, 1300):
        rows = [entry.closed(at, NOON, reason=f"r{at}" * (at % 50)) for at in range(log.size, size)]
        log.append(rows)
        note = log.checkpoint()
        for at in {0, size // 2, size - 1}:
            proofs.append(folder / f"{size}-{at}.tlog-proof")
            proofs[-1].write_bytes(encode_log_proof(prove(folder, at, note)))
    log.close()
    return folder, proofs


def verifier_key(key: SigningKey) -> str:
    """The key as Go's note package writes it."""
    return f"{ORIGIN}+{note_key_id(ORIGIN, key.public).hex()}+{b64encode(bytes([1]) + key.public.raw).decode()}"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("go", f"{GOPATH}/src/golang.org/x/mod/sumdb", packages=("golang-go", "golang-golang-x-mod-dev"))
    made, cache = tmp_path_factory.mktemp("go") / "interop", tmp_path_factory.mktemp("gocache")
    source = Path(__file__).parent / "go" / "interop.go"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": GOPATH, "GOCACHE": str(cache), "GOFLAGS": ""}
    subprocess.run(["go", "build", "-o", str(made), str(source)], env=environment, check=True, timeout=600)
    return made


def run(program: Path, folder: Path, key: SigningKey, proofs: list[Path]) -> subprocess.CompletedProcess[str]:
    command = [str(program), str(folder), verifier_key(key), *map(str, proofs)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_go_verifies_our_checkpoints_and_proofs_and_rebuilds_them_from_our_tiles(
    program: Path, written: tuple[Path, list[Path]]
) -> None:
    folder, proofs = written
    done = run(program, folder, KEY, proofs)
    assert (done.returncode, done.stdout) == (0, f"ok 1300 entries {len(proofs)} proofs\n"), done.stdout + done.stderr


def test_go_refuses_what_was_changed(program: Path, written: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """The other side of the test above: its program does notice."""
    import shutil

    folder, proofs = written
    assert "signed note" in run(program, folder, SigningKey(b"m" * 32), proofs).stdout
    for name in ("tile/0/003", "tile/entries/002", proofs[-1].name):
        other = tmp_path / name.replace("/", "-")
        shutil.copytree(folder, other)
        data = bytearray((other / name).read_bytes())
        data[40] ^= 1
        (other / name).write_bytes(bytes(data))
        done = run(program, other, KEY, [other / proof.name for proof in proofs])
        assert done.returncode == 1 and done.stdout.startswith("FAILED"), name


def test_a_proof_holds_for_its_entry_alone(written: tuple[Path, list[Path]]) -> None:
    _, proofs = written
    for path in proofs:
        size, at = map(int, path.name.split(".")[0].split("-"))
        proof = decode_log_proof(path.read_bytes())
        mine = entry.closed(at, NOON, reason=f"r{at}" * (at % 50))
        assert encode_log_proof(proof) == path.read_bytes() and proof.position == at
        assert verify_log_proof(proof, mine, ORIGIN, KEY.public).size == size
        with pytest.raises(Rejected) as caught:
            verify_log_proof(proof, mine + b"x", ORIGIN, KEY.public)
        assert caught.value.code == "reject.not_included"
        if size > 1:
            with pytest.raises(AgentBusError):
                verify_log_proof(proof._replace(position=(at + 1) % size), mine, ORIGIN, KEY.public)
        with pytest.raises(BadSignature):
            verify_log_proof(proof, mine, ORIGIN, SigningKey(b"m" * 32).public)


def test_a_proof_has_one_spelling(written: tuple[Path, list[Path]]) -> None:
    good = written[1][-1].read_bytes()
    lines = good.split(b"\n")
    for bad in (
        b"",
        good.replace(b"@v1", b"@v2"),
        good.replace(b"index ", b"index 0"),
        good.replace(b"index ", b"index -"),
        good.replace(b"index", b"Index"),
        b"\n".join([*lines[:2], lines[2][:-1], *lines[3:]]),
        b"\n".join([*lines[:2], b"AAAA", *lines[3:]]),
        good.partition(b"\n\n")[0],
        good.replace(b"\nindex", b"\nextra !\nindex"),
    ):
        with pytest.raises(Malformed) as caught:
            decode_log_proof(bad)
        assert caught.value.code == "malformed.tlog_proof"
    assert decode_log_proof(good.replace(b"\nindex", b"\nextra aGk=\nindex")).extra == b"hi"
