"""What a node puts on the record: every frame it sends, every frame whose signature verified, and a few of the others.

Bodies, chains and instance statements are blobs; an entry names them by digest, and a blob is put before its entry.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, Final

from agentbus.delegation.grant import decode_links
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError
from agentbus.log import entry
from agentbus.log.base import LogStore
from agentbus.protocol.sealing import Draft
from agentbus.wire.frame import Envelope, decode_frame
from agentbus.wire.header import Header, decode_header
from agentbus.wire.limits import LIMITS, SECOND

REJECTED_PER_SECOND: Final = 10


class Recorder:
    """The node's hand on its log.

    Args:
        log: Where entries go.
    """

    def __init__(self, log: LogStore) -> None:
        self.log = log
        self._known: OrderedDict[bytes, bytes] = OrderedDict()  # digest of chain or statement → blob's digest
        self._rejected: dict[bytes | None, tuple[int, int]] = {}

    def opened(self, now: int, *, node: str, domain: str, software: str) -> None:
        """The log goes on here."""
        self.log.append([entry.opened(self.log.size, now, node=node, domain=domain, software=software)])

    def closed(self, now: int) -> None:
        """A clean stop."""
        self.log.append([entry.closed(self.log.size, now)])

    def sent(self, frames: list[tuple[bytes | None, bytes, Draft]], trust: Trust, now: int) -> None:
        """One group of frames, before any of them leaves: (connection, frame, draft)."""
        size = self.log.size
        entries = []
        for at, (connection, frame, _) in enumerate(frames):
            envelope = decode_frame(frame, LIMITS)
            header = decode_header(envelope.header, LIMITS)
            entries.append(
                entry.sent(
                    size + at,
                    now,
                    connection=connection,
                    header=envelope.header,
                    proof=envelope.proof,
                    note=envelope.note,
                    **self._blobs(envelope, header, trust),
                )
            )
        self.log.append(entries)

    def unsent(self, digest: bytes, reason: str, now: int) -> None:
        """A frame of :meth:`sent` that could not go."""
        self.log.append([entry.unsent(self.log.size, now, digest=digest, reason=reason)])

    def step(self, digest: bytes, name: str, number: int, result: bytes, now: int) -> None:
        """A nondeterministic result that the handler of message ``digest`` took."""
        blob = self.log.put_blob(result)
        row = entry.step(self.log.size, now, digest=digest, name=name[:64], number=number, result=blob)
        self.log.append([row])

    def received(
        self, frame: bytes, header: Header, *, connection: bytes | None, code: str, trust: Trust, policy: str, now: int
    ) -> None:
        """A frame whose signature verified, with the verdict and what it was judged under."""
        envelope = decode_frame(frame, LIMITS)
        blobs = self._blobs(envelope, header, trust)
        self.log.append(
            [
                entry.received(
                    self.log.size,
                    now,
                    connection=connection,
                    header=envelope.header,
                    proof=envelope.proof,
                    note=envelope.note,
                    code=code,
                    directory_size=trust.size,
                    revocation_seq=trust.revocation_seq,
                    policy_version=policy,
                    **blobs,
                )
            ]
        )

    def rejected(self, frame: bytes, *, connection: bytes | None, code: str, now: int) -> None:
        """A frame that nobody's signature vouches for: at most ten a second for each connection."""
        second, count = self._rejected.get(connection, (0, 0))
        if now // SECOND != second:
            second, count = now // SECOND, 0
        self._rejected[connection] = (second, count + 1)
        if len(self._rejected) > 4096:
            self._rejected.clear()
        if count < REJECTED_PER_SECOND:
            digest = hashlib.sha256(frame).digest()
            self.log.append(
                [entry.rejected(self.log.size, now, connection=connection, code=code, digest=digest, sample=frame)]
            )

    def _blobs(self, envelope: Envelope, header: Header, trust: Trust) -> dict[str, Any]:
        return {
            "statement": self._statement(header.sender_key, trust),
            "body": self.log.put_blob(envelope.salt + envelope.body),
            "chain": self._chain(envelope.chain, trust),
            "handover": self.log.put_blob(envelope.handover) if envelope.handover else None,
        }

    def _statement(self, key_id: bytes, trust: Trust) -> bytes:
        known = self._known.get(key_id)
        if known is None:
            known = self._remember(key_id, self.log.put_blob(trust.statements.get(key_id, b"")))
        return known

    def _chain(self, chain: bytes, trust: Trust) -> bytes:
        """A chain, and the statements of the instances that issued its links: an auditor needs both."""
        digest = hashlib.sha256(chain).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._remember(digest, self.log.put_blob(chain))
            try:
                for link in decode_links(chain)[1:]:
                    if link.grant.issuer_key in trust.statements:
                        self._statement(link.grant.issuer_key, trust)
            except AgentBusError:
                pass  # an unreadable chain is recorded as it came, and judged so again
        return known

    def _remember(self, key: bytes, digest: bytes) -> bytes:
        self._known[key] = digest
        if len(self._known) > 8192:
            self._known.popitem(last=False)
        return digest
