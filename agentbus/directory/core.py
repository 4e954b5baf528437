"""The directory's state machine: every change is a signed entry, folded by the same function as everywhere else.

Rule 1: an entry is first folded (and so judged by :meth:`Trust.advance`), then stored, then shown to anybody.
Rule 2: who may change what is in :mod:`agentbus.directory.rules`; this module only writes down what was permitted.
Rule 3: nothing here reads a clock or makes randomness: ``now`` and ids come in.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from agentbus.crypto.keys import CurveKey, SigningKey, VerifyKey
from agentbus.crypto.merkle import Tree, leaf_hash
from agentbus.crypto.note import Checkpoint, open_checkpoint, sign_note
from agentbus.crypto.signing import Purpose, sign, verify
from agentbus.delegation.records import Principal
from agentbus.delegation.revoking import is_operator
from agentbus.delegation.scope import Scope, encode_scopes, scopes
from agentbus.delegation.statements import (
    KeyEvent,
    Revocation,
    decode_signed,
    directory_id,
    directory_origin,
    enrolment_transcript,
)
from agentbus.delegation.trust import Trust
from agentbus.directory.presence import Presence
from agentbus.directory.store import Store
from agentbus.errors import AgentBusError, BadSignature, DirectoryRefused, Malformed, Rejected, Unavailable
from agentbus.wire.ids import PrincipalId, everyone
from agentbus.wire.limits import SECOND

CODES: Final = {
    "directory.name_taken": "A principal of this name exists; names are never given twice. Choose another.",
    "directory.unknown": "Nobody of this name is enrolled in the trust domain.",
    "directory.possession": "The enrolling party did not prove that it holds the new identity key.",
    "directory.token": "This enrolment token is unknown, used or expired; ask the operator for a new one.",
    "directory.quota": "One principal may revoke, or change, so much in an hour: everybody has to remember it.",
    "directory.already_revoked": "This was revoked before; a revocation is never undone or repeated.",
    "directory.enrolled": "This principal has an identity key; it gets another by rotation, or after its key was lost.",
    "directory.ended": "This principal is retired or revoked, and nothing brings it back.",
    "directory.must_rotate": "This identity key is tainted or was followed by another: nothing new is signed with it.",
    "directory.restored": "This directory was restored from an old backup; `agentbus directory recover` continues it.",
    "directory.key_seen": "This identity or CURVE key was seen before; make new keys.",
}

logger: Final = logging.getLogger("agentbus.directory")
QUOTA: Final = 1000  # revocations of one revoker in a window; each is kept by every node until its grant ends
QUOTA_WINDOW: Final = 3600 * SECOND
TOKEN_LIFE: Final = 600 * SECOND


@dataclass(frozen=True)
class OnlineKeys:
    """The directory's four online keys and its CURVE key; ``root`` may be kept apart once it has spoken."""

    identity: SigningKey
    head: SigningKey
    consent: SigningKey
    token: SigningKey
    curve: CurveKey

    @classmethod
    def make(cls, entropy: Callable[[int], bytes]) -> OnlineKeys:
        """New keys from random bytes.

        Args:
            entropy: So many bytes, random and secret.

        Returns:
            Five keys, each of its own bytes.
        """
        identity, head, consent, token = (SigningKey(entropy(32)) for _ in range(4))
        return cls(identity, head, consent, token, CurveKey(entropy(32)))


def prove_possession(key: SigningKey, transcript: bytes) -> bytes:
    """The proof for :meth:`Directory.enrol`."""
    return sign(key, Purpose.POP, transcript)


