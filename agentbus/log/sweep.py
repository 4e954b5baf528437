"""Reading a part of a log once, and asking everything that can be asked of it.

Rule 1: what judged a message live judges it here again: the same functions, the instant and the directory of then.
Rule 2: nothing is believed because the log says so.
Rule 3: nothing stops at the first problem, and nothing raises: what is wrong is found, and named with its place.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import Final, NamedTuple

from agentbus.crypto.merkle import leaf_hash, root_of
from agentbus.errors import AgentBusError
from agentbus.log.batches import Signer
from agentbus.log.boxes import NO_BOX
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import ACCEPTED, MAX_ENTRY, Entry, Message, PeerCheckpoint, Received, Redaction, Sent, Step
from agentbus.log.history import History, Statements
from agentbus.log.index import Damage
from agentbus.log.judge import Judge, flow_of, where
from agentbus.log.part import Absent, Kept, Part, Run, follow
from agentbus.log.read import LogFolder
from agentbus.log.scanning import Unit
from agentbus.log.tiles import ENTRIES, WIDTH, encode_bundle, tile_path
from agentbus.protocol.sealing import commit_body
from agentbus.wire.header import OPENING, Header, decode_header
from agentbus.wire.ids import b64
from agentbus.wire.limits import LIMITS

_MESSAGES: Final = (Sent, Received)


class Flow(NamedTuple):
    """Messages that differ in nothing that was judged but what a :class:`Span` bounds: one verdict is of all."""

    start: int
    end: int
    conversation: bytes | None
    signer: Signer
    runs: list[Run] | None  # where their numbers go; None where nobody in particular counts them


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
        self._begin(Part())

    def _begin(self, part: Part) -> None:
        """What is remembered is remembered within one part: it is bounded by that, and no part depends on another."""
        self._part = part
        self._flows: dict[Hashable, Flow] = {}
        self._judge.begin()
        self._log.boxes.begin()

    def read(self, unit: Unit) -> Part:
        """What one part holds."""
        part = Part(position=unit.position)
        self._begin(part)
        group: list[bytes] = []
        for found in self._log.runs(unit):
            at = part.position + part.entries
            if isinstance(found, Damage):
                part.entries += 1
                part.broken = at if part.broken is None else part.broken
                part.intact.problem(f"entry {at}: {found}")
                continue
            part.entries += len(found)
            part.intact.checked += len(found)
            if part.broken is None:
                group += found
                while len(group) >= WIDTH:
                    self._group(group[:WIDTH], part.position + WIDTH * len(part.groups))
                    del group[:WIDTH]
            for first in range(0, len(found), WIDTH):
                self._take(at + first, found[first : first + WIDTH])
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
            if max(map(len, entries[:covered])) <= MAX_ENTRY:  # else no bundle holds it, and the entry is named
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

    def _take(self, at: int, records: Sequence[bytes]) -> None:
        """Some entries: one step for all of them, then the next, which is faster by a quarter than one by one."""
        entries = self._decode(at, records)
        headers = [self._header(position, entry) for position, entry in entries]
        digests = [leaf_hash(entry.header) if isinstance(entry, _MESSAGES) else b"" for _, entry in entries]
        settle = self._part.fates.add
        flows, alike, accepted, refused = self._flows, [], [], []
        for (position, entry), header, digest in zip(entries, headers, digests, strict=True):
            settle(entry, header, digest, position)
            if header is None or not isinstance(entry, _MESSAGES):
                continue
            what = flow_of(entry, header)
            flow = flows.get(what)
            if (
                flow is None
                or not flow.start <= entry.instant < flow.end
                or flow.conversation not in (None, header.conversation)
            ):
                self._first(entry, header, digest, position, what)
            else:
                if flow.runs is not None:
                    follow(flow.runs, header.seq if isinstance(entry, Sent) else header.peer_seq, position)
                alike.append((entry, header, digest, flow.signer))
            if isinstance(entry, Sent) or entry.code == ACCEPTED:
                accepted.append((entry, header, digest))
            else:
                self._part.bodiless += entry.body is None
                if entry.body is not None:
                    refused.append((entry, header, digest))
        self._judge.alike(alike)
        self._bodies(accepted)
        for message, its, _ in refused:  # there need be none; one that is there is read under its sender's name
            data = self._log.box(message.body).data if message.body is not None else None
            if data is not None and not _is_body(data, its):
                self._part.intact.problem(f"{where(message, its)}: its body is not the one its header commits to")

    def _decode(self, at: int, records: Sequence[bytes]) -> list[tuple[int, Entry]]:
        """The entries that can be read, with their positions."""
        part, intact = self._part, self._part.intact
        sizes = {size for size in self._sizes if at < size <= at + len(records)}
        entries: list[tuple[int, Entry]] = []
        for position, data in enumerate(records, at):
            try:
                entry = decode_entry(data)
            except AgentBusError as error:
                intact.problem(f"entry {position}: {error}")
                continue
            entries.append((position, entry))
            if entry.instant > part.latest:
                part.latest = entry.instant
            if position >= self._covered:
                early, late = part.behind or (entry.instant, entry.instant)
                part.behind = min(early, entry.instant), max(late, entry.instant)
            if sizes and position + 1 in sizes:
                part.latest_at[position + 1] = part.latest
            if entry.position != position:
                intact.problem(f"entry {position}: says it is entry {entry.position}")
        return entries

    def _header(self, position: int, entry: Entry) -> Header | None:
        """The header of a message; of another entry what there is to be found is found."""
        part = self._part
        if isinstance(entry, _MESSAGES):
            part.messages += 1
            try:
                return decode_header(entry.header, LIMITS)
            except AgentBusError as error:
                part.intact.problem(f"entry {position}: {error}")
        elif isinstance(entry, Redaction):
            part.redacted.add(entry.commitment)
        elif isinstance(entry, PeerCheckpoint):
            part.kept.append(Kept(position, entry.note, entry.instant))
        elif isinstance(entry, Step) and entry.result is not None:
            part.inputs.checked += 1
            self._input(entry.result, position, entry.digest)
        return None

    def _first(self, entry: Message, header: Header, digest: bytes, position: int, what: Hashable) -> None:
        """A message that begins a flow, or that is judged by itself."""
        part = self._part
        self._note_log_key(entry, header)
        runs: list[Run] | None = None
        instance = f"{header.sender}#{header.sender_instance.hex()}"
        accepted = isinstance(entry, Sent) or entry.code == ACCEPTED
        if isinstance(entry, Sent):
            runs = part.run(instance, "", header.seq, position)
        elif accepted and header.recipient_instance is not None:
            runs = part.run(instance, header.recipient_instance.hex(), header.peer_seq, position)
        bound = accepted and self._bound(entry, header)
        span = self._judge.message(entry, header, digest)
        if span is not None and bound:
            self._flows[what] = Flow(*span, runs)

    def _bound(self, entry: Message, header: Header) -> bool:
        """Whether chain and handover are those that the signed header names, and are here."""
        intact, bound = self._part.intact, True
        if entry.chain != header.chain_digest or entry.handover != header.handover_digest:
            intact.problem(f"{where(entry, header)}: chain or handover is not the one of its header")
            bound = False
        for what, named in (("chain", header.chain_digest), ("handover", header.handover_digest)):
            if named is not None and self._log.blob(named) is None:
                intact.problem(f"{where(entry, header)}: its {what} {b64(named)} is not among the blobs")
                bound = False
        return bound

    def _bodies(self, accepted: Sequence[tuple[Message, Header, bytes]]) -> None:
        """The bodies are those that the signed headers commit to."""
        part = self._part
        part.missing.checked += len(accepted)
        contents = self._log.boxes.contents([entry.body for entry, _, _ in accepted])
        for (entry, header, digest), data in zip(accepted, contents, strict=True):
            part.inputs.checked += header.kind in OPENING and isinstance(entry, Received)
            if data is None:
                self._absent(entry, header, digest)
            elif not _is_body(data, header):
                part.intact.problem(f"{where(entry, header)}: its body is not the one its header commits to")

    def _absent(self, entry: Message, header: Header, digest: bytes) -> None:
        """A body that cannot be had: changed, or not there."""
        box = self._log.box(entry.body) if entry.body is not None else NO_BOX
        if box.problem:
            self._part.intact.problem(f"{where(entry, header)}: {box.problem}")
        else:
            self._part.absent.append(Absent(entry.position, header.body_commitment, digest))

    def _input(self, name: bytes, position: int, digest: bytes) -> None:
        box = self._log.box(name)
        if box.problem:
            self._part.intact.problem(f"entry {position}: {box.problem}")
        elif box.data is None:
            self._part.absent.append(Absent(position, None, digest))

    def _note_log_key(self, entry: Message, header: Header) -> None:
        """Messages of this node's own instances say which key signs its log; one that was refused may be for others."""
        mine = None
        if isinstance(entry, Sent):
            mine = self._statements.get(entry.statement)
        elif entry.code == ACCEPTED:
            mine = self._statements.of_instance(header.recipient, header.recipient_instance)
            if mine is None:
                text = "nothing beside the log says that its recipient lives here"
                self._part.intact.problem(f"{where(entry, header)}: {text}")
        if mine is not None:
            self._part.log_keys.setdefault(mine.log_key, entry.position)


def _is_body(salted: bytes, header: Header) -> bool:
    """Whether this is the salt and the body that a header commits to."""
    return len(salted) == 32 + header.body_length and commit_body(salted[:32], salted[32:]) == header.body_commitment


def statement_blobs(log: LogFolder, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """The blobs that look like instance statements, without the first ``start`` of them."""
    for digest in log.statements[start:]:
        data = log.blob(digest)
        if data is not None:
            yield digest, data
