"""A trust domain in memory, and chains drawn as text: ``"alice -[quote]-> carol -[quote,pay]-> dave"``.

Everything is made from fixed seeds and signed for real: nothing here goes around a check, so what a test shows refused
is refused in earnest. Not for production: anybody can compute these keys.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.crypto.note import Checkpoint, sign_note
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.grant import Grant, Link, encode_chain
from agentbus.delegation.scope import Scope, encode_scopes, scopes
from agentbus.delegation.statements import (
    ROLES,
    Instance,
    KeyEvent,
    Revocation,
    Signed,
    directory_id,
    directory_origin,
    enrolment_transcript,
)
from agentbus.delegation.trust import Trust
from agentbus.errors import ProgrammingError
from agentbus.wire.ids import PrincipalId, everyone, name_id
from agentbus.wire.limits import SECOND

NOON: Final = 1_767_268_800 * SECOND
"""2026-01-01 12:00 UTC in microseconds: the instant at which worlds are drawn."""
HOUR: Final = 3600 * SECOND

_STEP: Final = re.compile(r"\s*-\[([^\]]*)\]->\s*([a-z0-9/._-]+)\s*")
_FIRST: Final = re.compile(r"\s*([a-z0-9/._-]+)")


def seed(*parts: str) -> bytes:
    """32 bytes that depend on ``parts`` alone."""
    return hashlib.sha256("\x00".join(("agentbus test world", *parts)).encode()).digest()


@dataclass(slots=True)
class Actor:
    """Somebody of a world, with every key that is theirs."""

    id: PrincipalId
    identity: SigningKey
    curve: CurveKey
    epoch: int = 1
    instance: SigningKey = field(repr=False, default_factory=lambda: SigningKey(bytes(32)))
    statement: Instance | None = None

    @property
    def running(self) -> Instance:
        """The newest instance statement."""
        if self.statement is None:
            raise ProgrammingError("usage", f"{self.id.short} has no instance in this world")
        return self.statement


class World:
    """A trust domain: a root key, four online keys, principals with instances, and the :class:`Trust` they lead to.

    Args:
        domain: The trust domain.
        now: Instant at which everything is introduced.
    """

    def __init__(self, domain: str = "local.test", *, now: int = NOON) -> None:
        self.domain = domain
        self.now = now
        self.root = SigningKey(seed(domain, "root"))
        self.online: dict[str, SigningKey] = {role: SigningKey(seed(domain, "online", role)) for role in ROLES}
        self.actors: dict[str, Actor] = {}
        self.entries: list[bytes] = []
        self.trust = Trust.pinned(self.root.id)
        self.event("domain", domain, [self.root.public.raw, 30 * SECOND], key=self.root)
        for role, key in self.online.items():
            self.event("online", role, [key.public.raw], key=self.root)

    # ── the directory's log ──────────────────────────────────────────────────────────────────────────────────────

    def draft(self, kind: str, subject: str, payload: list[Any], *, key: SigningKey | None = None) -> bytes:
        """The next key event, signed by ``key`` (the identity key of the directory where none is given), not added."""
        event = KeyEvent(self.trust.size, self.now, self.domain, kind, subject, payload)
        return event.signed_by(key or self.online["identity"]).encode()

    def event(self, kind: str, subject: str, payload: list[Any], *, key: SigningKey | None = None) -> bytes:
        """Sign the next key event and let :meth:`Trust.advance` judge it."""
        return self.add(self.draft(kind, subject, payload, key=key))

    def add(self, entry: bytes) -> bytes:
        """Let :meth:`Trust.advance` judge an entry, and keep it."""
        self.trust = self.trust.advance(entry, now=self.now)
        self.entries.append(entry)
        return entry

    def revoke(self, kind: str, handle: bytes, *, by: str | None = None) -> bytes:
        """Sign and add a revocation of a grant, instance, key or principal."""
        who = directory_id(self.domain) if by is None else self[by].id
        entry = Revocation(
            self.trust.size, self.now, self.domain, kind, handle, who, "a test says so", self.now,
            self.trust.revocation_seq + 1, b"",
        )  # fmt: skip
        return self.add(entry.signed_by(self.online["identity"]).encode())

    def head(self, *, instant: int | None = None, size: int | None = None, root: bytes | None = None) -> bytes:
        """A signed head of the log; ``size`` and ``root`` let it lie."""
        lines = (f"instant {self.now if instant is None else instant}", f"revocations {self.trust.revocation_seq}")
        shown = Checkpoint(
            directory_origin(self.domain),
            self.trust.size if size is None else size,
            self.trust.frontier.root() if root is None else root,
            lines,
        )
        return sign_note(shown.text, shown.origin, self.online["head"])

    # ── who is in it ─────────────────────────────────────────────────────────────────────────────────────────────

    def id(self, name: str) -> PrincipalId:
        """The full id of a short name in this domain."""
        return name_id(name, self.domain)

    def __getitem__(self, name: str) -> Actor:
        return self.actors[self.id(name)]

    def principal(
        self,
        name: str,
        *,
        kind: str = "agent",
        ceiling: Iterable[str | Scope] = (),
        rights: Iterable[str | Scope] | None = (),
        may_talk_to: Sequence[str] | None = None,
        running: bool = True,
    ) -> Actor:
        """Enrol somebody with real signed events, and start an instance of theirs.

        Args:
            name: ``carol``; with ``kind="user"`` it becomes ``user/carol``.
            kind: agent, user or service.
            ceiling: An agent's upper bound.
            rights: A user's rights; None means all of them, for users only.
            may_talk_to: Short names; None means everyone.
            running: Whether an instance is started.
        """
        who = self.id(name if "/" in name else f"{kind}/{name}")
        targets = [everyone(self.domain)] if may_talk_to is None else sorted(self.id(t) for t in may_talk_to)
        held: Any = "all" if rights is None else encode_scopes(scopes(rights))
        self.event("create", who, ["", "", encode_scopes(scopes(ceiling)), targets, held, []])
        actor = Actor(who, SigningKey(seed(who, "identity")), CurveKey(seed(who, "curve")))
        self.actors[who] = actor
        self.event("key", who, self.registration(who, actor.identity, actor.curve.public))
        if running:
            self.start(actor)
        return actor

    def registration(self, who: str, key: SigningKey, curve_key: bytes, epoch: Any = 1) -> list[Any]:
        """The payload of a ``key`` event, with the proof that ``key`` is held."""
        raw, expires = key.public.raw, self.now + 30 * SECOND
        transcript = enrolment_transcript(self.domain, who, b"a token", raw, curve_key, expires)
        return [raw, curve_key, epoch, transcript, sign(key, Purpose.POP, transcript)]

    def start(self, actor: Actor, *, salt: str = "", **changes: Any) -> Instance:
        """Start another instance: sign its statement, with ``changes`` to its fields, and add it to the trust."""
        statement, signed = self.statement(actor, salt=salt, **changes)
        self.trust = self.trust.advance(signed.encode(), now=self.now)
        actor.statement = statement
        return statement

    def statement(self, actor: Actor, *, salt: str = "", **changes: Any) -> tuple[Instance, Signed]:
        """A signed instance statement that nobody has judged yet. It becomes the actor's instance key."""
        actor.instance = SigningKey(seed(actor.id, "instance", salt))
        made = Instance(
            actor.id, actor.epoch, seed(actor.id, "instance id", salt)[:16], actor.instance.public.raw,
            actor.identity.id, actor.id.name, SigningKey(seed(actor.id, "log")).public.raw, actor.curve.public, [],
            ["envelope", "grant"], self.now, self.now + HOUR,
        )._replace(**changes)  # fmt: skip
        return made, made.signed_by(actor.identity, actor.instance)