class Directory:
    """The directory of one trust domain.

    Args:
        store: Where the entries are.
        keys: The online keys.
        root: Thumbprint of the root key (32 bytes).
    """

    def __init__(self, store: Store, keys: OnlineKeys, root: bytes, *, now: int) -> None:
        self.store = store
        self.keys = keys
        self.trust = Trust.pinned(root).advance(store.entries(), now=now)
        self._last_head = 0
        self._tree = Tree()
        self.behind = 0  # the size of a larger log that this directory signed once
        self.presence = Presence(self)
        self._asked_by: dict[str, deque[int]] = {}  # the instants of the newest changes that each asked for
        self._revoked_by: dict[str, deque[int]] = {}  # the instants of the newest revocations of each revoker
        for entry in sorted(self.trust.revoked.values(), key=lambda entry: entry.number):
            self._revoked_by.setdefault(entry.revoker, deque(maxlen=QUOTA)).append(entry.instant)
        self.changed: Callable[[list[bytes]], None] = lambda entries: None

    @classmethod
    def create(
        cls, store: Store, keys: OnlineKeys, root: SigningKey, *, domain: str, now: int, max_age: int = 30 * SECOND
    ) -> Directory:
        """The first entries of a trust domain: the root key speaks, then the directory enrols itself.

        Args:
            store: An empty one.
            keys: The online keys that the root key introduces.
            root: The root key, which is needed for this only.
            domain: The trust domain's name.
            now: Instant, microseconds.
            max_age: How long a node goes on without hearing of the directory, microseconds; 5 to 300 s.

        Returns:
            The directory of these entries.

        Raises:
            Malformed, Rejected: the fold does not accept the domain or the age. LogError: they could not be kept.
        """
        events = [("domain", domain, [root.public.raw, max_age])]
        events += [
            (kind, role, [key.public.raw])
            for kind, role, key in (
                ("online", "identity", keys.identity),
                ("online", "head", keys.head),
                ("online", "consent", keys.consent),
                ("online", "token", keys.token),
            )
        ]
        entries = [
            KeyEvent(seq, now, domain, kind, subject, payload).signed_by(root).encode()
            for seq, (kind, subject, payload) in enumerate(events)
        ]
        Trust.pinned(root.id).advance(entries, now=now)
        store.append(0, entries)
        directory = cls(store, keys, root.id, now=now)
        me = directory_id(domain)
        directory.add_principal(me, now=now, owner="", may_talk_to=[everyone(domain)])
        directory.write(now, [("key", me, [keys.identity.public.raw, keys.curve.public, 1, b"", b""])])
        return directory

    def close(self) -> None:
        """Let go of the files."""
        self.store.close()
        self.presence.grants.close()

    def counts(self, keys: OnlineKeys) -> bool:
        """Whether the log says that these are the directory's current online keys."""
        signing = {"identity": keys.identity, "head": keys.head, "consent": keys.consent, "token": keys.token}
        known = {role: self.trust.online.get(key.id) for role, key in signing.items()}
        return all(
            online is not None and online.role == role and online.retired_at is None for role, online in known.items()
        )

    @property
    def domain(self) -> str:
        """The trust domain."""
        return self.trust.domain

    # ── people and agents ────────────────────────────────────────────────────────────────────────────────────────

    def add_principal(
        self,
        who: PrincipalId,
        *,
        now: int,
        owner: str,
        purpose: str = "",
        ceiling: Iterable[str | Scope] = (),
        may_talk_to: Sequence[str] = (),
        rights: Iterable[str | Scope] | None = (),
        tags: Sequence[str] = (),
    ) -> Principal:
        """Create a record, pending until it enrols.

        Args:
            who: Its full id; a name is given once.
            now: Instant, microseconds.
            owner: The id of who may change it, or empty: operators only.
            purpose: What it is for, for people.
            ceiling: The most that it may be granted.
            may_talk_to: The ids of those it may ask, groups included.
            rights: What it may grant as a user; None: everything.
            tags: Words by which it is found.

        Returns:
            The record.

        Raises:
            ProgrammingError, Malformed: a scope, an id or a tag is none.
            DirectoryRefused: ``directory.name_taken``.
        """
        taken = self.trust.principals.get(who)
        if taken is not None:
            todo = "choose another name"
            if taken.state == "pending":  # as after a command that was pasted twice
                todo = f"it has no key yet: `agentbus {who.kind} token {who.name}` makes another token"
            raise DirectoryRefused("directory.name_taken", f"{who.short} exists already; {todo}")
        payload = self._payload(owner, purpose, ceiling, may_talk_to, rights, tags)
        self.write(now, [("create", who, payload)])
        return self.trust.principals[who]

    def amend(self, who: PrincipalId, *, now: int, **changes: Any) -> Principal:
        """Change a record.

        Args:
            who: Whose.
            now: Instant, microseconds.
            changes: Any of owner, purpose, ceiling, may_talk_to, rights, tags; the others stay.

        Returns:
            The record as it is now.

        Raises:
            DirectoryRefused: ``directory.unknown``.
            ProgrammingError, Malformed: a scope, an id or a tag is none.
        """
        old = self.known(who)
        fields = {name: getattr(old, name) for name in ("owner", "purpose", "ceiling", "may_talk_to", "rights", "tags")}
        fields |= changes
        self.write(now, [("amend", who, self._payload(**fields))])
        return self.trust.principals[who]

    @staticmethod
    def _payload(owner: Any, purpose: Any, ceiling: Any, may_talk_to: Any, rights: Any, tags: Any) -> list[Any]:
        held: Any = "all" if rights is None else encode_scopes(scopes(rights))
        return [owner, purpose, encode_scopes(scopes(ceiling)), sorted(set(may_talk_to)), held, sorted(set(tags))]

    def enrol(
        self,
        who: PrincipalId,
        *,
        key: bytes,
        curve_key: bytes,
        transcript: bytes,
        proof: bytes,
        now: int,
        token: bytes | None = None,
    ) -> None:
        """Register an identity key whose holder proved possession over ``transcript``; a token is used up with it.

        Args:
            who: Whose key it becomes.
            key: Raw identity key.
            curve_key: Raw CURVE key, never seen before.
            transcript: What was signed (:func:`enrolment_transcript`).
            proof: The new key's signature over it.
            now: Instant, microseconds.
            token: The CURVE key of the enrolment token.

        Raises:
            DirectoryRefused: ``directory.unknown``, ``directory.possession``, ``directory.key_seen``,
                ``directory.enrolled``, ``directory.ended``, ``directory.token``.
            InvalidKey: the key is weak.
        """
        record = self.known(who)
        verify_key = VerifyKey(key)
        try:
            verify(verify_key, Purpose.POP, transcript, proof)
        except BadSignature as error:
            raise DirectoryRefused("directory.possession", "the transcript is not signed by the new key") from error
        if self.key_seen(verify_key.id) or curve_key in self.trust.curve_keys:
            raise DirectoryRefused("directory.key_seen", "this key was registered before; make new keys")
        self.require_alive(record)
        self.require_keyless(record)
        self.write(now, [("key", who, [key, curve_key, max(record.epoch, 1), transcript, proof])], token=token)
        self.store.cancel_tokens(who, now)  # others that were made for it, and not used

    def key_seen(self, key_id: bytes) -> bool:
        """Whether an identity key to be registered had a use before, as far as this directory knows presence, too."""
        return key_id in self.trust.keys or key_id in self.trust.instances

    def issue_token(self, who: PrincipalId, curve_key: bytes, *, now: int) -> int:
        """Remember a single-use enrolment token by its CURVE key.

        Args:
            who: Whom it enrols.
            curve_key: The token's.
            now: Instant, microseconds.

        Returns:
            When it expires.

        Raises:
            DirectoryRefused: ``directory.unknown``, ``directory.ended``.
        """
        self.require_alive(self.known(who))
        self.store.add_token(curve_key, who, now + TOKEN_LIFE)
        return now + TOKEN_LIFE

    def admits_token(self, curve_key: bytes, now: int) -> bool:
        """Whether an unused, unexpired enrolment token has this CURVE key."""
        found = self.store.token(curve_key)
        return found is not None and found[1] > now

    def enrol_by_token(
        self, token_key: bytes, *, who: str, key: bytes, curve_key: bytes, expires: int, proof: bytes, now: int
    ) -> None:
        """Enrolment over a token's own connection: the entry and the use of the token are one write, or none.

        Args:
            token_key: The CURVE key that the connection was opened under.
            who: Whom the token is for.
            key: Raw identity key.
            curve_key: Raw CURVE key for later.
            expires: Until when the proof counts, instant; at most 60 s from ``now``.
            proof: The new key's signature over all of this.
            now: Instant, microseconds.

        Raises:
            DirectoryRefused: ``directory.token``, ``directory.possession``, and whatever :meth:`enrol` raises.
            InvalidKey: a key is weak.
        """
        found = self.store.token(token_key)
        if found is None or found[1] <= now or found[0] != who:
            raise DirectoryRefused("directory.token", "the token is unknown, used, expired or for another name")
        if not now < expires <= now + 60 * SECOND:
            raise DirectoryRefused("directory.possession", "a proof of possession is good for at most 60 s")
        transcript = enrolment_transcript(self.domain, who, hashlib.sha256(token_key).digest(), key, curve_key, expires)
        self.enrol(
            PrincipalId(who), key=key, curve_key=curve_key, transcript=transcript, proof=proof, now=now,
            token=token_key,
        )  # fmt: skip

    def revoke(
        self, kind: str, handle: bytes, *, revoker: PrincipalId, reason: str, now: int, proof: bytes = b""
    ) -> Revocation:
        """Write down a revocation that the rules permitted.

        Args:
            kind: Of what: principal, key, instance, grant.
            handle: Which one.
            revoker: Who asks for it.
            reason: For people; cut at 256 characters.
            now: Instant, microseconds.
            proof: The chain by which the revoker is entitled to end a grant.

        Returns:
            The entry.

        Raises:
            DirectoryRefused: ``directory.already_revoked``, ``directory.quota``.
        """
        if self.trust.is_revoked(kind, handle):
            raise DirectoryRefused("directory.already_revoked", f"this {kind} was revoked before")
        mine = self._revoked_by.setdefault(revoker, deque(maxlen=QUOTA))
        limited = revoker != directory_id(self.domain) and not is_operator(self.trust.principals, revoker)
        if limited and len(mine) == QUOTA and now - mine[0] < QUOTA_WINDOW:
            raise DirectoryRefused(
                "directory.quota", f"{revoker.short} revoked {QUOTA} things within the hour; wait", retryable=True
            )
        entry = Revocation(
            self.trust.size, self.instant(now), self.domain, kind, handle, revoker, reason[:256], now,
            self.trust.revocation_seq + 1, proof,
        )  # fmt: skip
        self.append([entry.signed_by(self.keys.identity).encode()], now)
        mine.append(now)
        if kind == "principal":
            self.store.cancel_tokens(handle.decode(), now)
        return entry

    def charge(self, who: str, *, now: int) -> None:
        """Count a change that somebody asks for: each is an entry that everybody keeps for good.

        Args:
            who: The id of who asks; operators and the directory itself are not counted.
            now: Instant, microseconds.

        Raises:
            DirectoryRefused: ``directory.quota``.
        """
        if who == directory_id(self.domain) or is_operator(self.trust.principals, who):
            return
        mine = self._asked_by.setdefault(who, deque(maxlen=QUOTA))
        if len(mine) == QUOTA and now - mine[0] < QUOTA_WINDOW:
            short = self.trust.principals[who].id.short if who in self.trust.principals else who
            raise DirectoryRefused(
                "directory.quota", f"{short} asked for {QUOTA} changes within the hour; wait", retryable=True
            )
        mine.append(now)

    def time_leaf(self, entropy: bytes, *, now: int) -> None:
        """A TIME leaf, so that "after" has a meaning offline.

        Args:
            entropy: Random bytes that nobody knew before.
            now: Instant, microseconds.

        Raises:
            DirectoryRefused: ``directory.restored``. LogError: it could not be kept.
        """
        self.write(now, [("time", self.domain, [entropy])])

    # ── heads ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def shown(self, size: int, note: bytes, introduced: bytes = b"") -> None:
        """A node shows what it saw of this directory's log. Who signed more than it knows was restored from an old
        backup, and whatever it signed next would be a second history: it signs nothing until it was continued.

        Args:
            size: How many entries the node folded.
            note: The newest head it holds.
            introduced: The entry by which the root key introduced that head's key, for a directory that is older.

        Raises:
            DirectoryRefused: ``directory.restored``.
        """
        if size <= self.trust.size:
            return
        try:
            self.trust.accept_head(note)
        except Unavailable:
            self._fell_behind(size)  # a head of ours, of a larger log
        except AgentBusError:  # no head of ours that is known here; else this node alone is refused
            with suppress(AgentBusError, ValueError, IndexError, TypeError):
                self._fell_behind(self._size_under_later_key(note, introduced))
        raise DirectoryRefused("directory.restored", f"a node has seen {size} entries of this log of {self.trust.size}")

    def _size_under_later_key(self, note: bytes, introduced: bytes) -> int:
        """The size of a log under a head key that this log does not know, and yet the root key introduced."""
        signed = decode_signed(introduced)
        event = KeyEvent.decode(signed.body)
        if self.trust.root_key is None or (event.domain, event.kind, event.subject) != (self.domain, "online", "head"):
            raise Malformed("malformed.statement", "no entry that introduces a head key")
        signed.verify(self.trust.root_key)
        key = VerifyKey(event.payload[0])
        if key.id in self.trust.online:
            raise Malformed("malformed.statement", "a head key that is known here")
        return max(event.seq + 1, open_checkpoint(note, directory_origin(self.domain), key).size)

    def _fell_behind(self, size: int) -> None:
        if not self.behind:
            logger.error(
                "this log of %d entries once had %d: a backup was restored. Nothing is signed any more; stop, and"
                " continue it with `agentbus directory recover`", self.trust.size, size,
            )  # fmt: skip
        self.behind = max(self.behind, size)

    def require_whole(self) -> None:
        """Return when nobody has seen a larger log of this directory.

        Raises:
            DirectoryRefused: ``directory.restored``.
        """
        if self.behind:
            raise DirectoryRefused(
                "directory.restored", f"this log of {self.trust.size} entries once had {self.behind}; stop, and recover"
            )

    def head(self, now: int) -> bytes:
        """The signed head: the log's checkpoint with the lines ``instant`` and ``revocations``.

        Args:
            now: Instant, microseconds.

        Returns:
            A signed note, newer than every head before it.

        Raises:
            DirectoryRefused: ``directory.restored``.
        """
        self.require_whole()
        self._last_head = max(self.instant(now), self._last_head + 1)  # newer than any before, whatever the clock does
        origin = directory_origin(self.domain)
        lines = (f"instant {self._last_head}", f"revocations {self.trust.revocation_seq}")
        text = Checkpoint(origin, self.trust.size, self.trust.frontier.root(), lines).text
        return sign_note(text, origin, self.keys.head)

    # ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def tree(self) -> Tree:
        """The log's tree, for proofs; made when one is first asked for, and kept."""
        for entry in self.store.entries(len(self._tree)):
            self._tree.append(leaf_hash(entry))
        return self._tree

    def known(self, who: PrincipalId) -> Principal:
        """The record of ``who``.

        Raises:
            DirectoryRefused: ``directory.unknown``.
        """
        record = self.trust.principal(who)
        if record is None:
            raise DirectoryRefused("directory.unknown", f"{who.short} is not enrolled; create it first")
        return record

    def require_keyless(self, record: Principal) -> None:
        """Return when somebody has no key of the present epoch, tainted or not: enrolling is no way around rotation.

        Raises:
            DirectoryRefused: ``directory.enrolled``.
        """
        mine = (self.trust.keys[key] for key in record.keys)
        if any(key.epoch == max(record.epoch, 1) and key.state != "revoked" for key in mine):
            raise DirectoryRefused(
                "directory.enrolled", f"{record.id.short} has a key: rotate it, or end its epoch with rotate --lost-key"
            )

    def require_alive(self, record: Principal) -> None:
        """Return when somebody is neither retired nor revoked.

        Raises:
            DirectoryRefused: ``directory.ended``.
        """
        if record.state in ("retired", "revoked"):
            raise DirectoryRefused(
                "directory.ended", f"{record.id.short} is {record.state} for good; names are never given twice"
            )

    def instant(self, now: int) -> int:
        """Entries never go back in time, even when the clock does."""
        return max(now, self.trust.last_instant)

    def write(self, now: int, events: Sequence[tuple[str, str, list[Any]]], *, token: bytes | None = None) -> None:
        """Sign these (kind, subject, payload) and take them into the log, all or none.

        Args:
            now: Instant, microseconds.
            events: In their order.
            token: The CURVE key of an enrolment token that is used up with them.

        Raises:
            Malformed, InvalidKey, Rejected: the fold does not accept one of them. LogError: they could not be kept.
            DirectoryRefused: ``directory.restored``; ``directory.token``: it was used before.
        """
        instant, first = self.instant(now), self.trust.size
        entries = [
            KeyEvent(seq, instant, self.domain, kind, subject, payload).signed_by(self.keys.identity).encode()
            for seq, (kind, subject, payload) in enumerate(events, first)
        ]
        self.append(entries, now, token=token)

    def append(self, entries: list[bytes], now: int, *, token: bytes | None = None) -> None:
        """Take signed entries into the log, all or none, and use up an enrolment token with them.

        Args:
            entries: Encoded, from the log's present size on.
            now: Instant, microseconds.
            token: The token's CURVE key.

        Raises:
            Malformed, InvalidKey, Rejected: the fold does not accept one of them. LogError: they could not be kept.
            DirectoryRefused: ``directory.restored``; ``directory.token``: it was used before.
        """
        self.require_whole()
        trust = self.trust.advance(entries, now=now)
        if trust.size - self.trust.size != len(entries):
            raise Rejected("reject.statement_order", "an instance statement is presence, and no entry of the log")
        if not self.store.append(self.trust.size, entries, token=token):
            raise DirectoryRefused("directory.token", "the token was used before")
        self.trust = trust
        self.changed(entries)
