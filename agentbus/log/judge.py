"""Judging one logged message again: AUTHENTIC, KEY-VALID, AUTHORISED, each on its own.

Each question is asked even where another one was answered with no, but a message without a good instance statement has
no key to ask about: it is not AUTHENTIC, and the other two are not asked.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

from agentbus.crypto.keys import thumbprint
from agentbus.delegation.chain import Authority, holds_between
from agentbus.delegation.grant import target_within
from agentbus.delegation.memory import Memory
from agentbus.delegation.statements import Instance
from agentbus.delegation.trust import NeedsTrust, Trust
from agentbus.errors import AgentBusError, Rejected
from agentbus.log.batches import Signer
from agentbus.log.entry import ACCEPTED, Message, Received, Sent
from agentbus.log.history import History, Statements
from agentbus.log.report import Tally, Verdict

# The very functions of step 13: a copy of them here could come to judge otherwise than they did live.
from agentbus.protocol.opening import judge_chain, judge_handover
from agentbus.wire.frame import Envelope
from agentbus.wire.header import OPENING, Header
from agentbus.wire.limits import LIMITS

_SENT: Final = itemgetter(*map(Sent._fields.index, ("kind", "statement", "chain", "handover", "connection")))
_RECEIVED: Final = itemgetter(
    *map(
        Received._fields.index,
        ("kind", "statement", "chain", "handover", "connection", "code", "directory_size", "revocation_seq"),
    )
)
_HEADER: Final = itemgetter(
    *map(
        Header._fields.index,
        (
            "kind", "sender", "sender_instance", "sender_key", "recipient", "recipient_instance", "chain_digest",
            "handover_digest", "directory_size", "revocation_seq", "flags",
        ),
    )
)  # fmt: skip

CODES: Final = {
    "reject.back_dated": "The log dates a message to before the directory's entries that it was judged under.",
}


class Blobs(Protocol):
    """What keeps chains and handovers by their digests."""

    def blob(self, digest: bytes) -> bytes | None: ...


class Span(NamedTuple):
    """How far a good verdict on one message goes: to all of its flow that are dated into it, for the same reasons."""

    start: int
    end: int
    conversation: bytes | None  # the only one that its chain or handover holds in
    signer: Signer


def flow_of(entry: Message, header: Header) -> Hashable:
    """All of a message that KEY-VALID and AUTHORISED rest on, but for its instant and its conversation.

    Messages that are alike in it, within one log and one directory, differ in nothing else that is looked at.
    """
    return (_SENT if isinstance(entry, Sent) else _RECEIVED)(entry), _HEADER(header)


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
        self._signers: dict[tuple[bytes, bytes, bytes, int], Signer] = {}
        self._alike = 0
        self._authentic, self._key_valid, self._authorised = Tally(), Tally(), Tally()

    def take(self) -> dict[str, Tally]:
        """What was found since :meth:`begin`."""
        found = {"AUTHENTIC": self._authentic, "KEY-VALID": self._key_valid, "AUTHORISED": self._authorised}
        for tally in found.values():
            tally.checked += self._alike
        self._alike = 0
        return found

    def alike(self, messages: Sequence[tuple[Message, Header, bytes, Signer]]) -> None:
        """Judge further messages of flows, and within the spans, of others that were found good.

        Args:
            messages: Entry, header, the leaf hash of the header's bytes, and what :meth:`message` gave. Of all
                that is judged, only the signature is a message's own.
        """
        self._alike += len(messages)
        for entry, header, digest, signer in messages:
            try:
                signer.verify(entry.proof, digest)
            except AgentBusError as error:
                self._authentic.problem(f"{where(entry, header)}: {error}")

    def message(self, entry: Message, header: Header, digest: bytes) -> Span | None:
        """Judge one message.

        Args:
            entry: The entry.
            header: Its header.
            digest: The leaf hash of the header's bytes.

        Returns:
            Where it was accepted and is KEY-VALID and AUTHORISED: how far that goes.
        """
        self._authentic.checked += 1
        sender = self._statements.get(entry.statement)
        if sender is None:
            self._authentic.problem(
                f"{where(entry, header)}: no instance statement beside the log that {header.sender} signed"
            )
            return None
        named = (sender.principal, sender.instance_id, thumbprint(sender.key))
        if named != (header.sender, header.sender_instance, header.sender_key):
            self._authentic.problem(
                f"{where(entry, header)}: the instance statement is not about the key that the header names"
            )
            return None
        for_envelopes = "envelope" in sender.purposes
        signer = self._signer(header, sender)
        try:
            if not for_envelopes:
                raise Rejected("reject.sender_key", "the instance statement says that the key is not for envelopes")
            signer.verify(entry.proof, digest)
        except AgentBusError as error:
            self._authentic.problem(f"{where(entry, header)}: {error}")
        if isinstance(entry, Received) and entry.code != ACCEPTED:
            return None  # it was refused: authentic and no more is what the log says of it
        size, revocations = _judged_under(entry, header)
        key = chain = None
        self._key_valid.checked += 1
        try:
            trust = self._statements.trust_at(size, [entry.statement], entry.instant)
            if trust is None:
                self._key_valid.problem(
                    f"{where(entry, header)}: judged under {size} entries of the directory, whose log ends before"
                )
                return None
            key = self._check_key(entry, sender, trust, revocations)
        except AgentBusError as error:
            self._key_valid.problem(f"{where(entry, header)}: {error}")
        self._authorised.checked += 1
        try:
            chain = self._check_chain(entry, header, size)
        except AgentBusError as error:
            self._authorised.problem(f"{where(entry, header)}: {error}")
        return _span(key, chain, signer) if key is not None and chain is not None and for_envelopes else None

    def _signer(self, header: Header, sender: Instance) -> Signer:
        what = (sender.key, header.sender_key, header.sender_instance, header.flags)
        known = self._signers.get(what)
        if known is None:
            known = self._signers[what] = Signer(*what, self._cache)
        return known

    def _check_key(self, entry: Message, sender: Instance, trust: Trust, revocations: int) -> tuple[int, int]:
        """The key counted under the directory of then, and nothing said later takes it back to before that instant.

        Returns:
            The instants, from the first on and before the second, for which the same goes.
        """
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
        start = max(trust.last_instant, sender.not_before) - LIMITS.skew
        end = trust.holds_until(sender)
        return start, end if stolen is None else min(end, stolen)

    def _check_chain(self, entry: Message, header: Header, size: int) -> tuple[Authority, Trust]:
        """Step 13 of opening, and the targets that ``decide`` looked at.

        Returns:
            What the message could rest on, with a handover's link where there is one, and under which snapshot.
        """
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
                handed = judge_handover(header, envelope, authority, trust, entry.instant, self._cache)
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
        return handed or authority, trust


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


def _span(key: tuple[int, int], chain: tuple[Authority, Trust], signer: Signer) -> Span:
    links = chain[0].links
    start, end = holds_between(links, chain[1])
    pinned = {link.grant.conversation for link in links} - {None}
    return Span(max(key[0], start), min(key[1], end), pinned.pop() if pinned else None, signer)


def _judged_under(entry: Message, header: Header) -> tuple[int, int]:
    """Directory size and revocation seq: the receiver's for what came, what the header names for what was sent."""
    if isinstance(entry, Received):
        return entry.directory_size, entry.revocation_seq
    return header.directory_size, header.revocation_seq
