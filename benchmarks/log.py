"""Figures of the log: ``python benchmarks/log.py [ENTRIES] [--json]``. Append, checkpoint, verify, prove; never a gate.

The entries are real: requests with bodies, signed in batches of 64 under a chain of two links, received and judged, so
that verifying does all that it does for any log.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.grant import chain_digest
from agentbus.log import entry
from agentbus.log.messageproof import prove_message
from agentbus.log.read import read_log
from agentbus.log.tiles import TileReader
from agentbus.logstore.files import FileLog
from agentbus.protocol.sealing import Batch, Draft, commit_body
from agentbus.testing.draw import NOON, chain_bytes, draw_chain, draw_world, seed
from agentbus.wire.header import Header, Kind, encode_header
from agentbus.wire.limits import SECOND

GROUP, BODY = 64, b'{"question": "' + b"x" * 430 + b'"}'
VERIFY = """
import json, resource, sys, time
from agentbus.audit import Evidence
began = time.perf_counter()
evidence = Evidence.open(sys.argv[1], directory=sys.argv[2], root=bytes.fromhex(sys.argv[3]))
report = evidence.verify(processes=int(sys.argv[4]))
took = time.perf_counter() - began
own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"s": took, "ok": report.ok, "checked": report["AUTHENTIC"].checked, "own_mib": own / 1024,
                  "worker_mib": workers / 1024}))
"""


class Writer:
    """Carol's log of messages that dave sent her for alice."""

    def __init__(self, folder: Path) -> None:
        self.world = world = draw_world("carol", "dave")
        self.statements: dict[str, bytes] = {}
        for name in ("carol", "dave"):
            made, signed = world.statement(world[name])
            world.trust = world.trust.advance(signed.encode(), now=world.now)
            world[name].statement, self.statements[name] = made, signed.encode()
        key = SigningKey(seed(world["carol"].id, "log"))
        self.log = FileLog.open(folder, key=key, origin="agentbus.local.test/carol/1", now=NOON)
        self.log.put_blob(self.statements["carol"])
        self.statement = self.log.put_blob(self.statements["dave"])
        self.chain = chain_bytes(draw_chain("alice -[quote]-> dave", world=world))
        self.chain_blob = self.log.put_blob(self.chain)
        self.seq = 0

    def drafts(self) -> list[Draft]:
        """A batch's worth of requests."""
        dave, carol, made = self.world["dave"], self.world["carol"], []
        for _ in range(GROUP):
            self.seq += 1
            salt = os.urandom(32)
            header = Header(
                1, Kind.REQUEST, os.urandom(16), salt[:16], dave.id, dave.running.instance_id, dave.instance.id,
                self.seq, carol.id, carol.running.instance_id, self.seq, None, None, None, None, "Quote", NOON,
                NOON + 60 * SECOND, "application/json", len(BODY), commit_body(salt, BODY), chain_digest(self.chain),
                None, self.world.trust.size, self.world.trust.revocation_seq, None, None, 0, [],
            )  # fmt: skip
            made.append(Draft.of(encode_header(header), self.chain, b"", salt, BODY))
        return made

    def group(self) -> list[bytes]:
        """Their entries; the boxes are put."""
        dave, drafts = self.world["dave"], self.drafts()
        batch = Batch.prepare(drafts, key_id=dave.instance.id, instance_id=dave.running.instance_id)
        proofs = batch.proofs(sign(dave.instance, Purpose.BATCH, batch.to_sign))
        return [
            entry.received(
                self.log.size + at, NOON, connection=None, header=draft.header, proof=proof,
                statement=self.statement, body=self.log.put_box(draft.salt + draft.body), chain=self.chain_blob,
                handover=None, code="ok", directory_size=self.world.trust.size,
                revocation_seq=self.world.trust.revocation_seq, policy_version="1",
            )
            for at, (draft, proof) in enumerate(zip(drafts, proofs, strict=True))
        ]  # fmt: skip


def write(writer: Writer, entries: int) -> dict[str, float]:
    """Fill the log; what the append alone took, and what a checkpoint of a second's worth takes."""
    appended, checkpoints = 0.0, []
    for at in range(0, entries, GROUP):
        rows = writer.group()
        began = time.perf_counter()
        writer.log.append(rows)
        appended += time.perf_counter() - began
        if at % (GROUP * 100) == 0:
            began = time.perf_counter()
            writer.log.checkpoint()
            checkpoints.append(time.perf_counter() - began)
    writer.log.close()
    return {"append_per_s": writer.log.size / appended, "checkpoint_ms": 1000 * median(checkpoints)}


def prove(folder: Path, writer: Writer) -> dict[str, float]:
    """An inclusion path from tiles, and a whole message proof from an opened log."""
    log, took = read_log(folder), []
    assert log.said is not None
    for at in range(0, log.said.size, max(1, log.said.size // 200)):
        began = time.perf_counter()
        TileReader(log.said.size, log.file).inclusion(at)
        took.append(time.perf_counter() - began)
    events, root = writer.world.entries, writer.world.root.id
    proofs = []
    for which in ("7", "8"):  # the first indexes the blobs
        began = time.perf_counter()
        prove_message(log, which, events=events, root=root)
        proofs.append(1000 * (time.perf_counter() - began))
    return {"inclusion_ms": 1000 * median(took), "first_message_proof_ms": proofs[0], "message_proof_ms": proofs[1]}


def main() -> None:
    """Write a log, verify it with one and with two processes, prove from it."""
    numbers = [int(text) for text in sys.argv[1:] if text.isdigit()]
    entries = numbers[0] if numbers else 100_000
    with TemporaryDirectory(prefix="agentbus-bench-") as name:
        folder, directory = Path(name) / "carol", Path(name) / "directory"
        writer = Writer(folder)
        figures: dict[str, Any] = {"entries": entries, **write(writer, entries)}
        figures["bytes_per_entry"] = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / entries
        figures |= prove(folder, writer)
        from agentbus.audit.export import write_events

        write_events(writer.world.entries, directory)
        for count in (2,) if entries > 200_000 else (1, 2):
            root = writer.world.root.id.hex()
            command = [sys.executable, "-c", VERIFY, str(folder), str(directory), root, str(count)]
            done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            assert done["ok"] and done["checked"] >= entries, done
            figures[f"verify_{count}_per_s"] = done["checked"] / done["s"]
            figures[f"verify_{count}_mib"] = done["own_mib"] + count * done["worker_mib"] * (count > 1)
    figures["writer_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if "--json" in sys.argv:
        print(json.dumps(figures))
        return
    for what, value in figures.items():
        print(f"{what:22} {value:14,.1f}")


if __name__ == "__main__":
    main()