def sign_link(grant: Grant, key: SigningKey) -> Link:
    """``grant`` as a link signed by ``key``, whoever that is."""
    body = grant.encode()
    return Link(grant, body, sign(key, Purpose.GRANT, body))


def draw_world(*names: str, ceiling: Iterable[str | Scope] = ("quote", "pay", "docs:*")) -> World:
    """A world with user alice, who has every right, and agents of these names (carol, dave, erin, frank and bob)."""
    world = World()
    world.principal("alice", kind="user", rights=None)
    for name in names or ("bob", "carol", "dave", "erin", "frank"):
        world.principal(name, ceiling=ceiling)
    return world


def draw_chain(
    drawing: str,
    *,
    world: World,
    targets: Sequence[str] | None = None,
    depth: int | None = None,
    expires: int | None = None,
    changes: Mapping[int, Mapping[str, Any]] | None = None,
) -> tuple[Link, ...]:
    """The links of a user-rooted chain, each signed by the key of whoever issues it.

    ``alice -[quote]-> carol -[quote,pay]-> dave``: the first name is a user, whose identity key signs link 0; each
    later link is signed by its issuer's instance key. A drawing may break every rule: that is what it is for.

    Args:
        drawing: Names, and scopes between them.
        world: Who they are.
        targets: Short names for every link; None means everyone.
        depth: Of link 0; each further link has one less.
        expires: Of every link, microseconds.
        changes: Fields of links, by number, replaced before they are signed.
    """
    steps = _read(drawing)
    issuer = world[f"user/{steps[0][0]}" if "/" not in steps[0][0] else steps[0][0]]
    subject = issuer.id
    aim = (everyone(world.domain),) if targets is None else tuple(sorted(world.id(t) for t in targets))
    ends = world.now + HOUR if expires is None else expires
    left = len(steps) - 2 if depth is None else depth
    links: list[Link] = []
    for n, (name, held) in enumerate(steps[1:]):
        audience = world[name]
        key = issuer.instance if n else issuer.identity
        grant = Grant(
            issuer.id, issuer.epoch, key.id, world.now, audience.id, audience.epoch, None, subject,
            links[0].digest if n else None, n, links[-1].digest if n else None, world.now, ends, scopes(held), aim,
            max(0, left - n), seed(drawing, str(n))[:16], None, None, None if n else "user",
        )._replace(**dict((changes or {}).get(n, {})))  # fmt: skip
        links.append(sign_link(grant, key))
        issuer = audience
    return tuple(links)


