"""One file that proves one message to somebody who has nothing but the pinned root key.

Rule 1: the very functions that judge a whole log judge it: what the file shows is no easier to fake than a log.
Rule 2: it holds one entry. Of all others the tree's path shows 32 bytes a level, which tell nothing.
Rule 3: it holds the directory's log whole. A part of it could leave a revocation out.
Rule 4: the body is shown or left out as whoever makes it likes; the commitment in the signed header binds it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from agentbus.crypto.keys import VerifyKey
from agentbus.crypto.merkle import leaf_hash
from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import chain_digest, decode_links
from agentbus.errors import AgentBusError, LogError, Malformed
from agentbus.log.checkpoint import parse_origin, read_checkpoint
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import ACCEPTED, Message, Received, Sent
from agentbus.log.history import History, Statements
from agentbus.log.judge import Judge, verdicts_of
from agentbus.log.read import LogFolder
from agentbus.log.report import Report, Tally, Verdict, moment
from agentbus.log.tiles import TileReader
from agentbus.log.tlogproof import LogProof, decode_log_proof, encode_log_proof, verify_log_proof
from agentbus.protocol.sealing import commit_body
from agentbus.wire.header import Header, Kind, decode_header
from agentbus.wire.ids import b64, unb64
from agentbus.wire.limits import LIMITS

CODES: Final = {
    "malformed.message_proof": "This is no agentbus message proof, or it was cut or changed.",
    "log.no_message": "The log holds no such message.",
    "log.not_covered": "No checkpoint covers the entry yet; a running node signs one within a second.",
    "log.no_statement": "Beside the log there is no instance statement of its node that names the key which signed the"
    " checkpoint.",
}

FORMAT: Final = "agentbus.message-proof.v1"
_ONE: Final = "a proof shows one message, not a log"


class MessageProof(NamedTuple):
    """What the file holds."""

    entry: bytes
    log_proof: LogProof
    chain: bytes
    handover: bytes | None
    statements: tuple[bytes, ...]  # the sender's, those of the links' issuers, and one that names the log key
    salted_body: bytes | None  # None: not shown
    directory: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The file's bytes: one JSON object, binary values in base64url."""
        shown = {
            "format": FORMAT,
            "entry": b64(self.entry),
            "log_proof": encode_log_proof(self.log_proof).decode(),
            "chain": b64(self.chain),
            "handover": b64(self.handover) if self.handover is not None else None,
            "statements": [b64(one) for one in self.statements],
            "salted_body": b64(self.salted_body) if self.salted_body is not None else None,
            "directory": [b64(one) for one in self.directory],
        }
        return (json.dumps(shown, indent=1) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> MessageProof:
        """Read a file; nothing in it has been believed yet.

        Raises:
            Malformed: ``malformed.message_proof``, ``malformed.tlog_proof``, ``malformed.base64``.
        """
        try:
            row = json.loads(data)
            if not isinstance(row, dict) or row.pop("format", None) != FORMAT or set(row) != _FIELDS:
                raise Malformed("malformed.message_proof", f"not the fields of {FORMAT}")
            texts = [row["entry"], row["log_proof"], row["chain"], *row["statements"], *row["directory"]]
            texts += [value for value in (row["handover"], row["salted_body"]) if value is not None]
            if not all(isinstance(text, str) for text in texts):
                raise Malformed("malformed.message_proof", "a value is no text")
        except (ValueError, TypeError, RecursionError) as error:
            if isinstance(error, Malformed):
                raise
            raise Malformed("malformed.message_proof", "not one JSON object") from error
        proof = cls(
            unb64(row["entry"]),
            decode_log_proof(row["log_proof"].encode()),
            unb64(row["chain"]),
            unb64(row["handover"]) if row["handover"] is not None else None,
            tuple(unb64(one) for one in row["statements"]),
            unb64(row["salted_body"]) if row["salted_body"] is not None else None,
            tuple(unb64(one) for one in row["directory"]),
        )
        if proof.encode() != data:
            raise Malformed("malformed.message_proof", "not in the one form that it has")
        return proof

    def blob(self, digest: bytes) -> bytes | None:
        """The chain or handover of this digest."""
        found = [part for part in (self.chain, self.handover) if part is not None and chain_digest(part) == digest]
        return found[0] if found else None


_FIELDS: Final = {"entry", "log_proof", "chain", "handover", "statements", "salted_body", "directory"}


class Shown(NamedTuple):
    """What a proof shows, as far as its report is positive."""

    entry: Message
    header: Header
    digest: bytes
    origin: str  # whose log
    size: int  # of the log when the checkpoint was signed
    keepers: tuple[str, ...]  # the principals whose statements name the log's key
    authority: Authority | None  # None: it was refused, and nobody judged its chain
    body: bytes | None  # None: not shown

    def facts(self) -> dict[str, Any]:
        """What it shows, flat, for people and programs."""
        header = self.header
        links = self.authority.links if self.authority is not None else ()
        path = (links[0].grant.issuer, *(link.grant.audience for link in links)) if links else ()
        received = isinstance(self.entry, Received)
        return {
            "message": Kind(header.kind).name.lower(),
            "action": header.action,
            "from": header.sender,
            "to": header.recipient,
            "on behalf of": self.authority.user if self.authority is not None else None,
            "path": " → ".join(who.short for who in path) if links else None,
            "scopes": ", ".join(self.authority.scopes) if self.authority is not None else None,
            "issued": moment(header.issued_at).isoformat(),
            "message id": header.message_id.hex(),
            "digest": b64(self.digest),
            "log": self.origin,
            "kept by": ", ".join(self.keepers),
            "entry": f"{self.entry.position} of {self.size}",
            "verdict": self.entry.code if isinstance(self.entry, Received) else None,
            "judged" if received else "sealed": moment(self.entry.instant).isoformat(),
            "body": self.body.decode("utf-8", "replace") if self.body is not None else None,
        }


# ── making ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def find_message(log: LogFolder, wanted: str) -> Message:
    """The first message whose id (hex), digest (base64url) or position (decimal) is ``wanted``.

    Raises:
        LogError: ``log.no_message``.
    """
    for entry, header in log.messages():
        if wanted in (header.message_id.hex(), b64(leaf_hash(entry.header)), str(entry.position)):
            return entry
    raise LogError("log.no_message", f"{log.folder} holds no message {wanted[:80]!r}; `agentbus log show` lists them")


def prove_message(
    log: LogFolder, wanted: str, *, events: Sequence[bytes], root: bytes, with_body: bool = True
) -> MessageProof:
    """Make the proof of one message.

    Args:
        log: Where it stands.
        wanted: As for :func:`find_message`.
        events: The directory log's encoded statements, in order.
        root: The pinned thumbprint of the root key.
        with_body: Whether to show the body, where it is still there.

    Raises:
        LogError: ``log.no_message``, ``log.not_covered``, ``log.no_statement``, ``log.tile``.
    """
    entry = find_message(log, wanted)
    said, note = log.said, log.note
    if said is None or note is None or said.size <= entry.position:
        raise LogError("log.not_covered", f"entry {entry.position} is behind the newest checkpoint; try again")
    data = log.entry_at(entry.position) or b""
    chain = log.blob(entry.chain) or b""
    handover = log.blob(entry.handover) if entry.handover is not None else None
    body = log.box(entry.body).data if with_body and entry.body is not None else None
    found = [(digest, log.blob(digest) or b"") for digest in log.statements]
    proof = LogProof(entry.position, TileReader(said.size, log.file).inclusion(entry.position), note)
    statements = _needed(Statements(found, History(events, root)), dict(found), entry, _party(entry), chain, note)
    return MessageProof(data, proof, chain, handover, statements, body, tuple(events))


def _needed(
    statements: Statements, data: dict[bytes, bytes], entry: Message, party: str, chain: bytes, note: bytes
) -> tuple[bytes, ...]:
    """The statements that a verifier will ask for."""
    wanted = [entry.statement]
    for link in decode_links(chain)[1:]:
        digest = statements.of_key(link.grant.issuer_key, entry.instant)
        wanted += [digest] if digest is not None else []
    signer = statements.of_log(note, party)
    if signer is None:
        raise LogError("log.no_statement", CODES["log.no_statement"])
    return tuple(data[digest] for digest in dict.fromkeys([*wanted, signer]) if digest in data)


# ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_message_proof(data: bytes, *, root: bytes) -> tuple[Report, Shown]:
    """Judge a proof, offline.

    Args:
        data: The file.
        root: The pinned thumbprint of the root key, 32 bytes.

    Returns:
        The verdicts about this message, those about a log not judged; and what it shows.

    Raises:
        Malformed: it is no proof, whatever it would show.
    """
    proof = MessageProof.decode(data)
    entry = decode_entry(proof.entry)
    if not isinstance(entry, Sent | Received):
        raise Malformed("malformed.message_proof", "the entry is no message")
    header = decode_header(entry.header, LIMITS)
    history = History(proof.directory, root)
    statements = Statements(((hashlib.sha256(one).digest(), one) for one in proof.statements), history)
    judge = Judge(proof, history, statements)
    judge.message(entry, header, leaf_hash(entry.header))
    said = read_checkpoint(proof.log_proof.checkpoint)
    verdicts = {
        **verdicts_of(judge.take(), history),
        "INTACT": _included(proof, entry, header, statements, history),
        "MISSING": _body(proof, entry, header),
    }
    report = Report({name: verdicts.get(name, Verdict(None, reason=_ONE)) for name in Report({})})
    authority = Authority.from_bytes(proof.chain) if _is_accepted(entry) else None
    shown = Shown(
        entry, header, leaf_hash(entry.header), said.origin, said.size,
        statements.keepers(proof.log_proof.checkpoint), authority,
        proof.salted_body[32:] if proof.salted_body is not None else None,
    )  # fmt: skip
    return report, shown


def _included(proof: MessageProof, entry: Message, header: Header, statements: Statements, history: History) -> Verdict:
    """The entry is where the log's signed tree has it, and names the chain and handover that are shown."""
    tally = Tally()
    tally.checked = 1
    said = read_checkpoint(proof.log_proof.checkpoint)
    try:
        origin = parse_origin(said.origin)
        if not history.full.size:
            tally.problem("not one entry of the directory's log is good under this root: is it the pinned one?")
        elif origin.domain != history.full.domain:
            tally.problem(f"a log of {origin.domain}, the directory is {history.full.domain}'s")
        digest = statements.of_log(proof.log_proof.checkpoint, _party(entry))
        signer = statements.get(digest) if digest is not None else None
        if signer is None:
            tally.problem(f"no log key that an instance statement of node {origin.node} names signed the checkpoint")
        else:
            verify_log_proof(proof.log_proof, proof.entry, said.origin, VerifyKey(signer.log_key))
            if _is_accepted(entry) and signer.principal != _party(entry):
                tally.problem(f"it is in a log of {signer.principal}, and {_party(entry)} is whose word it would be")
    except AgentBusError as error:
        tally.problem(str(error))
    if entry.position != proof.log_proof.position:
        tally.problem(f"the entry says it is entry {entry.position}, the proof is about {proof.log_proof.position}")
    if chain_digest(proof.chain) != entry.chain or proof.blob(entry.handover or entry.chain) is None:
        tally.problem("chain or handover is not the one that the entry names")
    if _is_accepted(entry) and (entry.chain, entry.handover) != (header.chain_digest, header.handover_digest):
        tally.problem("chain or handover is not the one of the signed header")
    return tally.verdict()


def _party(entry: Message) -> str:
    """Whose log says so: who sent it, or whom it was for. Anybody else writes into its own log what it likes."""
    header = decode_header(entry.header, LIMITS)
    return header.sender if isinstance(entry, Sent) else header.recipient


def _is_accepted(entry: Message) -> bool:
    return isinstance(entry, Sent) or entry.code == ACCEPTED


def _body(proof: MessageProof, entry: Message, header: Header) -> Verdict:
    salted = proof.salted_body
    if salted is None and isinstance(entry, Received) and entry.code != ACCEPTED and entry.body is None:
        return Verdict(None, reason="it was refused, and the body of what is refused is not kept")
    if salted is None:
        return Verdict(None, reason="the body is not shown")
    good = len(salted) == 32 + header.body_length and commit_body(salted[:32], salted[32:]) == header.body_commitment
    return Verdict(good, 1, [] if good else ["the body is not the one that the signed header commits to"])
