"""What a node puts on the record: every frame it sends, every frame whose signature verified, and a few of the others.

Chains and instance statements are blobs, bodies and results of steps are boxes, which can be erased; an entry names
them by digest, and both are put before the entry.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from agentbus.delegation.grant import decode_links
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError, LogError
from agentbus.log import entry
from agentbus.log.base import LogStore
from agentbus.log.entry import Outcome, StepKind
from agentbus.protocol.engine import Ready
from agentbus.wire.frame import Envelope
from agentbus.wire.limits import SECOND

REJECTED_PER_SECOND: Final = 10

_Waiting = tuple[Callable[..., bytes], int, bytes | None, dict[str, Any]]
"""What makes an entry of its position and its instant, these, the body to be boxed, and the rest of its parts."""


class Recorder:
    """The node's hand on its log. What comes in one tick of the loop is written together.

    Args:
        log: Where entries go.
    """

    def __init__(self, log: LogStore) -> None:
        self.log = log
        self.failed: LogError | None = None
        """Why nothing can be put on the record any more; then nothing is acknowledged, either."""
        self.on_failure: Callable[[LogError], None] = lambda error: None
        self._pending: list[_Waiting] = []
        self._known: OrderedDict[bytes, bytes] = OrderedDict()  # digest of chain or statement → blob's digest
        self._rejected: dict[bytes | None, tuple[int, int]] = {}

    @property
    def pending(self) -> bool:
        """Whether something waits for :meth:`flush`."""
        return bool(self._pending)

    def flush(self) -> None:
        """Put on the record what waits: before any of it is acted on, and before any frame leaves.

        Raises:
            LogError: the log takes nothing more; :attr:`on_failure` has been told.
        """
        if self._pending:
            waiting, self._pending = self._pending, []
            try:
                self.log.append(self._written(waiting))
            except LogError as error:
                self.fail(error)
                raise

    def flush_soon(self) -> None:
        """:meth:`flush`, where nobody could catch what it raises."""
        with suppress(LogError):
            self.flush()

    def fail(self, error: LogError) -> None:
        """The log has failed: say so once."""
        if self.failed is None:
            self.failed = error
            self.on_failure(error)

    def _add(self, build: Callable[..., bytes], now: int, body: bytes | None = None, **parts: Any) -> None:
        """An entry of the next flush; ``body`` is boxed there, together with all others."""
        self._pending.append((build, now, body, parts))

    def _written(self, waiting: list[_Waiting]) -> list[bytes]:
        """The entries that wait, each with its position and the name of its box."""
        boxes = iter(self.log.put_boxes([body for _, _, body, _ in waiting if body is not None]))
        entries = []
        for position, (build, now, body, parts) in enumerate(waiting, self.log.size):
            if body is not None or build is entry.received:  # the one kind that may have none
                parts["body"] = next(boxes) if body is not None else None
            entries.append(build(position, now, **parts))
        return entries

    def opened(self, now: int, *, node: str, domain: str, software: str) -> None:
        """The log goes on here."""
        previous = self.log.previous if not self.log.size and not self._pending else None
        self._add(entry.opened, now, node=node, domain=domain, software=software, previous=previous)
        self.flush()

    def closed(self, now: int) -> None:
        """A clean stop."""
        for connection in list(self._rejected):
            self._dropped(connection, now)
        self._add(entry.closed, now)
        self.flush()

    def sent(self, frames: list[Ready], trust: Trust, now: int) -> None:
        """One group of frames, on the record when this returns: before any of them leaves."""
        for ready in frames:
            draft = ready.draft
            self._add(
                entry.sent,
                now,
                draft.salt + draft.body,
                connection=ready.route.peer,
                header=draft.header,
                proof=ready.proof,
                statement=self._statement(ready.sender_key, trust),
                chain=self._chain(draft.chain, trust),
                handover=self.log.put_blob(draft.handover) if draft.handover else None,
                note=ready.note,
            )
        self.flush()

    def unsent(self, digest: bytes, reason: str, now: int) -> None:
        """A frame of :meth:`sent` that could not go."""
        self._add(entry.unsent, now, digest=digest, reason=reason)
        self.flush()

    def step(
        self,
        digest: bytes,
        step: StepKind,
        name: str,
        *,
        number: int,
        began: int,
        now: int,
        given: bytes | None = None,
        outcome: Outcome = Outcome.RESULT,
        result: bytes | None = None,
    ) -> None:
        """What the handler of message ``digest`` took through its context.

        It waits for a flush, and no frame leaves without one: so whatever depends on it comes after it.
        """
        box = self.log.put_box(result) if result is not None else None
        self._add(
            entry.step, now, digest=digest, step=step, name=name, given=given, number=number, began=began,
            outcome=outcome, result=box,
        )  # fmt: skip

    def received(
        self, envelope: Envelope, sender_key: bytes, *, connection: bytes | None, code: str, trust: Trust, policy: str,
        now: int,
    ) -> None:  # fmt: skip
        """An envelope whose signature verified, with the verdict and what it was judged under; waits for a flush.

        The body of what was refused is not kept: who may say nothing here would choose what fills this disk. The
        header's commitment to it stays, which its sender is held to.
        """
        self._add(
            entry.received,
            now,
            envelope.salt + envelope.body if code == entry.ACCEPTED else None,
            connection=connection,
            header=envelope.header,
            proof=envelope.proof,
            statement=self._statement(sender_key, trust),
            chain=self._chain(envelope.chain, trust),
            handover=self.log.put_blob(envelope.handover) if envelope.handover else None,
            note=envelope.note,
            code=code,
            directory_size=trust.size,
            revocation_seq=trust.revocation_seq,
            policy_version=policy,
        )

    def unanswered(self, digest: bytes, code: str, now: int) -> None:
        """A message of this node whose time is over, or whose recipient is gone, and to which no answer came."""
        self._add(entry.receipt, now, digest=digest, receipt=None, code=code)
        self.flush_soon()

    def failed_by(self, error: bytes, *, of: bytes, code: str, now: int) -> None:
        """An error that was just recorded answers a message of this node; waits for a flush.

        Args:
            error: The error's message digest.
            of: The digest of the message it answers.
            code: What it says, which its body says too: but a body may be erased.
        """
        self._add(entry.receipt, now, digest=of, receipt=error, code=code)

    def peer_checkpoint(self, note: bytes, *, connection: bytes | None, now: int) -> None:
        """A note of another node's log, whose signature verified; waits for a flush."""
        self._add(entry.peer_checkpoint, now, connection=connection, note=note)

    def redaction(self, commitment: bytes, *, authority: str, reason: str, now: int) -> None:
        """A body is about to be erased here: put on the record at once, and made durable by who calls, before it is."""
        self._add(entry.redaction, now, commitment=commitment, authority=authority, reason=reason)
        self.flush()

    def rejected(self, frame: bytes, *, connection: bytes | None, code: str, now: int) -> None:
        """A frame that nobody's signature vouches for: ten a second for each connection, and the number of the rest."""
        second, count = self._rejected.get(connection, (0, 0))
        if now // SECOND != second:
            self._dropped(connection, now)
            second, count = now // SECOND, 0
        self._rejected[connection] = (second, count + 1)
        if count < REJECTED_PER_SECOND:
            digest = hashlib.sha256(frame).digest()
            self._add(entry.rejected, now, connection=connection, code=code, digest=digest, sample=frame)
            self.flush()
        if len(self._rejected) > 4096:
            for other in list(self._rejected):
                self._dropped(other, now)

    def _dropped(self, connection: bytes | None, now: int) -> None:
        """Put on the record how many more frames than were kept a connection sent in its last second."""
        _, count = self._rejected.pop(connection, (0, 0))
        if count > REJECTED_PER_SECOND:
            more = count - REJECTED_PER_SECOND
            self._add(entry.dropped, now, connection=connection, count=more)
            self.flush()

    def _statement(self, key_id: bytes, trust: Trust) -> bytes:
        known = self._known.get(key_id)
        if known is None:
            known = self._remember(key_id, self.log.put_blob(trust.statements.get(key_id, b"")))
        return known

    def _chain(self, chain: bytes, trust: Trust) -> bytes:
        """A chain, and the statements of the instances that issued its links: an auditor needs both."""
        known = self._known.get(chain)
        if known is None:
            known = self._remember(chain, self.log.put_blob(chain))
            with suppress(AgentBusError):  # an unreadable chain is recorded as it came, and judged so again
                for link in decode_links(chain)[1:]:
                    if link.grant.issuer_key in trust.statements:
                        self._statement(link.grant.issuer_key, trust)
        return known

    def _remember(self, key: bytes, digest: bytes) -> bytes:
        self._known[key] = digest
        if len(self._known) > 4096:
            self._known.popitem(last=False)
        return digest
