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
from typing import Any, Final, Literal

from agentbus.crypto.keys import VerifyKey, check_curve_key, thumbprint
from agentbus.crypto.merkle import Frontier, leaf_hash
from agentbus.crypto.note import open_checkpoint
from agentbus.crypto.signing import Purpose, verify
from agentbus.delegation.scope import Scope, decode_scopes
from agentbus.delegation.statements import (
    INSTANCE,
    KEY_EVENT,
    MAX_INSTANCE_WINDOW,
    ROLES,
    Instance,
    KeyEvent,
    Revocation,
    Signed,
    decode_signed,
    directory_origin,
)
from agentbus.errors import BadSignature, InvalidKey, Malformed, Rejected, Unavailable
from agentbus.wire.ids import PrincipalId, b64, parse_id
from agentbus.wire.limits import LIMITS, SECOND

CODES: Final = {
    "reject.wrong_root": "The trust domain's root key is not the one pinned in the bus URL.",
    "reject.statement_signer": "A statement is signed by a key that may not say this.",
    "reject.statement_signature": "A statement's signature does not verify.",
    "reject.statement_order": "A key event is not the next one of the directory's log.",
    "reject.statement_invalid": "A statement contradicts what the directory's log says so far.",
    "reject.head_forked": "A signed head disagrees with the log this node folded: the directory shows two histories.",
    "unavailable.directory_behind": "The directory's log grew and this node has not seen the new entries yet.",
}

KeyState = Literal["active", "retiring", "retired", "tainted", "compromised", "revoked"]
KEY_MOVES: Final[Mapping[str, frozenset[str]]] = {
    "active": frozenset({"retiring", "retired", "tainted", "compromised"}),
    "retiring": frozenset({"retired", "tainted", "compromised"}),
    "tainted": frozenset({"retired", "compromised"}),
    "retired": frozenset({"compromised"}),
    "compromised": frozenset(),
    "revoked": frozenset(),
}
"""What may become of an identity key: never better than it was. ``revoked`` is a revocation's business."""
USABLE: Final = frozenset({"active", "retiring", "tainted"})
"""States under which a key still verifies."""


@dataclass(frozen=True, slots=True)
class Principal:
    """What the directory says of an agent, user or service."""

    id: PrincipalId
    state: str  # pending, active, suspended, retired or revoked
    epoch: int
    owner: str
    purpose: str
    ceiling: tuple[Scope, ...]
    may_talk_to: tuple[str, ...]
    rights: tuple[Scope, ...] | None  # a user's; None means everything, and only for user records
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """An identity key's record; it is never removed."""

    key: VerifyKey
    principal: PrincipalId
    epoch: int
    curve_key: bytes
    state: KeyState
    since: int  # the instant of the state


@dataclass(frozen=True, slots=True)
class OnlineKey:
    """One of the directory's four online keys."""

    key: VerifyKey
    role: str
    retired: bool = False


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
    principals: Mapping[str, Principal] = field(default_factory=dict)
    keys: Mapping[bytes, IdentityKey] = field(default_factory=dict)
    curve_keys: Mapping[bytes, PrincipalId] = field(default_factory=dict)
    revoked: Mapping[tuple[str, bytes], Revocation] = field(default_factory=dict)
    instances: Mapping[bytes, Instance] = field(default_factory=dict)  # by instance key id
    statements: Mapping[bytes, bytes] = field(default_factory=dict)  # the same, as they were signed
    head: Head | None = None
    checked_at: int | None = None  # monotonic instant at which the newest answered poll was sent
    checked_head: int = -1  # the instant in that poll's answer: the same answer twice is a replay, not news
    last_instant: int = 0
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
            Rejected: ``reject.statement_*``, ``reject.wrong_root``.
        """
        fold = _Fold(self)
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

    def _open_head(self, note: bytes) -> Head:
        for online in self.online.values():
            if online.role != "head" or online.retired:
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
        mine = [i for i in self.instances.values() if i.principal == who and self.refuses(i, now) is None]
        return sorted(mine, key=lambda i: i.not_before, reverse=True)

    def refuses(self, instance: Instance, now: int) -> str | None:
        """Why a known instance must not be relied on at ``now``; None when nothing speaks against it."""
        if not instance.not_before - LIMITS.skew <= now < instance.not_after:
            return "reject.key_expired"
        if self.is_revoked("instance", instance.handle) or self.is_revoked("key", thumbprint(instance.key)):
            return "reject.revoked"
        key = self.keys.get(instance.identity_key)
        if key is None or key.state not in USABLE or key.principal != instance.principal:
            return "reject.revoked"
        if self.is_revoked("key", instance.identity_key):
            return "reject.revoked"
        if key.epoch != instance.epoch:
            return "reject.epoch"
        return self.refuses_principal(instance.principal, instance.epoch)

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

    def consent_key(self, key_id: bytes) -> VerifyKey | None:
        """The directory's consent key of this id, while it is current."""
        online = self.online.get(key_id)
        return online.key if online and online.role == "consent" and not online.retired else None

    def without_instance(self, key_id: bytes) -> Trust:
        """The snapshot without one instance: it ended, and its statement is presence, not history."""
        return replace(
            self,
            instances={k: v for k, v in self.instances.items() if k != key_id},
            statements={k: v for k, v in self.statements.items() if k != key_id},
        )


