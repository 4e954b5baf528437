"""Trust: an immutable snapshot of the directory, and the one function that moves it forward.

Rule 1: :meth:`Trust.advance` is the only way in, for nodes, for the directory itself and for an auditor years later.
Rule 2: it believes the pinned root key, and whatever that key's events lead to; never whoever carried a statement.
Rule 3: the log is folded in order and whole: entry n after entry n - 1. A gap is an error, so nothing can be withheld
from the middle, and the root over what was folded must be the one the head key signed.
Rule 4: silence is not consent: a head is good for ``max_directory_age`` after the poll it answers was sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentbus.crypto.keys import VerifyKey, thumbprint
from agentbus.crypto.merkle import Frontier
from agentbus.crypto.note import open_checkpoint
from agentbus.delegation.fold import Fold
from agentbus.delegation.outside import Consent, Issuer
from agentbus.delegation.overlay import Overlay
from agentbus.delegation.records import USABLE, IdentityKey, OnlineKey, Principal, stand_at
from agentbus.delegation.revoking import FOREVER
from agentbus.delegation.statements import Instance, Revocation, directory_origin
from agentbus.errors import BadSignature, Malformed, Rejected, Unavailable
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS, SECOND

CODES: Final = {
    "reject.head_forked": "A signed head disagrees with the log this node folded: the directory shows two histories.",
    "reject.key_unknown": "At that instant no such identity key was registered.",
    "unavailable.directory_behind": "The directory's log grew and this node has not seen the new entries yet.",
}


class NeedsTrust(Exception):
    """These instance keys are not known yet. The caller fetches their statements and tries again."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self.keys = frozenset(keys)
        super().__init__(f"{len(self.keys)} instance keys are unknown")


@dataclass(frozen=True, slots=True)
class Head:
    """A signed head of the directory's log that agreed with what was folded."""

    size: int
    root: bytes
    instant: int
    revocation_seq: int
    note: bytes


def _empty() -> Overlay[Any, Any]:
    return Overlay()