def standing(world: World, name: str, **changes: Any) -> tuple[Link, ...]:
    """The standing chain the directory gives a running instance; ``changes`` replace fields before it is signed."""
    actor = world[name]
    record, now = world.trust.principals[actor.id], actor.running
    grant = Grant(
        directory_id(world.domain), 1, world.online["consent"].id, world.now, actor.id, actor.epoch, actor.identity.id,
        actor.id, None, 0, None, now.not_before, now.not_after, record.ceiling, record.may_talk_to, 4,
        seed("standing", actor.id)[:16], None, None, "standing",
    )._replace(**changes)  # fmt: skip
    return (sign_link(grant, world.online["consent"]),)


# ── what an attacker does to a chain ─────────────────────────────────────────────────────────────────────────────────


def chain_bytes(links: Sequence[Link]) -> bytes:
    """The chain section of these links."""
    return encode_chain(tuple(links))


def alter(links: Sequence[Link], at: int, *, key: SigningKey | None = None, **changes: Any) -> tuple[Link, ...]:
    """Link ``at`` with other fields: under its old signature, or signed by ``key``. Later links stay as they are."""
    grant = links[at].grant._replace(**changes)
    made = Link(grant, grant.encode(), links[at].signature) if key is None else sign_link(grant, key)
    return (*links[:at], made, *links[at + 1 :])


def extend(links: Sequence[Link], *, key: SigningKey, **changes: Any) -> tuple[Link, ...]:
    """The chain with one more link that repeats the last, follows it correctly and is signed by ``key``.

    ``changes`` replace its fields: whoever extends names at least issuer, issuer_key and audience.
    """
    last = links[-1].grant
    following: dict[str, Any] = {
        "issuer": last.audience, "issuer_epoch": last.audience_epoch, "issuer_key": key.id, "n": last.n + 1,
        "prev": links[-1].digest, "root": links[0].digest, "depth": max(0, last.depth - 1), "root_kind": None,
        "pinned_key": None, "id": seed("extended", links[-1].digest.hex())[:16],
    }  # fmt: skip
    return (*links, sign_link(last._replace(**{**following, **changes}), key))


def strip(links: Sequence[Link], at: int) -> tuple[Link, ...]:
    """The chain without link ``at``."""
    return (*links[:at], *links[at + 1 :])


def splice(head: Sequence[Link], tail: Sequence[Link], at: int) -> tuple[Link, ...]:
    """The first ``at`` links of one chain, followed by the rest of another."""
    return (*head[:at], *tail[at:])


def reorder(links: Sequence[Link], order: Sequence[int]) -> tuple[Link, ...]:
    """The links in another order."""
    return tuple(links[at] for at in order)


def resign(links: Sequence[Link], at: int, key: SigningKey) -> tuple[Link, ...]:
    """Link ``at``, unchanged, under the signature of another key."""
    return (*links[:at], sign_link(links[at].grant, key), *links[at + 1 :])


def _read(drawing: str) -> list[tuple[str, list[str]]]:
    first = _FIRST.match(drawing)
    steps: list[tuple[str, list[str]]] = [(first[1], [])] if first else []
    at = first.end() if first else 0
    while at < len(drawing):
        step = _STEP.match(drawing, at)
        if step is None:
            raise ProgrammingError("usage", f"cannot read the drawing from {drawing[at:]!r}; write a -[scope]-> b")
        steps.append((step[2], [part.strip() for part in step[1].split(",") if part.strip()]))
        at = step.end()
    if len(steps) < 2:
        raise ProgrammingError("usage", "a chain is drawn as alice -[quote]-> carol")
    return steps
