"""Verifying a log offline: from a folder, the directory's log and a pinned root key to separate verdicts.

Rule 1: what judged a message live judges it here again: the same functions, the instant and the directory of then.
Rule 2: nothing is believed because the log says so: keys come from the directory's log, and that from the pinned root.
Rule 3: a negative verdict names every place; nothing stops at the first. What cannot be judged is None, with a reason,
and never counts as good.
Rule 4: one pass, and memory for the blobs' index, the statements and the problems only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentbus.crypto.keys import VerifyKey
from agentbus.crypto.merkle import Frontier, leaf_hash
from agentbus.errors import AgentBusError
from agentbus.log.checkpoint import Origin, parse_origin, verify_checkpoint
from agentbus.log.entry import ACCEPTED, Message, Received, Redaction, Sent, decode_entry
from agentbus.log.history import History, Statements
from agentbus.log.judge import Judge
from agentbus.log.read import NO_BOX, Damage, LogFolder, Numbered
from agentbus.log.report import Report, Tally, Verdict
from agentbus.protocol.sealing import commit_body
from agentbus.wire.header import Header, decode_header
from agentbus.wire.ids import b64
from agentbus.wire.limits import LIMITS

_LATER: Final = "needs what peers and witnesses kept; not judged from one log"


def verify_log(log: LogFolder, *, events: Sequence[bytes], root: bytes) -> Report:
    """Judge one log. Everything that is wrong with it is a verdict; nothing raises.

    Args:
        log: What :func:`agentbus.log.read.read_log` gave.
        events: The directory log's encoded statements, in order.
        root: The pinned thumbprint of the root key, 32 bytes.
    """
    return Verification(log, History(events, root)).run()


class Verification:
    """One run over one log."""

    def __init__(self, log: LogFolder, history: History) -> None:
        self._log = log
        self._history = history
        self._statements = Statements(_statement_blobs(log), history)
        self._judge = Judge(log, history, self._statements)
        self._intact = Tally()
        self._frontier = Frontier()
        self._root: bytes | None = None  # over what the checkpoint covers
        self._signed = False  # the checkpoint's signature was found good
        self._whole = True  # no record was unreadable so far
        self._log_keys: dict[bytes, int] = {}  # that this node's own messages name, and where first
        self._absent: list[tuple[int, bytes]] = []  # bodies that are not there: position, commitment
        self._redacted: set[bytes] = set()
        self._bodies = 0
        self._messages = 0
        self._count = 0

    def run(self) -> Report:
        """The verdicts."""
        for damage in self._log.damage:
            self._intact.problem(str(damage))
        said = self._log.said
        covered = said.size if said else -1
        if covered == 0:
            self._root = self._frontier.root()
        for item in self._log.entries():
            self._count += 1
            if isinstance(item, Damage):
                self._whole = False
                self._intact.problem(f"entry {self._count - 1}: {item}")
                continue
            self._intact.checked += 1
            self._frontier.append(leaf_hash(item.data))
            if self._whole and self._frontier.size == covered:
                self._root = self._frontier.root()
            self._entry(item)
        self._check_checkpoint()
        mine = {"INTACT": self._intact_verdict(), **self._bodies_verdicts()}
        return Report({**self._judge.verdicts(), **mine, **_later()})

    # ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _entry(self, item: Numbered) -> None:
        try:
            entry = decode_entry(item.data)
        except AgentBusError as error:
            self._intact.problem(f"entry {item.position}: {error}")
            return
        if entry.position != item.position:
            self._intact.problem(f"entry {item.position}: says it is entry {entry.position}")
        if isinstance(entry, Redaction):
            self._redacted.add(entry.commitment)
        elif isinstance(entry, Sent | Received):
            self._messages += 1
            try:
                header = decode_header(entry.header, LIMITS)
            except AgentBusError as error:
                self._intact.problem(f"entry {item.position}: {error}")
                return
            self._note_log_key(entry, header)
            if isinstance(entry, Sent) or entry.code == ACCEPTED:
                self._commitments(entry, header)
            self._judge.message(entry, header)

    def _commitments(self, entry: Message, header: Header) -> None:
        """Chain, handover and body are those that the signed header names."""
        where = f"entry {entry.position}"
        if entry.chain != header.chain_digest or entry.handover != header.handover_digest:
            self._intact.problem(f"{where}: chain or handover is not the one of its header")
        for what, digest in (("chain", header.chain_digest), ("handover", header.handover_digest)):
            if digest is not None and self._log.blob(digest) is None:
                self._intact.problem(f"{where}: its {what} {b64(digest)} is not among the blobs")
        self._bodies += 1
        box = self._log.box(entry.body) if entry.body is not None else NO_BOX
        if box.problem:
            self._intact.problem(f"{where}: {box.problem}")
        elif box.data is None:
            self._absent.append((entry.position, header.body_commitment))
        elif len(box.data) != 32 + header.body_length or not _commits(header, box.data):
            self._intact.problem(f"{where}: its body is not the one its header commits to")

    def _note_log_key(self, entry: Message, header: Header) -> None:
        """Messages of this node's own instances say which key signs its log."""
        if isinstance(entry, Sent):
            mine = self._statements.get(entry.statement)
        else:
            mine = self._statements.of_instance(header.recipient, header.recipient_instance)
        if mine is not None:
            self._log_keys.setdefault(mine.log_key, entry.position)

    # ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_checkpoint(self) -> None:
        """The checkpoint is this log's, by the key its node's instance statements name, over the root found here."""
        note, said = self._log.note, self._log.said
        if note is None or said is None:
            if self._count or note is not None:
                self._intact.problem("there is no readable checkpoint: nothing vouches for what is here")
            return
        if said.size > self._count:
            self._intact.problem(f"{said.size} entries were signed over, {self._count} are here")
        elif self._root is not None and self._root != said.root:
            self._intact.problem(f"the root of {said.size} entries is {b64(self._root)}, signed was {b64(said.root)}")
        try:
            origin = parse_origin(said.origin)
        except AgentBusError as error:
            self._intact.problem(f"checkpoint: {error}")
            return
        if origin.domain != self._history.full.domain:
            self._intact.problem(f"a log of {origin.domain}, the directory is {self._history.full.domain}'s")
        key = self._signer(note, origin)
        if key is None:
            if self._messages or self._log_keys:
                self._intact.problem(f"no log key that an instance statement of node {origin.node} names signed this")
            return
        self._signed = True
        for other, position in self._log_keys.items():
            if other != key:
                self._intact.problem(f"entry {position}: its instance's log is signed by another key")

    def _signer(self, note: bytes, origin: Origin) -> bytes | None:
        """The log key that signed the note, among those that this node's statements name."""
        for raw in {instance.log_key for instance in self._statements if instance.node == origin.node}:
            try:
                verify_checkpoint(note, str(origin), VerifyKey(raw))
            except AgentBusError:
                continue
            return raw
        return None

    def _intact_verdict(self) -> Verdict:
        said = self._log.said
        behind = self._count - said.size if said else 0
        reason = f"{behind} entries after the checkpoint are not covered" if behind > 0 else ""
        if said is not None and not self._signed:
            verdict = self._intact.verdict(reason=reason)
            unsigned = "no instance of this node is known, so the checkpoint's signature was not judged"
            return verdict if verdict.ok is False else Verdict(None, verdict.checked, [], unsigned)
        return self._intact.verdict(nothing="the log is empty", reason=reason)

    def _bodies_verdicts(self) -> dict[str, Verdict]:
        missing, redacted = Tally(), 0
        missing.checked = self._bodies
        for position, commitment in self._absent:
            if commitment in self._redacted:
                redacted += 1
            else:
                missing.problem(f"entry {position}: its body is absent and no redaction says why")
        return {
            "MISSING": missing.verdict(nothing="no message with a body"),
            "REDACTED": Verdict(True, redacted, [], f"{redacted} bodies were erased on purpose"),
        }


def _commits(header: Header, salted: bytes) -> bool:
    return commit_body(salted[:32], salted[32:]) == header.body_commitment


def _later() -> dict[str, Verdict]:
    """The verdicts that one log alone cannot give."""
    names = ("NOT-FORKED", "NOT-TRUNCATED", "COMPLETE", "REPLAYABLE")
    return {name: Verdict(None, reason=_LATER) for name in names}


def _statement_blobs(log: LogFolder) -> list[tuple[bytes, bytes]]:
    found = ((digest, log.blob(digest)) for digest in log.statements)
    return [(digest, data) for digest, data in found if data is not None]