@dataclass(frozen=True, slots=True)
class Trust:
    """All that is known about who holds which key. Start with :meth:`pinned`, move on with :meth:`advance`."""

    root: bytes  # the pinned thumbprint of the root key
    domain: str = ""
    size: int = 0
    revocation_seq: int = 0
    max_age: int = 30 * SECOND
    root_key: VerifyKey | None = None
    online: Mapping[bytes, OnlineKey] = field(default_factory=dict)
    principals: Mapping[str, Principal] = field(default_factory=_empty)
    keys: Mapping[bytes, IdentityKey] = field(default_factory=_empty)
    curve_keys: Mapping[bytes, PrincipalId] = field(default_factory=_empty)
    nodes: Mapping[str, PrincipalId] = field(default_factory=_empty)  # whose the nodes of a name are, for good
    revoked: Mapping[tuple[str, bytes], Revocation] = field(default_factory=_empty)
    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    consents: Mapping[int, Consent] = field(default_factory=_empty)  # by index in the log, until they end
    forgettable: Mapping[bytes, int] = field(default_factory=_empty)  # revoked grants: when they expired by themselves
    instances: Mapping[bytes, Instance] = field(default_factory=_empty)  # by instance key id
    statements: Mapping[bytes, bytes] = field(default_factory=_empty)  # the same, as they were signed
    present: Mapping[str, tuple[bytes, ...]] = field(default_factory=_empty)  # instance key ids of each principal
    head: Head | None = None
    checked_at: int | None = None  # monotonic instant at which the newest answered poll was sent
    checked_head: int = -1  # the instant in that poll's answer: the same answer twice is a replay, not news
    last_instant: int = 0
    last_time: int = 0  # of the last TIME leaf: what names this size was made after it
    frontier: Frontier = field(default_factory=Frontier)

    @classmethod
    def pinned(cls, root: bytes) -> Trust:
        """Trust in nothing but the root key of this thumbprint (32 bytes)."""
        return cls(root=root)

    # ── forward ──────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, statements: bytes | Iterable[bytes], *, now: int) -> Trust:
        """The snapshot after these signed statements: log entries in order, instance statements in any.

        Args:
            statements: One encoded statement, or several; several cost one copy of the snapshot.
            now: Instant in microseconds; bounds instance windows.

        Raises:
            Malformed: ``malformed.statement``.
            Rejected: a code of :mod:`agentbus.delegation.fold` or ``reject.revoker``.
        """
        fold = Fold(self)
        for data in (statements,) if isinstance(statements, bytes) else statements:
            fold.add(data, now)
        return fold.freeze()

    def accept_head(self, note: bytes, *, sent_at: int | None = None) -> Trust:
        """The snapshot after a signed head.

        Args:
            note: The directory's checkpoint, a signed note with the lines ``instant`` and ``revocations``.
            sent_at: Monotonic instant at which the poll it answers was sent; None for a push, which extends nothing.

        Raises:
            Malformed: ``malformed.note``, ``malformed.statement``.
            Rejected: ``reject.statement_signature``, ``reject.head_forked``.
            Unavailable: ``unavailable.directory_behind`` when entries are missing here.
        """
        head = self._open_head(note)
        if head.size > self.size:
            raise Unavailable("unavailable.directory_behind", f"{head.size - self.size} entries of the log are missing")
        if head.size < self.size:
            return self  # older than what is folded here: says nothing new, extends nothing
        if head.root != self.frontier.root() or head.revocation_seq != self.revocation_seq:
            raise Rejected("reject.head_forked", f"two histories at size {head.size}", details={"size": head.size})
        old = self.head
        newest = head if old is None or old.size != head.size or old.instant <= head.instant else old
        if sent_at is None or head.instant <= self.checked_head:
            return replace(self, head=newest)
        checked = sent_at if self.checked_at is None else max(self.checked_at, sent_at)
        return replace(self, head=newest, checked_at=checked, checked_head=head.instant)

    def read_head(self, note: bytes) -> Head:
        """What a head says that the directory signed, whether or not it agrees with what was folded here.

        Raises:
            Malformed: ``malformed.note``, ``malformed.statement``. Rejected: ``reject.statement_signature``.
        """
        return self._open_head(note)

    def _open_head(self, note: bytes) -> Head:
        for online in self.online.values():
            if online.role != "head" or online.retired_at is not None:
                continue
            try:
                checkpoint = open_checkpoint(note, directory_origin(self.domain), online.key)
            except BadSignature:
                continue
            lines = checkpoint.extensions
            shape = len(lines) == 2 and lines[0].startswith("instant ") and lines[1].startswith("revocations ")
            numbers = [line.rpartition(" ")[2] for line in lines] if shape else []
            if len(numbers) != 2 or any(not n.isascii() or not n.isdigit() or len(n) > 19 for n in numbers):
                raise Malformed("malformed.statement", "a head has the lines 'instant' and 'revocations'")
            return Head(checkpoint.size, checkpoint.root, int(numbers[0]), int(numbers[1]), note)
        raise Rejected("reject.statement_signature", "no current head key of this trust domain signed this head")

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def age(self, mono: int) -> int | None:
        """Microseconds since the newest answered poll was sent; None when none was."""
        return None if self.checked_at is None else max(0, mono - self.checked_at)

    def principal(self, who: str) -> Principal | None:
        """The record of ``who``, in any state."""
        return self.principals.get(who)

    def is_revoked(self, kind: str, handle: bytes) -> bool:
        """Whether this grant, instance, key or principal was revoked."""
        return (kind, handle) in self.revoked

    def instances_of(self, who: str, now: int) -> list[Instance]:
        """The known, current, unrevoked instances of a principal, newest first."""
        known = [self.instances[key] for key in self.present.get(who, ())]
        return sorted((i for i in known if self.refuses(i, now) is None), key=lambda i: i.not_before, reverse=True)

    def refuses(self, instance: Instance, now: int) -> str | None:
        """Why a known instance must not be relied on at ``now``; None when nothing speaks against it."""
        if not instance.not_before - LIMITS.skew <= now < instance.not_after:
            return "reject.key_expired"
        if self.is_revoked("instance", instance.handle) or self.is_revoked("key", thumbprint(instance.key)):
            return "reject.revoked"
        key = self.keys.get(instance.identity_key)
        if key is None or key.state not in USABLE or key.principal != instance.principal:
            return "reject.revoked"
        if now >= self.key_until(instance.identity_key):
            return "reject.key_expired"
        if self.is_revoked("key", instance.identity_key):
            return "reject.revoked"
        if key.epoch != instance.epoch:
            return "reject.epoch"
        return self.refuses_principal(instance.principal, instance.epoch)

    def key_until(self, key_id: bytes) -> int:
        """When an identity key or an online key stops counting by what is known now: a rotation says so ahead."""
        identity, online = self.keys.get(key_id), self.online.get(key_id)
        ends = (identity.ends if identity else None, online.retired_at if online else None)
        return min((end for end in ends if end is not None), default=FOREVER)

    def holds_until(self, instance: Instance) -> int:
        """When an instance stops counting by itself: its own window, or that of the key that introduced it."""
        return min(instance.not_after, self.key_until(instance.identity_key))

    def refuses_principal(self, who: str, epoch: int) -> str | None:
        """Why a principal of this epoch must not be relied on; None when nothing speaks against it."""
        record = self.principals.get(who)
        if record is None:
            return "reject.unknown_principal"
        if record.state == "revoked":
            return "reject.revoked"
        if record.state != "active":
            return "reject.not_active"
        if record.epoch != epoch:
            return "reject.epoch"
        return None

    def active_key(self, who: str) -> IdentityKey | None:
        """The one identity key of a principal that may sign something new: of its epoch, followed by no other."""
        record = self.principals.get(who)
        for key_id in reversed(record.keys) if record else ():
            key = self.keys[key_id]
            if key.state == "active" and record is not None and key.epoch == record.epoch:
                return key
        return None

    def admits(self, curve_key: bytes) -> bool:
        """Whether a CURVE key may connect: an active principal's, of its epoch, beside an identity key that counts."""
        record = self.principals.get(self.curve_keys.get(curve_key, ""))
        if record is None or record.state != "active":
            return False
        mine = (self.keys[key_id] for key_id in record.keys)
        return any(k.curve_key == curve_key and k.state in USABLE and k.epoch == record.epoch for k in mine)

    def closed_to(self, identity_key: bytes, instant: int, *, through_instance: bool) -> bool:
        """Whether what an identity key stands behind was made too late: under a key that was tainted or followed by
        another. An instance that a retiring key introduced goes on until the key's overlap ends.
        """
        key = self.keys.get(identity_key)
        if key is None or key.state == "active" or (through_instance and key.state == "retiring"):
            return False
        return not key.issues(instant if key.state == "tainted" else instant - LIMITS.skew)

    def consent_key(self, key_id: bytes, now: int) -> VerifyKey | None:
        """The directory's consent key of this id, while it counts."""
        online = self.online.get(key_id)
        good = online is not None and online.role == "consent" and online.counts(now)
        return online.key if good and online else None

    # ── questions about the past ─────────────────────────────────────────────────────────────────────────────────

    def key_state_at(self, key_id: bytes, at: int, *, known: int | None = None) -> str:
        """The state that an identity key had at an instant, by what the log had said at another.

        Args:
            key_id: The key's thumbprint.
            at: The instant asked about, microseconds.
            known: What the log had said by this instant; None: all of it.

        Returns:
            A key state, or ``unknown`` where it was not registered.
        """
        key = self.keys.get(key_id)
        return "unknown" if key is None else key.state_at(at, known)

    def refuses_key_at(self, key_id: bytes, at: int, *, known: int | None = None) -> str | None:
        """Why a signature of an identity key made at ``at`` does not count, by what was known at ``known``.

        Args:
            key_id: The key's thumbprint.
            at: When it was signed, as far as that can be proven; microseconds.
            known: What the log had said by this instant; None: all of it.

        Returns:
            A code, or None where the key counted.
        """
        state = self.key_state_at(key_id, at, known=known)
        if state == "unknown":
            return "reject.key_unknown"
        if state not in USABLE:
            return "reject.key_expired" if state in ("retired", "prepared") else "reject.revoked"
        key = self.keys[key_id]
        stand = stand_at(self.principals[key.principal].history, at, known)
        if stand is None or stand.state != "active":
            return "reject.revoked" if stand is not None and stand.state == "revoked" else "reject.not_active"
        return None if stand.epoch == key.epoch else "reject.epoch"

    # ── forgetting ───────────────────────────────────────────────────────────────────────────────────────────────

    def forget(self, now: int) -> Trust:
        """The snapshot without what has expired by itself: instances, and revocations of grants that are over.

        The log forgets nothing; a receiver need not remember what would be refused for its age.
        """
        over = [key for key, instance in self.instances.items() if instance.not_after + LIMITS.skew <= now]
        grants = [handle for handle, until in self.forgettable.items() if until + LIMITS.skew <= now]
        trust = self.without_instances(over) if over else self
        if not grants:
            return trust
        revoked, forgettable = Overlay.of(trust.revoked).draft(), Overlay.of(trust.forgettable).draft()
        for handle in grants:
            del revoked["grant", handle], forgettable[handle]
        return replace(trust, revoked=revoked.freeze(), forgettable=forgettable.freeze())

    def without_instances(self, key_ids: Iterable[bytes]) -> Trust:
        """The snapshot without these instances: they ended, and their statements are presence, not history."""
        instances, statements = Overlay.of(self.instances).draft(), Overlay.of(self.statements).draft()
        present = Overlay.of(self.present).draft()
        for key_id in key_ids:
            who = instances[key_id].principal
            present[who] = tuple(key for key in present.get(who, ()) if key != key_id)
            del instances[key_id], statements[key_id]
        return replace(self, instances=instances.freeze(), statements=statements.freeze(), present=present.freeze())
