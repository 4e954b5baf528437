"""Reading a part of a log once, and asking everything that can be asked of it.

Rule 1: what judged a message live judges it here again: the same functions, the instant and the directory of then.
Rule 2: nothing is believed because the log says so.
Rule 3: nothing stops at the first problem, and nothing raises: what is wrong is found, and named with its place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from agentbus.crypto.merkle import leaf_hash, root_of
from agentbus.errors import AgentBusError
from agentbus.log.entry import ACCEPTED, Message, PeerCheckpoint, Received, Redaction, Sent, Step, decode_entry
from agentbus.log.history import History, Statements
from agentbus.log.judge import Judge, where
from agentbus.log.part import Absent, Kept, Part
from agentbus.log.read import NO_BOX, Damage, LogFolder, Numbered
from agentbus.log.scanning import Unit
from agentbus.log.tiles import ENTRIES, WIDTH, encode_bundle, tile_path
from agentbus.protocol.sealing import commit_body
from agentbus.wire.header import OPENING, Header, decode_header
from agentbus.wire.ids import b64
from agentbus.wire.limits import LIMITS

UNIT: Final = 32 * WIDTH
"""Entries that are read at once: a whole number of tiles, so that parts of the tree fit together."""


class Sweep:
    """Reads parts of one log.

    Args:
        log: The folder.
        history: The directory, folded from the pinned root.
        sizes: At which the root is wanted, besides the checkpoint's.
    """

    def __init__(self, log: LogFolder, history: History, sizes: Collection[int] = ()) -> None:
        self._log = log
        self._statements = Statements(statement_blobs(log), history)
        self._judge = Judge(log, history, self._statements)
        self._covered = log.said.size if log.said else 0
        self._sizes = {*sizes, self._covered}
        self._part = Part()

    def read(self, unit: Unit) -> Part:
        """What one part holds."""
        part = self._part = Part(position=unit.position)
        self._judge.begin()
        group: list[bytes] = []
        for item in self._log.entries(unit):
            part.entries += 1
            if isinstance(item, Damage):
                at = part.position + part.entries - 1
                part.broken = at if part.broken is None else part.broken
                part.intact.problem(f"entry {at}: {item}")
                continue
            part.intact.checked += 1
            if part.broken is None:
                group.append(item.data)
                if len(group) == WIDTH:
                    self._group(group, item.position + 1 - WIDTH)
                    group = []
            self._entry(item)
        if group:
            self._group(group, part.position + WIDTH * len(part.groups))
        part.judged = self._judge.take()
        return part

    # ── the tree ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _group(self, entries: list[bytes], start: int) -> None:
        """Up to 256 entries: their part of the tree, and the tile and bundle that hold them."""
        part = self._part
        leaves = [leaf_hash(data) for data in entries]
        for size in self._sizes:
            if start < size <= start + len(leaves):
                part.partial[size] = root_of(leaves[: size - start])
        if len(leaves) == WIDTH:
            part.groups.append(root_of(leaves))
        else:
            part.rest = leaves
        covered = min(len(leaves), self._covered - start)
        if covered > 0:
            self._tile(0, start // WIDTH, covered, b"".join(leaves[:covered]))
            self._tile(ENTRIES, start // WIDTH, covered, encode_bundle(entries[:covered]))

    def _tile(self, level: int, number: int, width: int, expected: bytes) -> None:
        path = tile_path(level, number, width)
        found = self._log.file(path)
        if found is None and width < WIDTH:  # it may have been given up for the full one
            full = self._log.file(tile_path(level, number))
            found = full[: len(expected)] if full is not None else None
        if found is None:
            self._part.intact.problem(f"{path}: this tile is missing")
        elif found != expected:
            self._part.intact.problem(f"{path}: this is not what the entries hash to")

    # ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _entry(self, item: Numbered) -> None:
        part = self._part
        try:
            entry = decode_entry(item.data)
        except AgentBusError as error:
            part.intact.problem(f"entry {item.position}: {error}")
            return
        part.latest = max(part.latest, entry.instant)
        if item.position + 1 in self._sizes:
            part.latest_at[item.position + 1] = part.latest
        if entry.position != item.position:
            part.intact.problem(f"entry {item.position}: says it is entry {entry.position}")
        header = self._message(entry, item.position) if isinstance(entry, Sent | Received) else None
        part.fates.add(entry, header, item.position)
        if isinstance(entry, Redaction):
            part.redacted.add(entry.commitment)
        elif isinstance(entry, PeerCheckpoint):
            part.kept.append(Kept(item.position, entry.note, entry.instant))
        elif isinstance(entry, Step) and entry.result is not None:
            part.inputs.checked += 1
            self._input(entry.result, item.position, None, entry.digest)

    def _message(self, entry: Message, position: int) -> Header | None:
        part = self._part
        part.messages += 1
        try:
            header = decode_header(entry.header, LIMITS)
        except AgentBusError as error:
            part.intact.problem(f"entry {position}: {error}")
            return None
        self._note_log_key(entry, header)
        instance = f"{header.sender}#{header.sender_instance.hex()}"
        if isinstance(entry, Sent):
            part.run(instance, "", header.seq, position)
        elif entry.code == ACCEPTED and header.recipient_instance is not None:
            part.run(instance, header.recipient_instance.hex(), header.peer_seq, position)
        if isinstance(entry, Sent) or entry.code == ACCEPTED:
            self._commitments(entry, header)
        self._judge.message(entry, header)
        return header

    def _commitments(self, entry: Message, header: Header) -> None:
        """Chain, handover and body are those that the signed header names."""
        part = self._part
        if entry.chain != header.chain_digest or entry.handover != header.handover_digest:
            part.intact.problem(f"{where(entry, header)}: chain or handover is not the one of its header")
        for what, digest in (("chain", header.chain_digest), ("handover", header.handover_digest)):
            if digest is not None and self._log.blob(digest) is None:
                part.intact.problem(f"{where(entry, header)}: its {what} {b64(digest)} is not among the blobs")
        part.missing.checked += 1
        if isinstance(entry, Received) and header.kind in OPENING:
            part.inputs.checked += 1
        box = self._log.box(entry.body) if entry.body is not None else NO_BOX
        if box.problem:
            part.intact.problem(f"{where(entry, header)}: {box.problem}")
        elif box.data is None:
            part.absent.append(Absent(entry.position, header.body_commitment, leaf_hash(entry.header)))
        elif len(box.data) != 32 + header.body_length or not _commits(header, box.data):
            part.intact.problem(f"{where(entry, header)}: its body is not the one its header commits to")

    def _input(self, name: bytes, position: int, commitment: bytes | None, digest: bytes) -> None:
        box = self._log.box(name)
        if box.problem:
            self._part.intact.problem(f"entry {position}: {box.problem}")
        elif box.data is None:
            self._part.absent.append(Absent(position, commitment, digest))

    def _note_log_key(self, entry: Message, header: Header) -> None:
        """Messages of this node's own instances say which key signs its log; one that was refused may be for others."""
        mine = None
        if isinstance(entry, Sent):
            mine = self._statements.get(entry.statement)
        elif entry.code == ACCEPTED:
            mine = self._statements.of_instance(header.recipient, header.recipient_instance)
        if mine is not None:
            self._part.log_keys.setdefault(mine.log_key, entry.position)


def statement_blobs(log: LogFolder) -> Iterator[tuple[bytes, bytes]]:
    """The blobs that look like instance statements."""
    for digest in log.statements:
        data = log.blob(digest)
        if data is not None:
            yield digest, data


def _commits(header: Header, salted: bytes) -> bool:
    return commit_body(salted[:32], salted[32:]) == header.body_commitment
