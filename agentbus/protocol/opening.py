"""Opening an envelope: the numbered steps from bytes to a verified message, cheapest first. Each raises.

::

    (2)  lengths, nothing left over          (8)  the sender is at this connection
    (3)  header canonical, types, bounds     (9)  key belongs to sender, purpose, window; nothing revoked
    (4)  recipient and instance are mine     (10) path → root → signature
    (5)  lifetime                            (11) body length, commitment, chain and handover digests
    (6)  not seen before                     (12) answers name an open exchange, and come from its other party
    (7)  Trust knows the sender's key        (13) the chain, its end at the sender, the handover

Steps 1 and 14-16 are the engine's. Nothing before (10) is charged to the *claimed* sender; an error raised after it
carries the authenticated header in ``about``, so that it can be answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from agentbus.crypto.cache import SignatureCache
from agentbus.crypto.keys import checked_key
from agentbus.crypto.merkle import leaf_hash, root_from_path
from agentbus.crypto.signing import Purpose, verify
from agentbus.delegation.chain import Authority, verify_chain, verify_handover
from agentbus.delegation.grant import chain_digest, decode_link
from agentbus.delegation.memory import Memory
from agentbus.delegation.messages import VerifiedMessage
from agentbus.delegation.statements import Instance
from agentbus.delegation.trust import NeedsTrust, Trust
from agentbus.errors import AgentBusError, BadSignature, Rejected
from agentbus.protocol.sealing import batch_body, commit_body
from agentbus.wire.frame import Envelope, Proof, decode_frame, decode_proof
from agentbus.wire.header import ANSWERING, OPENING, Flag, Header, Kind, decode_header
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS, Limits

CODES: Final = {
    "reject.recipient": "This message is for somebody else, or for an instance that is gone.",
    "reject.issued_in_future": "The message was issued more than 30 s ahead of this clock; set the sender's clock.",
    "reject.lifetime": "The deadline lies before the issue, or more than 10 minutes (a job: 7 days) after it.",
    "reject.expired": "The deadline has passed.",
    "reject.replay_flag": "A message of a replay run is not accepted live, nor a live one in a replay run.",
    "reject.sender_key": "The signing key is not an instance key of the sender it names, or not for envelopes.",
    "reject.connection": "The sender's instance is not at the connection this came over.",
    "reject.signature": "The batch signature does not verify.",
    "reject.body": "The body is not the one the header commits to.",
    "reject.chain_digest": "The chain is not the one the header commits to.",
    "reject.handover_digest": "The handover is not the one the header commits to.",
    "reject.no_exchange": "The message answers no exchange that is open here with its sender.",
    "reject.chain_not_senders": "The chain does not end at the sender.",
    "reject.handover": "The handover is not from the sender to the recipient.",
}


class Party(NamedTuple):
    """The other side of an open exchange, and which instance of mine holds it."""

    principal: str
    instance: bytes
    mine: bytes

    @property
    def handle(self) -> bytes:
        """What a revocation of the other side's instance names."""
        return f"{self.principal}#{self.instance.hex()}".encode()


Exchanges = Callable[[bytes, bool], Party | None]
"""(digest of the opening message, whether the message is an answer) → the exchange's other party, if it is known."""
Seen = Callable[[Header], bool]
"""Whether a message with this header was accepted before."""


class Read(NamedTuple):
    """A frame cut into its parts; nothing in them has been believed yet."""

    envelope: Envelope
    header: Header
    proof: Proof
    digest: bytes  # the message digest


def read_frame(data: bytes, limits: Limits = LIMITS) -> Read:
    """Steps 2 and 3: what a frame's bytes alone tell.

    Raises:
        Malformed: the first reason against it.
    """
    envelope = decode_frame(data, limits)  # (2)
    header = decode_header(envelope.header, limits)  # (3)
    proof = decode_proof(envelope.proof, limits)
    return Read(envelope, header, proof, leaf_hash(envelope.header))


def open_envelope(
    data: bytes | Read,
    *,
    me: Mapping[bytes, PrincipalId],
    trust: Trust,
    now: int,
    seen: Seen,
    exchanges: Exchanges,
    peer: bytes | None = None,
    limits: Limits = LIMITS,
    cache: SignatureCache | None = None,
    purpose: Purpose = Purpose.BATCH,
) -> VerifiedMessage:
    """Verify one frame, or raise the first reason against it.

    Args:
        data: The frame as it came, or what :func:`read_frame` made of it.
        me: My instance ids and whose they are.
        trust: Keys, states and revocations.
        now: Instant, microseconds.
        seen: The replay window, read only.
        exchanges: What is open here.
        peer: The CURVE key at the other end, where the transport knows it.
        purpose: BATCH, or REPLAY_BATCH in a replay run.

    Raises:
        Malformed: steps 2 and 3. Rejected: steps 4 to 13. NeedsTrust: fetch these instance keys and call again.
    """
    envelope, header, proof, digest = read_frame(data, limits) if isinstance(data, bytes) else data  # (2), (3)
    _require_recipient(header, me)  # (4)
    _require_lifetime(header, now, limits)  # (5)
    if seen(header):  # (6)
        raise Rejected("reject.replayed", "accepted before; a retry is a new message")
    sender = trust.instances.get(header.sender_key)  # (7)
    if sender is None:
        raise NeedsTrust([header.sender_key])
    if peer is not None and peer != sender.curve_key:  # (8)
        raise Rejected("reject.connection", f"{header.sender} is not at this connection")
    _require_sender_key(header, sender, trust, now, cache)  # (9)
    root = root_from_path(digest, proof.position, proof.n, proof.path)  # (10)
    signed = batch_body(header.sender_key, header.sender_instance, proof.n, root)
    if (header.flags & Flag.REPLAY != 0) != (purpose is Purpose.REPLAY_BATCH):
        raise Rejected("reject.replay_flag", "replay and live messages do not mix")
    try:
        (cache.verify if cache else verify)(checked_key(sender.key), purpose, signed, proof.signature)
    except BadSignature as error:
        raise Rejected("reject.signature", "the signature does not verify") from error
    try:
        _require_commitments(header, envelope)  # (11)
        _require_exchange(header, exchanges)  # (12)
        authority = judge_chain(header, envelope, trust, now, cache)  # (13)
        handover = judge_handover(header, envelope, authority, trust, now, cache)
    except AgentBusError as error:
        error.about = header
        error.digest = digest
        raise
    return VerifiedMessage(header, digest, authority, handover, sender, envelope.body, envelope)


