"""The fold: what each signed entry of the directory's log does to a :class:`~agentbus.delegation.trust.Trust`.

Rule 1: every rule of an entry is asked before anything changes.
Rule 2: nothing is skipped: a kind that is not known here stops the fold.
Rule 3: what an entry proves is judged again here, whoever wrote it down: possession of a new key, both signatures of a
rotation, and that a revocation is its revoker's to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from agentbus.crypto.keys import VerifyKey, check_curve_key, thumbprint
from agentbus.crypto.merkle import leaf_hash
from agentbus.crypto.signing import Purpose, verify
from agentbus.delegation.outside import Consent, decode_consent, decode_issuer
from agentbus.delegation.overlay import Draft, Overlay
from agentbus.delegation.records import (
    KEY_MOVES,
    MAX_OVERLAP,
    IdentityKey,
    OnlineKey,
    Principal,
    Stand,
)
from agentbus.delegation.revoking import forget_at, judge_revocation
from agentbus.delegation.scope import Scope, decode_scopes
from agentbus.delegation.statements import (
    INSTANCE,
    KEY_EVENT,
    MAX_INSTANCE_WINDOW,
    ROLES,
    Instance,
    KeyEvent,
    Revocation,
    Rotation,
    Signed,
    decode_signed,
    directory_id,
    enrolment_transcript,
)
from agentbus.errors import BadSignature, InvalidKey, Malformed, Rejected
from agentbus.wire.codec import unpack_array
from agentbus.wire.ids import NODE_NAME, PrincipalId, b64, may_be_called, parse_id
from agentbus.wire.limits import LIMITS, SECOND

if TYPE_CHECKING:
    from agentbus.delegation.trust import Trust

CODES: Final = {
    "reject.wrong_root": "The trust domain's root key is not the one pinned in the bus URL.",
    "reject.statement_signer": "A statement is signed by a key that may not say this.",
    "reject.statement_signature": "A statement's signature does not verify.",
    "reject.statement_order": "A key event is not the next one of the directory's log.",
    "reject.statement_invalid": "A statement contradicts what the directory's log says so far.",
    "reject.possession": "A key's registration does not prove that its holder has the key.",
    "reject.rotation": "A rotation is not signed by both keys, is too old, or its old key has no right to a successor.",
    "reject.node_name": "An instance says that it lives in a node whose name belongs to another principal.",
    "reject.key_closed": "A key signed something new after its successor took over or it was tainted.",
}

PROOF_LIFE: Final = 60 * SECOND  # a proof of possession or rotation is good for so long


class Fold:
    """The mutable side of :meth:`Trust.advance`: one entry after the other, every rule before any change."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self.domain = trust.domain
        self.size = trust.size
        self.revocation_seq = trust.revocation_seq
        self.max_age = trust.max_age
        self.root_key = trust.root_key
        self.last_instant = trust.last_instant
        self.last_time = trust.last_time
        self.online = dict(trust.online)
        self.principals: Draft[str, Principal] = Overlay.of(trust.principals).draft()
        self.keys: Draft[bytes, IdentityKey] = Overlay.of(trust.keys).draft()
        self.curve_keys: Draft[bytes, PrincipalId] = Overlay.of(trust.curve_keys).draft()
        self.nodes: Draft[str, PrincipalId] = Overlay.of(trust.nodes).draft()
        self.revoked: Draft[tuple[str, bytes], Revocation] = Overlay.of(trust.revoked).draft()
        self.issuers = trust.issuers
        self.consents: Draft[int, Consent] = Overlay.of(trust.consents).draft()
        self.forgettable: Draft[bytes, int] = Overlay.of(trust.forgettable).draft()
        self.instances: Draft[bytes, Instance] = Overlay.of(trust.instances).draft()
        self.statements: Draft[bytes, bytes] = Overlay.of(trust.statements).draft()
        self.present: Draft[str, tuple[bytes, ...]] = Overlay.of(trust.present).draft()
        self.frontier = trust.frontier.copy()

    def freeze(self) -> Trust:
        """The snapshot after what was added."""
        return replace(
            self.trust,
            domain=self.domain,
            size=self.size,
            revocation_seq=self.revocation_seq,
            max_age=self.max_age,
            root_key=self.root_key,
            online=self.online,
            principals=self.principals.freeze(),
            keys=self.keys.freeze(),
            curve_keys=self.curve_keys.freeze(),
            nodes=self.nodes.freeze(),
            revoked=self.revoked.freeze(),
            issuers=self.issuers,
            consents=self.consents.freeze(),
            forgettable=self.forgettable.freeze(),
            instances=self.instances.freeze(),
            statements=self.statements.freeze(),
            present=self.present.freeze(),
            last_instant=self.last_instant,
            last_time=self.last_time,
            frontier=self.frontier,
        )

    def add(self, data: bytes, now: int) -> None:
        """Judge one encoded statement, and take it in.

        Raises:
            Malformed, InvalidKey, Rejected: nothing was changed by this statement.
        """
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
                EVENTS[entry.kind](self, entry)
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
            pinned = f"its root key is {b64(key.id)}, the pinned one {b64(self.trust.root)}"
            raise Rejected("reject.wrong_root", f"not the directory that is pinned: {pinned}; compare the bus URLs")
        if signed.key_id != key.id:
            raise Rejected("reject.statement_signer", "the first entry is signed by the root key")
        _check(signed, key)
        self.root_key, self.domain = key, event.domain

    def _verify_by_identity(self, signed: Signed) -> None:
        online = self.online.get(signed.key_id)
        if online is None or online.role != "identity" or online.retired_at is not None:
            raise Rejected("reject.statement_signer", "not signed by a current identity key of the directory")
        _check(signed, online.key)

    def _require_domain(self, domain: str) -> None:
        if domain != self.domain:
            raise Rejected("reject.statement_invalid", f"an entry of {domain[:80]!r} in the log of {self.domain!r}")

    # ── the trust domain ─────────────────────────────────────────────────────────────────────────────────────────

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
        key_id, at = event.payload
        old = self.online[key_id]
        late = old.role in ("identity", "head") and at != event.instant  # what they sign is never waited for
        if old.role != event.subject or type(at) is not int or at < event.instant or late:
            raise Rejected("reject.statement_invalid", "an online key ends under its role, now or later")
        if old.retired_at is not None and at >= old.retired_at:
            raise Rejected("reject.statement_invalid", "an online key ended before, and is never prolonged")
        self.online[key_id] = replace(old, retired_at=at)

    def _time(self, event: KeyEvent) -> None:
        (_random,) = event.payload
        self.last_time = event.instant

    # ── outsiders ────────────────────────────────────────────────────────────────────────────────────────────────

    def _issuer(self, event: KeyEvent) -> None:
        self.issuers = {**self.issuers, event.subject: decode_issuer(event.subject, event.payload)}

    def _consent(self, event: KeyEvent) -> None:
        consent = decode_consent(event.subject, event.payload)
        if consent.user not in self.principals or consent.holder not in self.principals:
            raise Rejected("reject.statement_invalid", "a consent of, or for, somebody who is not enrolled")
        for ended in [n for n, c in self.consents.items() if c.expires <= event.instant]:
            del self.consents[ended]
        self.consents[event.seq] = consent

    # ── principals ───────────────────────────────────────────────────────────────────────────────────────────────

    def _create(self, event: KeyEvent) -> None:
        who = parse_id(event.subject)
        if who in self.principals or who.domain != self.domain or ("principal", who.encode()) in self.revoked:
            raise Rejected("reject.statement_invalid", f"{who} exists, or is of another trust domain")
        self.principals[who] = self._standing(decode_record(who, event.payload), event, state="pending")

    def _amend(self, event: KeyEvent) -> None:
        old = self.principals[event.subject]
        made = decode_record(old.id, event.payload)
        self.principals[old.id] = replace(
            old, owner=made.owner, purpose=made.purpose, ceiling=made.ceiling, may_talk_to=made.may_talk_to,
            rights=made.rights, tags=made.tags,
        )  # fmt: skip

    def _node(self, event: KeyEvent) -> None:
        (name,) = event.payload
        owner = self.principals[event.subject]
        if not NODE_NAME.fullmatch(name) or not may_be_called(name, owner.id):
            raise Rejected("reject.statement_invalid", f"no name of a node of {owner.id.short}: {name[:80]!r}")
        if name in self.nodes or owner.state == "pending":
            raise Rejected("reject.statement_invalid", f"the node name {name[:80]!r} has an owner")
        self.nodes[name] = owner.id
        self.principals[owner.id] = replace(owner, nodes=(*owner.nodes, name))

    def _state(self, event: KeyEvent) -> None:
        (state,) = event.payload
        old = self.principals[event.subject]
        if state not in ("active", "suspended", "retired") or old.state in ("retired", "revoked"):
            raise Rejected("reject.statement_invalid", f"{old.state} does not become {state!r}")
        if old.state == "pending" and state != "retired":
            raise Rejected("reject.statement_invalid", f"{old.state} does not become {state!r}")
        self.principals[old.id] = self._standing(old, event, state=state)

    def _epoch(self, event: KeyEvent) -> None:
        (epoch,) = event.payload
        old = self.principals[event.subject]
        if type(epoch) is not int or epoch != old.epoch + 1 or old.state in ("retired", "revoked"):
            raise Rejected("reject.statement_invalid", "an epoch grows by one, and only of who still counts")
        self.principals[old.id] = self._standing(old, event, epoch=epoch)

    @staticmethod
    def _standing(
        old: Principal, entry: KeyEvent | Revocation, *, state: str = "", epoch: int | None = None, since: int = -1
    ) -> Principal:
        """The record with another state or epoch, which goes into its history."""
        state, epoch = state or old.state, old.epoch if epoch is None else epoch
        stand = Stand(state, epoch, entry.instant if since < 0 else since, entry.instant, entry.seq)
        return replace(old, state=state, epoch=epoch, history=(*old.history, stand))

    # ── identity keys ────────────────────────────────────────────────────────────────────────────────────────────

    def _key(self, event: KeyEvent) -> None:
        raw, curve_key, epoch, transcript, proof = event.payload
        key, record = VerifyKey(raw), self.principals[event.subject]
        check_curve_key(curve_key)
        self._require_unseen(key)
        mine = record.id == directory_id(self.domain) and key.id in self.online  # its CURVE key stands in the bus URL
        if curve_key in self.curve_keys and not (mine and self.curve_keys[curve_key] == record.id):
            raise Rejected("reject.statement_invalid", "a CURVE key was seen before")
        if record.state in ("retired", "revoked") or type(epoch) is not int or epoch != max(record.epoch, 1):
            raise Rejected("reject.statement_invalid", f"{event.subject} takes no key of epoch {epoch}")
        if any(self.keys[k].epoch == epoch and self.keys[k].state != "revoked" for k in record.keys):
            raise Rejected("reject.statement_invalid", f"{event.subject} has a key: a second comes by rotation")
        self._require_possession(event, key, curve_key, transcript, proof)
        self._register(event, key, curve_key, epoch, "active")
        self.curve_keys[curve_key] = record.id
        record = self.principals[record.id]
        if record.state == "pending" or record.epoch != epoch:
            state = "active" if record.state == "pending" else record.state
            self.principals[record.id] = self._standing(record, event, state=state, epoch=epoch)

    def _require_unseen(self, key: VerifyKey) -> None:
        online = self.online.get(key.id)
        other = key == self.root_key or (online is not None and online.role != "identity")
        if key.id in self.keys:
            raise Rejected("reject.statement_invalid", "an identity key was seen before")
        if other or ("key", key.id) in self.revoked:  # never presence, which is not the same everywhere
            raise Rejected("reject.statement_invalid", "this key has another purpose, or was revoked")

    def _require_possession(
        self, event: KeyEvent, key: VerifyKey, curve_key: bytes, transcript: bytes, proof: bytes
    ) -> None:
        """The new key signed who registers it, where and for what. The directory's own was introduced by the root."""
        if event.subject == directory_id(self.domain) and key.id in self.online:
            return
        try:
            row = unpack_array(transcript, 9)
        except Malformed as error:
            raise Rejected("reject.possession", "there is no transcript of the registration") from error
        expires = row[8]
        meant = type(row[1]) is bytes and type(expires) is int and transcript == enrolment_transcript(
            self.domain, event.subject, row[1], key.raw, curve_key, expires
        )  # fmt: skip
        if not meant or not event.instant - LIMITS.skew < expires <= event.instant + PROOF_LIFE + LIMITS.skew:
            raise Rejected("reject.possession", "the transcript is about another registration, or too old")
        try:
            verify(key, Purpose.POP, transcript, proof)
        except BadSignature as error:
            raise Rejected("reject.possession", "the new key did not sign the transcript") from error

    def _register(self, event: KeyEvent, key: VerifyKey, curve_key: bytes, epoch: int, state: Any) -> None:
        record = self.principals[event.subject]
        stand = Stand(state, epoch, event.instant, event.instant, event.seq)
        self.keys[key.id] = IdentityKey(key, record.id, epoch, curve_key, state, event.instant, history=(stand,))
        self.principals[record.id] = replace(record, keys=(*record.keys, key.id))
        instance = self.instances.get(key.id)
        if instance is not None:  # the log has the word: where a key had been an instance's, it is that no more
            present = self.present.get(instance.principal, ())
            self.present[instance.principal] = tuple(k for k in present if k != key.id)
            del self.instances[key.id], self.statements[key.id]

    def _rotate(self, event: KeyEvent) -> None:
        """A successor, signed by the old key and by itself: published first, or at once in use."""
        body, by_old, by_new = event.payload
        rotation = Rotation.decode(body)
        record, new = self.principals[event.subject], VerifyKey(rotation.new)
        old = self.keys.get(rotation.old)
        if (rotation.domain, rotation.principal) != (self.domain, record.id) or old is None:
            raise Rejected("reject.rotation", "it is about another principal or a key that is not known")
        if old.principal != record.id or old.state not in ("active", "tainted"):
            raise Rejected("reject.rotation", f"a key in state {old.state} has no right to a successor here")
        if record.state != "active" or not record.epoch == old.epoch == rotation.epoch:
            raise Rejected("reject.rotation", f"{record.id.short} is {record.state}, or that epoch was ended")
        if not event.instant - LIMITS.skew < rotation.expires <= event.instant + PROOF_LIFE + LIMITS.skew:
            raise Rejected("reject.rotation", "it was signed too long ago, or for too long")
        if not 0 <= rotation.overlap <= MAX_OVERLAP:
            raise Rejected("reject.rotation", "an overlap is at most seven days")
        try:
            verify(old.key, Purpose.ROTATION, body, by_old)
            verify(new, Purpose.ROTATION, body, by_new)
        except BadSignature as error:
            raise Rejected("reject.rotation", "it is not signed by both keys") from error
        prepared = self.keys.get(new.id)
        if prepared is None:
            self._require_unseen(new)
            state = "prepared" if rotation.step == "prepare" else "active"
            self._register(event, new, old.curve_key, old.epoch, state)
        elif rotation.step == "prepare" or (prepared.state, prepared.principal) != ("prepared", record.id):
            raise Rejected("reject.rotation", "nobody rotates to a key that was in use before")
        else:
            self._move(event, prepared, "active", event.instant)
        if rotation.step == "activate":
            state = "retiring" if old.state == "active" else old.state
            self._move(event, old, state, event.instant, until=event.instant + rotation.overlap)

    def _key_state(self, event: KeyEvent) -> None:
        key_id, state, since = event.payload
        old = self.keys[key_id]
        if old.principal != event.subject or state not in KEY_MOVES[old.state] or type(since) is not int:
            raise Rejected("reject.statement_invalid", "this key cannot take this state")
        if since > event.instant or (state != "compromised" and since != event.instant):
            raise Rejected("reject.statement_invalid", "only a compromise began at another time than it is said")
        if old.state == "compromised" and since >= old.since:
            raise Rejected("reject.statement_invalid", "a compromise is only ever found to have begun earlier")
        self._move(event, old, state, since)

    def _move(
        self, entry: KeyEvent | Revocation, old: IdentityKey, state: Any, since: int, *, until: int | None = None
    ) -> None:
        said = [Stand(state, old.epoch, since, entry.instant, entry.seq)]
        if until is not None:
            said.append(Stand("retired", old.epoch, until, entry.instant, entry.seq))  # said now of then
        self.keys[old.key.id] = replace(
            old, state=state, since=since, until=old.until if until is None else until, history=(*old.history, *said)
        )

    def _revocation(self, entry: Revocation) -> None:
        if entry.number != self.revocation_seq + 1:
            raise Rejected("reject.statement_order", "revocations are numbered without a gap")
        if (entry.kind, entry.id) in self.revoked:
            raise Rejected("reject.statement_invalid", "this was revoked before")
        judge_revocation(self, entry)
        self.revocation_seq = entry.number
        self.revoked[(entry.kind, entry.id)] = entry
        if entry.kind == "grant":
            self.forgettable[entry.id] = forget_at(entry)
        elif entry.kind == "principal":
            who = entry.id.decode("utf-8", "replace")
            if who in self.principals:
                old = self.principals[who]
                self.principals[who] = self._standing(old, entry, state="revoked", since=entry.effective_at)
        elif entry.kind == "key" and entry.id in self.keys:
            self._move(entry, self.keys[entry.id], "revoked", entry.effective_at)

    # ── presence ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _instance(self, signed: Signed, data: bytes, now: int) -> None:
        """An instance statement: signed by a current identity key, countersigned by the key it introduces."""
        instance = Instance.decode(signed.body)
        identity = self.keys.get(instance.identity_key)
        if identity is None or signed.key_id != instance.identity_key or identity.principal != instance.principal:
            raise Rejected("reject.statement_signer", "not signed by an identity key of the principal it names")
        if identity.epoch != instance.epoch:
            raise Rejected("reject.statement_signer", "an identity key speaks for its own epoch only")
        closed = identity.state in ("retiring", "tainted") and not identity.issues(instance.not_before - LIMITS.skew)
        if closed:  # of keys in worse states nothing counts live, and statements are evidence
            raise Rejected("reject.key_closed", f"a key that is {identity.state} introduces no new instance")
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
        owner = self.nodes.get(instance.node)
        if owner is not None and owner != self.curve_keys[instance.curve_key]:
            raise Rejected("reject.node_name", f"the node name {instance.node!r} belongs to {owner.short}")
        known = self.instances.get(key.id)
        if known is not None and known[:4] != instance[:4]:
            raise Rejected("reject.statement_invalid", "this instance key belongs to another instance")
        taken = (thumbprint(instance.log_key), key.id)
        if any(k in self.keys or k in self.online or k == self.trust.root for k in taken) or taken[0] == taken[1]:
            raise Rejected("reject.statement_invalid", "an instance key signs envelopes and grants, and nothing else")
        if known is None or instance.not_before >= known.not_before:  # an older statement takes nothing back
            self.instances[key.id] = instance
            self.statements[key.id] = data
        if known is None:
            self.present[instance.principal] = (*self.present.get(instance.principal, ()), key.id)


def decode_record(who: PrincipalId, payload: list[Any]) -> Principal:
    """A principal's record from a payload; its state and keys are the caller's business.

    Raises:
        Malformed: ``malformed.statement``, ``malformed.scope``.
    """
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
    return Principal(who, "pending", 0, owner, purpose, decode_scopes(ceiling), tuple(may_talk_to), held, tuple(tags))


def _check(signed: Signed, key: VerifyKey) -> None:
    try:
        signed.verify(key)
    except BadSignature as error:
        raise Rejected("reject.statement_signature", "a statement's signature does not verify") from error


EVENTS: Final[Mapping[str, Any]] = {
    "domain": Fold._domain,
    "online": Fold._online,
    "online-retired": Fold._online_retired,
    "create": Fold._create,
    "amend": Fold._amend,
    "key": Fold._key,
    "rotate": Fold._rotate,
    "key-state": Fold._key_state,
    "node": Fold._node,
    "state": Fold._state,
    "epoch": Fold._epoch,
    "time": Fold._time,
    "issuer": Fold._issuer,
    "consent": Fold._consent,
}
"""What each kind of key event does. A kind that is not here is refused: an unknown rule must not be skipped."""