class _Fold:
    """The mutable side of :meth:`Trust.advance`: one entry after the other, every rule before any change."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self.domain = trust.domain
        self.size = trust.size
        self.revocation_seq = trust.revocation_seq
        self.max_age = trust.max_age
        self.root_key = trust.root_key
        self.last_instant = trust.last_instant
        self.online = dict(trust.online)
        self.principals = dict(trust.principals)
        self.keys = dict(trust.keys)
        self.curve_keys = dict(trust.curve_keys)
        self.revoked = dict(trust.revoked)
        self.instances = dict(trust.instances)
        self.statements = dict(trust.statements)
        self.frontier = trust.frontier.copy()

    def freeze(self) -> Trust:
        return replace(
            self.trust,
            domain=self.domain,
            size=self.size,
            revocation_seq=self.revocation_seq,
            max_age=self.max_age,
            root_key=self.root_key,
            online=self.online,
            principals=self.principals,
            keys=self.keys,
            curve_keys=self.curve_keys,
            revoked=self.revoked,
            instances=self.instances,
            statements=self.statements,
            last_instant=self.last_instant,
            frontier=self.frontier,
        )

    def add(self, data: bytes, now: int) -> None:
        signed = decode_signed(data)
        if signed.tag == INSTANCE:
            self._instance(signed, data, now)
            return
        entry = KeyEvent.decode(signed.body) if signed.tag == KEY_EVENT else Revocation.decode(signed.body)
        if entry.seq != self.size:
            raise Rejected("reject.statement_order", f"entry {entry.seq} where {self.size} is next")
        if entry.instant < self.last_instant:
            raise Rejected("reject.statement_invalid", "an entry is older than the one before it")
        if isinstance(entry, KeyEvent):
            self._verify_event(signed, entry)
            try:
                _EVENTS[entry.kind](self, entry)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                if isinstance(error, Malformed | InvalidKey):
                    raise
                raise Malformed("malformed.statement", f"no payload of a {entry.kind[:32]!r} event") from error
        else:
            self._require_domain(entry.domain)
            self._verify_by_identity(signed)
            self._revocation(entry)
        self.size += 1
        self.last_instant = entry.instant
        self.frontier.append(leaf_hash(data))

    # ── who may sign what ────────────────────────────────────────────────────────────────────────────────────────

    def _verify_event(self, signed: Signed, event: KeyEvent) -> None:
        if event.seq == 0:
            self._first(signed, event)
            return
        self._require_domain(event.domain)
        if event.kind in ("online", "online-retired", "domain"):
            if self.root_key is None or signed.key_id != self.root_key.id:
                raise Rejected("reject.statement_signer", "only the root key introduces or ends online keys")
            _check(signed, self.root_key)
        else:
            self._verify_by_identity(signed)

    def _first(self, signed: Signed, event: KeyEvent) -> None:
        if event.kind != "domain" or not event.payload or type(event.payload[0]) is not bytes:
            raise Malformed("malformed.statement", "the first entry names the trust domain and its root key")
        key = VerifyKey(event.payload[0])
        if key.id != self.trust.root:
            raise Rejected("reject.wrong_root", f"root key {b64(key.id)}, pinned is {b64(self.trust.root)}")
        if signed.key_id != key.id:
            raise Rejected("reject.statement_signer", "the first entry is signed by the root key")
        _check(signed, key)
        self.root_key, self.domain = key, event.domain

    def _verify_by_identity(self, signed: Signed) -> None:
        online = self.online.get(signed.key_id)
        if online is None or online.role != "identity" or online.retired:
            raise Rejected("reject.statement_signer", "not signed by a current identity key of the directory")
        _check(signed, online.key)

    def _require_domain(self, domain: str) -> None:
        if domain != self.domain:
            raise Rejected("reject.statement_invalid", f"an entry of {domain[:80]!r} in the log of {self.domain!r}")

    # ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _domain(self, event: KeyEvent) -> None:
        raw, max_age = event.payload
        if self.root_key is None or raw != self.root_key.raw:
            raise Rejected("reject.wrong_root", "a trust domain keeps its root key")
        if not 5 * SECOND <= max_age <= 300 * SECOND:
            raise Rejected("reject.statement_invalid", "max_directory_age is 5 to 300 seconds")
        self.max_age = max_age

    def _online(self, event: KeyEvent) -> None:
        (raw,) = event.payload
        key = VerifyKey(raw)
        if event.subject not in ROLES or key.id in self.online or key.id in self.keys or key == self.root_key:
            raise Rejected("reject.statement_invalid", "no such role, or a key that had one before")
        self.online[key.id] = OnlineKey(key, event.subject)

    def _online_retired(self, event: KeyEvent) -> None:
        (key_id,) = event.payload
        self.online[key_id] = replace(self.online[key_id], retired=True)

    def _create(self, event: KeyEvent) -> None:
        who = parse_id(event.subject)
        if who in self.principals or who.domain != self.domain or ("principal", who.encode()) in self.revoked:
            raise Rejected("reject.statement_invalid", f"{who} exists, or is of another trust domain")
        self.principals[who] = _record(who, "pending", 0, event.payload)

    def _amend(self, event: KeyEvent) -> None:
        old = self.principals[event.subject]
        self.principals[event.subject] = _record(old.id, old.state, old.epoch, event.payload)

    def _key(self, event: KeyEvent) -> None:
        raw, curve_key, epoch = event.payload[:3]
        key, record = VerifyKey(raw), self.principals[event.subject]
        check_curve_key(curve_key)
        if key.id in self.keys or curve_key in self.curve_keys:
            raise Rejected("reject.statement_invalid", "an identity or CURVE key was seen before")
        online = self.online.get(key.id)
        other = key == self.root_key or (online is not None and online.role != "identity")
        if other or key.id in self.instances or ("key", key.id) in self.revoked:
            raise Rejected("reject.statement_invalid", "this key has another purpose, or was revoked")
        if record.state in ("retired", "revoked") or type(epoch) is not int or epoch != max(record.epoch, 1):
            raise Rejected("reject.statement_invalid", f"{event.subject} takes no key of epoch {epoch}")
        self.keys[key.id] = IdentityKey(key, record.id, epoch, curve_key, "active", event.instant)
        self.curve_keys[curve_key] = record.id
        state = "active" if record.state == "pending" else record.state
        self.principals[event.subject] = replace(record, state=state, epoch=epoch)

    def _key_state(self, event: KeyEvent) -> None:
        key_id, state, since = event.payload
        old = self.keys[key_id]
        if old.principal != event.subject or state not in KEY_MOVES[old.state] or type(since) is not int:
            raise Rejected("reject.statement_invalid", "this key cannot take this state")
        self.keys[key_id] = replace(old, state=state, since=since)

    def _state(self, event: KeyEvent) -> None:
        (state,) = event.payload
        old = self.principals[event.subject]
        if state not in ("active", "suspended", "retired") or old.state in ("retired", "revoked", "pending"):
            raise Rejected("reject.statement_invalid", f"{old.state} does not become {state!r}")
        self.principals[event.subject] = replace(old, state=state)

    def _epoch(self, event: KeyEvent) -> None:
        (epoch,) = event.payload
        old = self.principals[event.subject]
        if type(epoch) is not int or epoch != old.epoch + 1:
            raise Rejected("reject.statement_invalid", "an epoch grows by one")
        self.principals[event.subject] = replace(old, epoch=epoch)

    def _time(self, event: KeyEvent) -> None:
        (_random,) = event.payload

    def _revocation(self, entry: Revocation) -> None:
        if entry.number != self.revocation_seq + 1:
            raise Rejected("reject.statement_order", "revocations are numbered without a gap")
        if (entry.kind, entry.id) in self.revoked:
            raise Rejected("reject.statement_invalid", "this was revoked before")
        self.revocation_seq = entry.number
        self.revoked[(entry.kind, entry.id)] = entry
        if entry.kind == "principal":
            who = entry.id.decode("utf-8", "replace")
            if who in self.principals:
                self.principals[who] = replace(self.principals[who], state="revoked")
        elif entry.kind == "key" and entry.id in self.keys:
            self.keys[entry.id] = replace(self.keys[entry.id], state="revoked", since=entry.effective_at)

    # ── presence ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _instance(self, signed: Signed, data: bytes, now: int) -> None:
        """An instance statement: signed by a current identity key, countersigned by the key it introduces."""
        instance = Instance.decode(signed.body)
        identity = self.keys.get(instance.identity_key)
        if identity is None or signed.key_id != instance.identity_key or identity.principal != instance.principal:
            raise Rejected("reject.statement_signer", "not signed by an identity key of the principal it names")
        if identity.epoch != instance.epoch:
            raise Rejected("reject.statement_signer", "an identity key speaks for its own epoch only")
        _check(signed, identity.key)
        key = VerifyKey(instance.key)
        try:
            verify(key, Purpose.INSTANCE_POSSESSION, signed.body, signed.possession)
        except BadSignature as error:
            raise Rejected("reject.statement_signature", "the instance key did not countersign") from error
        window = instance.not_after - instance.not_before
        if not 0 < window <= MAX_INSTANCE_WINDOW or instance.not_before > now + LIMITS.skew:
            raise Rejected("reject.statement_invalid", "an instance key lives at most an hour, from now on")
        if instance.curve_key not in self.curve_keys:
            raise Rejected("reject.statement_invalid", "the CURVE key of the node is not enrolled")
        known = self.instances.get(key.id)
        if known is not None and known[:4] != instance[:4]:
            raise Rejected("reject.statement_invalid", "this instance key belongs to another instance")
        taken = (thumbprint(instance.log_key), key.id)
        if any(k in self.keys or k in self.online or k == self.trust.root for k in taken) or taken[0] == taken[1]:
            raise Rejected("reject.statement_invalid", "an instance key signs envelopes and grants, and nothing else")
        if known is None or instance.not_before >= known.not_before:  # an older statement takes nothing back
            self.instances[key.id] = instance
            self.statements[key.id] = data


def _record(who: PrincipalId, state: str, epoch: int, payload: list[Any]) -> Principal:
    owner, purpose, ceiling, may_talk_to, rights, tags = payload
    lists = type(may_talk_to) is list and type(tags) is list
    if not lists or type(owner) is not str or any(type(t) is not str for t in (purpose, *may_talk_to, *tags)):
        raise Malformed("malformed.statement", "a record's owner, purpose, targets and tags are texts")
    if rights == "all":
        if who.kind != "user":
            raise Malformed("malformed.statement", "'all' stands in a user's rights only")
        held: tuple[Scope, ...] | None = None
    else:
        held = decode_scopes(rights)
    return Principal(who, state, epoch, owner, purpose, decode_scopes(ceiling), tuple(may_talk_to), held, tuple(tags))


def _check(signed: Signed, key: VerifyKey) -> None:
    try:
        signed.verify(key)
    except BadSignature as error:
        raise Rejected("reject.statement_signature", "a statement's signature does not verify") from error


_EVENTS: Final = {
    "domain": _Fold._domain,
    "online": _Fold._online,
    "online-retired": _Fold._online_retired,
    "create": _Fold._create,
    "amend": _Fold._amend,
    "key": _Fold._key,
    "key-state": _Fold._key_state,
    "state": _Fold._state,
    "epoch": _Fold._epoch,
    "time": _Fold._time,
}
"""What each kind of key event does. A kind that is not here is refused: an unknown rule must not be skipped."""
