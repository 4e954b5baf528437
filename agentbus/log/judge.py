"""Judging one logged message again: AUTHENTIC, KEY-VALID, AUTHORISED, each on its own.

Each question is asked even where another one was answered with no, but a message without a good instance statement has
no key to ask about: it is not AUTHENTIC, and the other two are not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from agentbus.crypto.keys import checked_key, thumbprint
from agentbus.crypto.merkle import leaf_hash, root_from_path
from agentbus.crypto.signing import Purpose
from agentbus.delegation.grant import target_within
from agentbus.delegation.memory import Memory
from agentbus.delegation.statements import Instance
from agentbus.delegation.trust import NeedsTrust, Trust
from agentbus.errors import AgentBusError, Rejected
from agentbus.log.entry import ACCEPTED, Message, Received
from agentbus.log.history import History, Statements
from agentbus.log.report import Tally, Verdict

# The very functions of step 13: a copy of them here could come to judge otherwise than they did live.
from agentbus.protocol.opening import judge_chain, judge_handover
from agentbus.protocol.sealing import batch_body
from agentbus.wire.frame import Envelope, decode_proof
from agentbus.wire.header import OPENING, Flag, Header
from agentbus.wire.limits import LIMITS

CODES: Final = {
    "reject.back_dated": "The log dates a message to before the directory's entries that it was judged under.",
}


class Blobs(Protocol):
    """What keeps chains and handovers by their digests."""

    def blob(self, digest: bytes) -> bytes | None: ...


class Judge:
    """Answers three of the questions about every message of one log."""

    def __init__(self, log: Blobs, history: History, statements: Statements) -> None:
        self._log = log
        self._history = history
        self._statements = statements
        self._cache = Memory()
        self.begin()

    def begin(self) -> None:
        """Count from nothing again."""
        self._authentic, self._key_valid, self._authorised = Tally(), Tally(), Tally()

    def take(self) -> dict[str, Tally]:
        """What was found since :meth:`begin`."""
        return {"AUTHENTIC": self._authentic, "KEY-VALID": self._key_valid, "AUTHORISED": self._authorised}

    def message(self, entry: Message, header: Header) -> None:
        """Judge one message."""
        self._authentic.checked += 1
        sender = self._statements.get(entry.statement)
        if sender is None:
            self._authentic.problem(
                f"{where(entry, header)}: no instance statement beside the log that {header.sender} signed"
            )
            return
        named = (sender.principal, sender.instance_id, thumbprint(sender.key))
        if named != (header.sender, header.sender_instance, header.sender_key):
            self._authentic.problem(
                f"{where(entry, header)}: the instance statement is not about the key that the header names"
            )
            return
        try:
            self._check_signature(entry, header, sender)
        except AgentBusError as error:
            self._authentic.problem(f"{where(entry, header)}: {error}")
        if isinstance(entry, Received) and entry.code != ACCEPTED:
            return  # it was refused: authentic and no more is what the log says of it
        size, revocations = _judged_under(entry, header)
        self._key_valid.checked += 1
        try:
            trust = self._statements.trust_at(size, [entry.statement], entry.instant)
            if trust is None:
                self._key_valid.problem(
                    f"{where(entry, header)}: judged under {size} entries of the directory, whose log ends before"
                )
                return
            self._check_key(entry, sender, trust, revocations)
        except AgentBusError as error:
            self._key_valid.problem(f"{where(entry, header)}: {error}")
        self._authorised.checked += 1
        try:
            self._check_chain(entry, header, size)
        except AgentBusError as error:
            self._authorised.problem(f"{where(entry, header)}: {error}")

    def _check_signature(self, entry: Message, header: Header, sender: Instance) -> None:
        """Steps 9 (whose key) and 10 of opening."""
        if "envelope" not in sender.purposes:
            raise Rejected("reject.sender_key", "the instance statement says that the key is not for envelopes")
        proof = decode_proof(entry.proof, LIMITS)
        root = root_from_path(leaf_hash(entry.header), proof.position, proof.n, proof.path)
        signed = batch_body(header.sender_key, header.sender_instance, proof.n, root)
        purpose = Purpose.REPLAY_BATCH if header.flags & Flag.REPLAY else Purpose.BATCH
        self._cache.verify(checked_key(sender.key), purpose, signed, proof.signature)

    def _check_key(self, entry: Message, sender: Instance, trust: Trust, revocations: int) -> None:
        """The key counted under the directory of then, and nothing said later takes it back to before that instant."""
        if trust.last_instant > entry.instant + LIMITS.skew:
            raise Rejected(
                "reject.back_dated",
                "it was judged under entries of the directory that are younger than the instant it is dated to",
            )
        code = self._cache.refuses(sender, trust, entry.instant)
        if code is not None:
            raise Rejected(code, f"the key, instance or principal behind {sender.principal} did not count")
        if trust.revocation_seq != revocations:
            raise Rejected(
                "reject.statement_order",
                f"judged under {revocations} revocations, {trust.size} entries hold {trust.revocation_seq}",
            )
        if isinstance(entry, Received) and entry.connection not in (None, sender.curve_key):
            raise Rejected("reject.connection", f"{sender.principal} was not at the connection this came over")
        stolen = self._history.full.keys[sender.identity_key].stolen_since
        if stolen is not None and stolen <= entry.instant:
            raise Rejected("reject.revoked", f"the identity key of {sender.principal} was in other hands by then")

    def _check_chain(self, entry: Message, header: Header, size: int) -> None:
        """Step 13 of opening, and the targets that ``decide`` looked at."""
        chain = self._log.blob(entry.chain)
        handover = self._log.blob(entry.handover) if entry.handover is not None else b""
        if chain is None or handover is None:
            raise Rejected("reject.chain_digest", "chain or handover is not among the blobs")
        envelope = Envelope(entry.header, entry.proof, chain, handover, entry.note, b"", b"")
        digests = [entry.statement]
        while True:
            trust = self._statements.trust_at(size, digests, entry.instant)
            if trust is None:
                raise Rejected("reject.statement_order", "the directory's log here ends before that size")
            try:
                authority = judge_chain(header, envelope, trust, entry.instant, self._cache)
                judge_handover(header, envelope, authority, trust, entry.instant, self._cache)
                break
            except NeedsTrust as needs:
                found = [self._statements.of_key(key, entry.instant) for key in needs.keys]
                more = [digest for digest in found if digest is not None and digest not in digests]
                if len(more) < len(found):
                    raise Rejected("reject.grant_key", "a link's instance statement is not beside the log") from needs
                digests += more
        if isinstance(entry, Received) and header.kind in OPENING:
            for link in authority.links:
                if not target_within(link.grant.targets, header.recipient, trust.domain):
                    raise Rejected("denied.target", f"link {link.grant.n} does not name {header.recipient} as a target")


def verdicts_of(found: Mapping[str, Tally], history: History) -> dict[str, Verdict]:
    """The three verdicts; where the directory's own log is bad, nothing rests on it."""
    key_valid = Tally()
    if history.problem:
        key_valid.problem(history.problem)
    key_valid.add(found.get("KEY-VALID", Tally()))
    return {
        "AUTHENTIC": found.get("AUTHENTIC", Tally()).verdict(nothing="no messages"),
        "KEY-VALID": key_valid.verdict(nothing="no accepted messages"),
        "AUTHORISED": found.get("AUTHORISED", Tally()).verdict(nothing="no accepted messages"),
    }


def where(entry: Message, header: Header) -> str:
    """An entry, and the message and parties it is about."""
    sender, recipient = header.sender.rpartition("/")[2], header.recipient.rpartition("/")[2]
    return f"entry {entry.position} ({sender} → {recipient}, message {header.message_id.hex()[:12]})"


def _judged_under(entry: Message, header: Header) -> tuple[int, int]:
    """Directory size and revocation seq: the receiver's for what came, what the header names for what was sent."""
    if isinstance(entry, Received):
        return entry.directory_size, entry.revocation_seq
    return header.directory_size, header.revocation_seq