def _require_recipient(header: Header, me: Mapping[bytes, PrincipalId]) -> None:
    mine = me.get(header.recipient_instance or b"")
    if mine is None or mine != header.recipient:
        raise Rejected("reject.recipient", f"no running instance of {header.recipient} here has this id")


def _require_lifetime(header: Header, now: int, limits: Limits) -> None:
    longest = limits.job_lifetime if header.kind == Kind.JOB else limits.lifetime
    if not 0 < header.deadline - header.issued_at <= longest:
        raise Rejected("reject.lifetime", "a message lives at most 10 minutes, a job 7 days")
    if header.issued_at > now + limits.skew:
        raise Rejected("reject.issued_in_future", "issued ahead of this clock; check the clocks of both machines")
    if header.deadline <= now:
        raise Rejected("reject.expired", "the deadline has passed")


def _require_sender_key(header: Header, sender: Instance, trust: Trust, now: int, cache: SignatureCache | None) -> None:
    if (
        sender.principal != header.sender
        or sender.instance_id != header.sender_instance
        or "envelope" not in sender.purposes
    ):
        raise Rejected("reject.sender_key", f"not a key of {header.sender} for envelopes")
    code = cache.refuses(sender, trust, now) if isinstance(cache, Memory) else trust.refuses(sender, now)
    if code is not None:
        raise Rejected(code, f"the key, instance or principal behind {header.sender} counts no more")


def _require_commitments(header: Header, envelope: Envelope) -> None:
    if header.body_length != len(envelope.body) or commit_body(envelope.salt, envelope.body) != header.body_commitment:
        raise Rejected("reject.body", "the body is not the one that was signed")
    if chain_digest(envelope.chain) != header.chain_digest:
        raise Rejected("reject.chain_digest", "the chain is not the one that was signed")
    expected = chain_digest(envelope.handover) if envelope.handover else None
    if expected != header.handover_digest:
        raise Rejected("reject.handover_digest", "the handover is not the one that was signed")


def _require_exchange(header: Header, exchanges: Exchanges) -> None:
    if header.kind in OPENING:
        return
    party = exchanges(header.in_reply_to or b"", header.kind in ANSWERING)
    if party is None or party != (header.sender, header.sender_instance, header.recipient_instance):
        raise Rejected("reject.no_exchange", "nothing that is open here was asked of this sender")


def judge_chain(header: Header, envelope: Envelope, trust: Trust, now: int, cache: SignatureCache | None) -> Authority:
    """(13) The chain of an envelope: good in itself, and ending at the sender that signed."""
    authority = verify_chain(envelope.chain, trust=trust, now=now, cache=cache)
    last = authority.links[-1].grant
    if last.audience != header.sender:
        raise Rejected("reject.chain_not_senders", f"it ends at {last.audience}, sent by {header.sender}")
    sender = trust.instances[header.sender_key]
    if last.audience_epoch != sender.epoch:
        raise Rejected("reject.epoch", "the chain ends at another epoch of the sender")
    if last.pinned_key is not None and last.pinned_key != sender.identity_key:
        raise Rejected("reject.pinned_key", "the chain pins another identity key of the sender")
    _require_conversation(authority, header)
    return authority


def judge_handover(
    header: Header,
    envelope: Envelope,
    authority: Authority,
    trust: Trust,
    now: int,
    cache: SignatureCache | None,
) -> Authority | None:
    """(13) The handover, where there is one: from the sender to the recipient, on top of the chain."""
    if not envelope.handover:
        return None
    link = decode_link(envelope.handover).grant
    if link.issuer != header.sender or link.audience != header.recipient or link.issuer_key != header.sender_key:
        raise Rejected("reject.handover", f"from {link.issuer} to {link.audience}")
    handed = verify_handover(envelope.handover, after=authority, trust=trust, now=now, cache=cache)
    _require_conversation(handed, header)
    return handed


def _require_conversation(authority: Authority, header: Header) -> None:
    for link in authority.links:
        if link.grant.conversation not in (None, header.conversation):
            raise Rejected("reject.conversation", f"link {link.grant.n} holds in another conversation")
