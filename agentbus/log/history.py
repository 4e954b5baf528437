"""The directory as it was: the snapshot at every size that somebody judged under, folded by ``Trust.advance`` alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from agentbus.crypto.keys import checked_key, thumbprint
from agentbus.delegation.statements import INSTANCE, Instance, decode_signed
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError
from agentbus.log.checkpoint import parse_origin, read_checkpoint, verify_checkpoint
from agentbus.log.index import STATEMENT
from agentbus.wire.limits import LIMITS

_SNAPSHOTS: Final = 128  # a snapshot copies the directory's tables; logs name sizes in nearly ascending order


class History:
    """A directory's log, folded from the pinned root.

    Args:
        events: The log's encoded statements, in order.
        root: The pinned thumbprint of the root key.
    """

    def __init__(self, events: Sequence[bytes], root: bytes) -> None:
        self._events = [event for event in events if not event.startswith(STATEMENT)]  # presence is no entry
        self._start = Trust.pinned(root)
        self.problem: str | None = None
        self.full = self._fold_all()
        self._snapshots: OrderedDict[int, Trust] = OrderedDict()

    def _fold_all(self) -> Trust:
        try:
            return self._start.advance(self._events, now=0)
        except AgentBusError:
            pass  # again, one by one, to keep what is good and to say where it ends
        trust = self._start
        for at, event in enumerate(self._events):
            try:
                trust = trust.advance(event, now=0)
            except AgentBusError as error:
                self.problem = f"the directory's log is good up to entry {at} only: {error}"
                break
        return trust

    def at(self, size: int) -> Trust | None:
        """The snapshot after ``size`` entries, with what :meth:`remember` added; None where the log here is shorter."""
        if size > self.full.size or size < 0:
            return None
        trust = self._snapshots.get(size)
        if trust is None:
            below = max((known for known in self._snapshots if known < size), default=0)
            trust = self._snapshots[below] if below else self._start
            trust = trust.advance(self._events[below:size], now=0)
            self.remember(size, trust)
        self._snapshots.move_to_end(size)
        return trust

    def remember(self, size: int, trust: Trust) -> None:
        """Keep a snapshot of ``size``: the same entries, further instance statements."""
        self._snapshots[size] = trust
        if len(self._snapshots) > _SNAPSHOTS:
            self._snapshots.popitem(last=False)


class Statements:
    """The instance statements found beside a log: those that an identity key of the directory signed.

    Whether that key, or the principal, *counted* at some moment is not said here.
    """

    def __init__(self, blobs: Iterable[tuple[bytes, bytes]], history: History) -> None:
        self._history = history
        self._data: dict[bytes, bytes] = {}
        self._by_digest: dict[bytes, Instance] = {}
        self._by_instance: dict[tuple[str, bytes], Instance] = {}
        self._by_key: dict[bytes, list[bytes]] = {}
        self.add(blobs)

    def add(self, blobs: Iterable[tuple[bytes, bytes]]) -> None:
        """Take what else was found, each with its digest; what is no good statement is left out."""
        for digest, data in blobs:
            self._add(digest, data)

    def _add(self, digest: bytes, data: bytes) -> None:
        try:
            signed = decode_signed(data)
            if signed.tag != INSTANCE:
                return
            instance = Instance.decode(signed.body)
            self._history.full.advance(data, now=instance.not_before)
        except AgentBusError:
            return
        self._data[digest] = data
        self._by_digest[digest] = instance
        self._by_instance[(instance.principal, instance.instance_id)] = instance
        self._by_key.setdefault(thumbprint(instance.key), []).append(digest)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._by_digest.values())

    def get(self, digest: bytes) -> Instance | None:
        """The statement of this digest, if it is one and good."""
        return self._by_digest.get(digest)

    def of_instance(self, principal: str, instance_id: bytes | None) -> Instance | None:
        """A statement about this instance of this principal: its own word for its node and log key."""
        return self._by_instance.get((principal, instance_id)) if instance_id is not None else None

    def of_key(self, key_id: bytes, instant: int) -> bytes | None:
        """The digest of a statement about this instance key, best one whose window holds ``instant``."""
        digests = self._by_key.get(key_id, [])
        fit = [d for d in digests if self._holds(d, instant)] or digests
        return max(fit, key=lambda d: self._by_digest[d].not_before, default=None)

    def of_log(self, note: bytes, party: str) -> bytes | None:
        """The digest of a statement whose node and log key signed this checkpoint; None where there is none.

        One of ``party`` rather than one of another principal of the node.
        """
        found = list(self._signers(note))
        return next((one for one in found if self._by_digest[one].principal == party), found[0] if found else None)

    def keepers(self, note: bytes) -> tuple[str, ...]:
        """The principals whose statements name the node and the log key that signed this checkpoint."""
        return tuple(sorted({self._by_digest[one].principal for one in self._signers(note)}))

    def _signers(self, note: bytes) -> Iterator[bytes]:
        said = read_checkpoint(note)
        node = parse_origin(said.origin).node
        good: dict[bytes, bool] = {}
        for digest, instance in self._by_digest.items():
            if instance.node != node:
                continue
            if instance.log_key not in good:
                try:
                    verify_checkpoint(note, said.origin, checked_key(instance.log_key))
                    good[instance.log_key] = True
                except AgentBusError:
                    good[instance.log_key] = False
            if good[instance.log_key]:
                yield digest

    def _holds(self, digest: bytes, instant: int) -> bool:
        instance = self._by_digest[digest]
        return instance.not_before - LIMITS.skew <= instant < instance.not_after

    def trust_at(self, size: int, digests: Iterable[bytes], instant: int) -> Trust | None:
        """The directory at ``size`` with these statements in it, as whoever judged had them; None: the log is shorter.

        Raises:
            Malformed, Rejected: a statement was not acceptable at that size.
        """
        trust = self._history.at(size)
        if trust is None:
            return None
        for digest in digests:
            instance = self._by_digest[digest]
            if trust.instances.get(thumbprint(instance.key)) != instance:
                trust = trust.advance(self._data[digest], now=max(instant, instance.not_before))
                self._history.remember(size, trust)
        return trust
