"""A small log of real messages: carol's node hears from dave, on behalf of alice, and answers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.grant import chain_digest
from agentbus.log import entry
from agentbus.log.base import LogStore
from agentbus.log.read import read_log
from agentbus.log.report import Report
from agentbus.log.verify import verify_log
from agentbus.logstore.files import FileLog
from agentbus.protocol.sealing import Batch, Draft, commit_body
from agentbus.testing.draw import NOON, World, chain_bytes, draw_chain, draw_world, seed, standing
from agentbus.wire.frame import decode_frame
from agentbus.wire.header import Header, Kind, encode_header
from agentbus.wire.limits import LIMITS, SECOND

ORIGIN = "agentbus.local.test/carol/1"
CHAIN = "alice -[quote]-> erin -[quote]-> dave"


class Lab:
    """A world whose instance statements' bytes are kept, and the writing of messages into a log of carol's."""

    def __init__(self) -> None:
        self.world: World = draw_world("carol", "dave", "erin")
        self.statements: dict[str, bytes] = {}
        self.chains: dict[str, bytes] = {}
        for name in ("carol", "dave", "erin"):
            self.restart(name)
        self.key = SigningKey(seed(self.world["carol"].id, "log"))
        self.count = 0
        self.seqs: dict[str, int] = {}

    def restart(self, name: str, **changes: Any) -> None:
        """A new instance of ``name`` whose statement's bytes are known."""
        world = self.world
        made, signed = world.statement(world[name], **changes)
        world.trust = world.trust.advance(signed.encode(), now=world.now)
        world[name].statement = made
        self.statements[name] = signed.encode()

    def open(self, folder: Path, **options: Any) -> FileLog:
        """Carol's log."""
        return FileLog.open(folder, key=self.key, origin=ORIGIN, now=NOON, **options)

    def open_peer(self, folder: Path, name: str = "dave") -> FileLog:
        """The log of another node."""
        key = SigningKey(seed(self.world[name].id, "log"))
        log = FileLog.open(folder, key=key, origin=f"agentbus.local.test/{name}/1", now=NOON)
        log.put_blob(self.statements[name])
        return log

    def keep(self, log: LogStore, *notes: bytes) -> None:
        """Let a log keep notes of another one."""
        rows = (entry.peer_checkpoint(log.size + at, NOON, connection=None, note=n) for at, n in enumerate(notes))
        log.append(list(rows))

    def envelope(self, sender: str, to: str, kind: Kind, chain: bytes, body: bytes, **changes: Any) -> list[bytes]:
        """Two frames of one batch."""
        a, b = self.world[sender], self.world[to]
        drafts = []
        for _ in range(2):
            self.count += 1
            self.seqs[sender] = seq = self.seqs.get(sender, 0) + 1
            salt = seed("salt", str(self.count))
            header = Header(
                1, kind, seed("id", str(self.count))[:16], seed("conversation")[:16], a.id, a.running.instance_id,
                a.instance.id, seq, b.id, b.running.instance_id, seq, None, None,
                None if kind == Kind.REQUEST else bytes(32), None, "Quote", NOON, NOON + 60 * SECOND, "json",
                len(body), commit_body(salt, body), chain_digest(chain), None, self.world.trust.size,
                self.world.trust.revocation_seq, None, None, 0, [],
            )._replace(**changes)  # fmt: skip
            drafts.append(Draft.of(encode_header(header), chain, b"", salt, body))
        batch = Batch.prepare(drafts, key_id=a.instance.id, instance_id=a.running.instance_id)
        return batch.attach(sign(a.instance, Purpose.BATCH, batch.to_sign))

    def log(
        self,
        store: LogStore,
        frames: list[bytes],
        who: str,
        *,
        sent: bool,
        bodies: bool = True,
        instant: int = NOON,
        **verdict: Any,
    ) -> None:
        """Append a group of frames that ``who`` sealed; ``verdict`` replaces positions of the entries."""
        rows: list[bytes] = []
        for at, frame in enumerate(frames):
            e = decode_frame(frame, LIMITS)
            whole = e.salt + e.body
            common: dict[str, Any] = {
                "connection": None, "header": e.header, "proof": e.proof, "chain": store.put_blob(e.chain),
                "statement": store.put_blob(self.statements[who]), "handover": None,
                "body": store.put_box(whole) if bodies else hashlib.sha256(whole).digest(),
            }  # fmt: skip
            if sent:
                rows.append(entry.sent(store.size + at, instant, **common))
                continue
            judged = {
                "code": "ok", "directory_size": self.world.trust.size, "policy_version": "1",
                "revocation_seq": self.world.trust.revocation_seq,
            }  # fmt: skip
            rows.append(entry.received(store.size + at, instant, **{**common, **judged, **verdict}))
        store.append(rows)

    def write_small(self, store: LogStore) -> None:
        """One request and one answer."""
        self.log(store, self.request("alice -[quote]-> dave")[:1], "dave", sent=False)
        own = chain_bytes(standing(self.world, "carol"))
        self.log(store, self.envelope("carol", "dave", Kind.REPLY, own, b"{}")[:1], "carol", sent=True)

    def write(self, store: LogStore) -> None:
        """OPEN, two requests from dave for alice, two answers, something refused, CLOSE."""
        store.append([entry.opened(store.size, NOON, node="carol", domain="local.test", software="test")])
        store.put_blob(self.statements["erin"])
        self.log(store, self.request(), "dave", sent=False)
        own = chain_bytes(standing(self.world, "carol"))
        self.log(store, self.envelope("carol", "dave", Kind.REPLY, own, b"{}"), "carol", sent=True)
        store.append(
            [
                entry.rejected(store.size, NOON, connection=None, code="reject.x", digest=bytes(32), sample=b"junk"),
                entry.closed(store.size + 1, NOON),
            ]
        )

    def request(self, drawing: str = CHAIN, *, body: bytes = b'{"n": 1}', **changes: Any) -> list[bytes]:
        """Two requests of dave's to carol."""
        if drawing not in self.chains:
            self.chains[drawing] = chain_bytes(draw_chain(drawing, world=self.world))
        return self.envelope("dave", "carol", Kind.REQUEST, self.chains[drawing], body, **changes)

    def answer(self, body: bytes = b"{}") -> list[bytes]:
        """Two answers of carol's to dave."""
        if "own" not in self.chains:
            self.chains["own"] = chain_bytes(standing(self.world, "carol"))
        return self.envelope("carol", "dave", Kind.REPLY, self.chains["own"], body)

    def verify(self, folder: Path) -> Report:
        """An auditor's look at a folder."""
        return verify_log(read_log(folder), events=self.world.entries, root=self.world.root.id)
