"""Delegation chains: from the bytes of a chain to the authority it gives its holder.

Rule 1: nothing here decides what a scope means, only whether one is within another.
Rule 2: nothing here looks anything up; whoever calls has the keys and the time.
Rule 3: a chain is read from the root down, because a link is only as good as the one above it.
Rule 4: that a chain's *form* is good is remembered by its bytes; time, state and revocation are judged every time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, Final

from agentbus.crypto.cache import SignatureCache
from agentbus.crypto.keys import VerifyKey, checked_key
from agentbus.crypto.signing import Purpose, verify
from agentbus.delegation.drawing import moment, tree
from agentbus.delegation.grant import Grant, Link, chain_digest, decode_link, decode_links, encode_chain, targets_within
from agentbus.delegation.memory import Memory
from agentbus.delegation.outside import exceeds_consent, exceeds_issuer
from agentbus.delegation.records import USABLE
from agentbus.delegation.scope import all_within
from agentbus.delegation.statements import directory_id
from agentbus.delegation.trust import NeedsTrust, Trust
from agentbus.errors import BadSignature, Rejected
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS

CODES: Final = {
    "reject.chain_broken": "A link does not follow the one before it: n, prev, root or subject differ.",
    "reject.grant_misaligned": "A link's issuer is not the audience of the link above it.",
    "reject.grant_widens": "A link grants what the link above it does not.",
    "reject.targets_widen": "A link names targets that the link above it does not.",
    "reject.depth": "A link has no less depth left than the one above it, or that one allowed no further link.",
    "reject.outlives_parent": "A link ends after the one above it.",
    "reject.cycle": "A principal appears twice in one chain.",
    "reject.root_kind": "Link 0 is of a kind this receiver does not accept, or its issuer may not issue it.",
    "reject.grant_key": "A link is signed by a key that is not its issuer's, or not for grants.",
    "reject.grant_signature": "A link's signature does not verify.",
    "reject.grant_expired": "A link has expired.",
    "reject.grant_early": "A link is not valid yet.",
    "reject.grant_outlives_key": "A link ends after the instance key that signed it.",
    "reject.pinned_key": "The link pins another identity key than the one behind its audience's instance.",
    "reject.epoch": "A principal's epoch was ended since: its keys of that time count no more.",
    "reject.revoked": "A key, instance, principal or grant that this chain or message relies on was revoked.",
    "reject.not_active": "A principal is pending, suspended or retired.",
    "reject.unknown_principal": "A principal is not enrolled in this trust domain.",
    "reject.key_expired": "An instance key is outside its window.",
    "reject.foreign_domain": "A principal of another trust domain stands in the chain.",
    "reject.issuer": "Link 0 rests on an outside issuer's token and gives more than it may, or it counts no more.",
    "reject.consent": "Link 0 rests on a user's consent, and gives more than she agreed to.",
    "reject.conversation": "A link of this chain holds in another conversation only.",
}


@dataclass(frozen=True)
class Authority:
    """A held chain: who acts for whom, with what, until when. Bound to its holder, so not a secret.

    What :meth:`from_bytes` gives is what the bytes *say*; a receiver believes only what :func:`verify_chain` returned.
    """

    links: tuple[Link, ...]
    data: bytes

    @property
    def id(self) -> str:
        """The last link's digest in hex: what names this authority, and what a revocation of it names."""
        return self.links[-1].digest.hex()

    @property
    def subject(self) -> PrincipalId:
        """On whose behalf: the root principal."""
        return self.links[0].grant.subject

    @property
    def user(self) -> PrincipalId | None:
        """The subject, where it is a user."""
        return self.subject if self.subject.kind == "user" else None

    @property
    def holder(self) -> PrincipalId:
        """The only one who can use it: the last audience."""
        return self.links[-1].grant.audience

    @property
    def root_kind(self) -> str:
        """Where it comes from: standing, user, consent, token or vouched."""
        return str(self.links[0].grant.root_kind)

    @property
    def scopes(self) -> tuple[str, ...]:
        """What it allows, as texts; a caveat is shown with its scope."""
        return tuple(str(s) for s in self.links[-1].grant.scopes)

    @property
    def targets(self) -> tuple[str, ...]:
        """Whom the holder may address under it."""
        return self.links[-1].grant.targets

    @property
    def conversation(self) -> bytes | None:
        """The only conversation it counts in; None: any."""
        return self.links[-1].grant.conversation

    @property
    def expires(self) -> datetime:
        """When it ends."""
        return datetime.fromtimestamp(self.expires_at / 1_000_000, UTC)

    @cached_property
    def digest(self) -> bytes:
        """The chain digest that a header commits to."""
        return chain_digest(self.data)

    @cached_property
    def expires_at(self) -> int:
        """When it ends, in microseconds."""
        return min(link.grant.expires for link in self.links)

    def tree(self) -> str:
        """The chain drawn as a tree, a line for each link, with what each narrowed."""
        return tree(self.links)

    def to_bytes(self) -> bytes:
        """The chain's bytes, as they travel."""
        return self.data

    @classmethod
    def from_bytes(cls, data: bytes) -> Authority:
        """Read a held chain: its form is checked, its signatures are not.

        Args:
            data: What ``to_bytes`` gave.

        Returns:
            What the bytes say; ``bus.state`` says whether it holds.

        Raises:
            Malformed: ``malformed.chain``, ``malformed.grant``.
            Rejected: the structural codes of this module.
        """
        return cls(_structure(data), data)

    def __repr__(self) -> str:
        path = " → ".join([self.links[0].grant.issuer.short, *(link.grant.audience.short for link in self.links)])
        return f"<Authority {path} {list(self.scopes)} until {self.expires:%H:%M:%S}>"


def verify_chain(data: bytes, *, trust: Trust, now: int, cache: SignatureCache | None = None) -> Authority:
    """The authority that a chain gives its last audience, or the first reason why it gives none.

    Args:
        data: The chain section as it came.
        trust: Keys, states and revocations.
        now: Instant, microseconds.
        cache: Remembers signatures that verified, and a :class:`Memory` what was found good.

    Raises:
        Malformed: the bytes are no chain.
        Rejected: a code of this module; ``details["link"]`` is the failing link's number.
        NeedsTrust: instance keys whose statements are not known here yet.
    """
    memory = cache if isinstance(cache, Memory) and len(data) <= _SHORT else None
    if memory is not None:
        known: Authority | None = memory.recall(("chain", data), trust, now)
        if known is not None:
            return known
    links = _structure(data)
    _need_instances([link.grant.issuer_key for link in links[1:]], trust)
    for at, link in enumerate(links):
        _judge(link, links[at - 1] if at else None, trust, now, cache)
    _judge_holder(links[-1], trust)
    authority = Authority(links, data)
    if memory is not None:
        memory.remember(("chain", data), authority, trust, *holds_between(links, trust))
    return authority


def verify_handover(
    data: bytes, *, after: Authority, trust: Trust, now: int, cache: SignatureCache | None = None
) -> Authority:
    """The authority that a handover link gives its audience, on top of a chain that was verified just before.

    Raises:
        Malformed, Rejected, NeedsTrust: as :func:`verify_chain`.
    """
    link = decode_link(data)
    extended = encode_chain((*after.links, link))
    links = _structure(extended)
    _need_instances([link.grant.issuer_key], trust)
    _judge(link, after.links[-1], trust, now, cache)
    _judge_holder(link, trust)
    return Authority(links, extended)


# ── form: what the bytes alone tell ──────────────────────────────────────────────────────────────────────────────────


def _structure(data: bytes) -> tuple[Link, ...]:
    """Long chains are read anew each time: forged ones may have a good form, and must not fill the memory."""
    return _remembered(data) if len(data) <= _SHORT else _read(data)


_SHORT: Final = 4096  # bytes; about 25 KiB of objects, so the memory stays below 60 MiB


@lru_cache(maxsize=2048)
def _remembered(data: bytes) -> tuple[Link, ...]:
    return _read(data)


def _read(data: bytes) -> tuple[Link, ...]:
    links = decode_links(data)
    _check_root(links[0])
    for at in range(1, len(links)):
        _check_follows(links, at)
    _check_no_cycle(links)
    return links


def _check_root(link: Link) -> None:
    grant = link.grant
    if grant.n != 0:
        raise _no("reject.chain_broken", 0, "the first link is not link 0")
    domain = grant.subject.domain
    me = directory_id(domain)
    issuers = {"standing": me, "user": grant.subject, "token": me, "consent": me}
    if grant.root_kind not in issuers or grant.issuer != issuers[grant.root_kind]:
        raise _no("reject.root_kind", 0, f"{grant.issuer} may not issue a root of kind {grant.root_kind}")
    if grant.root_kind == "standing" and grant.audience != grant.subject:
        raise _no("reject.root_kind", 0, "a standing grant is for its subject")
    if grant.root_kind != "standing" and grant.subject.kind != "user":
        raise _no("reject.root_kind", 0, f"a root of kind {grant.root_kind} is a user's")


def _check_follows(links: tuple[Link, ...], at: int) -> None:
    parent, grant = links[at - 1].grant, links[at].grant
    if grant.n != at or grant.prev != links[at - 1].digest or grant.root != links[0].digest:
        raise _no("reject.chain_broken", at, "n, prev or root do not follow")
    if grant.subject != parent.subject:
        raise _no("reject.chain_broken", at, "the subject changes")
    if grant.issuer != parent.audience or grant.issuer_epoch != parent.audience_epoch:
        raise _no("reject.grant_misaligned", at, f"issued by {grant.issuer}, held by {parent.audience}")
    if parent.depth == 0 or grant.depth >= parent.depth:
        raise _no("reject.depth", at, f"depth {grant.depth} under {parent.depth}")
    if grant.expires > parent.expires:
        raise _no("reject.outlives_parent", at, "expires after its parent")
    if not all_within(grant.scopes, parent.scopes):
        wide = [str(s) for s in grant.scopes if not all_within([s], parent.scopes)]
        raise _no("reject.grant_widens", at, f"{', '.join(wide)} is not within the link above", scopes=wide)
    if not targets_within(grant.targets, parent.targets, grant.subject.domain):
        raise _no("reject.targets_widen", at, "targets beyond the link above")
    if parent.conversation is not None and grant.conversation != parent.conversation:
        raise _no("reject.conversation", at, "a link leaves the conversation its parent holds in")


def _check_no_cycle(links: tuple[Link, ...]) -> None:
    """No id twice, but that a user's own root may be to herself, and a standing root is from the directory."""
    first = links[0].grant
    seen = set() if first.root_kind == "standing" else {first.issuer, first.subject}
    for at, link in enumerate(links):
        own = at == 0 and link.grant.issuer == link.grant.audience
        if link.grant.audience in seen and not own:
            raise _no("reject.cycle", at, f"{link.grant.audience} appears twice")
        if link.grant.audience.domain != link.grant.subject.domain:
            raise _no("reject.foreign_domain", at, f"{link.grant.audience} is of another trust domain")
        seen.add(link.grant.audience)


# ── judgement: what the directory and the time say ───────────────────────────────────────────────────────────────────


def _need_instances(keys: list[bytes], trust: Trust) -> None:
    missing = [key for key in keys if key not in trust.instances]
    if missing:
        raise NeedsTrust(missing)


def _judge(link: Link, parent: Link | None, trust: Trust, now: int, cache: SignatureCache | None) -> None:
    grant = link.grant
    if grant.subject.domain != trust.domain:
        raise _no("reject.foreign_domain", grant.n, f"this is {trust.domain}")
    if now < grant.not_before - LIMITS.skew:
        raise _no("reject.grant_early", grant.n, f"{_between(grant)} is not valid yet")
    if now >= grant.expires:
        raise _no(
            "reject.grant_expired", grant.n, f"{_between(grant)} ended at {moment(grant.expires)}; ask for a new one"
        )
    if trust.is_revoked("grant", link.digest):
        raise _no("reject.revoked", grant.n, "this grant was revoked")
    key = _instance_issuer(link, parent, trust, now) if parent else _root_issuer(link, trust, now)
    try:
        (cache.verify if cache else verify)(key, Purpose.GRANT, link.body, link.signature)
    except BadSignature as error:
        raise _no("reject.grant_signature", grant.n, "the signature does not verify") from error


def _root_issuer(link: Link, trust: Trust, now: int) -> VerifyKey:
    """The key that may sign this link 0."""
    grant = link.grant
    if grant.root_kind != "user":
        _require_outside(grant, trust)
        key = trust.consent_key(grant.issuer_key, now)
        if key is None:
            raise _no("reject.grant_key", 0, "not the directory's current consent key")
        return key
    _require_good(trust.refuses_principal(grant.issuer, grant.issuer_epoch), grant.n, grant.issuer)
    identity = trust.keys.get(grant.issuer_key)
    if identity is None or identity.principal != grant.issuer or identity.epoch != grant.issuer_epoch:
        raise _no("reject.grant_key", 0, f"not an identity key of {grant.issuer}")
    if identity.state not in USABLE or trust.is_revoked("key", grant.issuer_key):
        raise _no("reject.revoked", 0, f"the key of {grant.issuer} is {identity.state}")
    if identity.ends is not None and now >= identity.ends:
        why = "was tainted and is to be rotated" if identity.state == "tainted" else "was followed by another"
        raise _no("reject.key_expired", 0, f"the key of {grant.issuer} {why}")
    if trust.closed_to(grant.issuer_key, grant.issued_at, through_instance=False):
        raise _no("reject.key_closed", 0, f"the key of {grant.issuer} is {identity.state} and grants nothing new")
    return identity.key


def _require_outside(grant: Grant, trust: Trust) -> None:
    """What a root that the directory signed rests on: the instance's principal, a token's issuer, or a consent."""
    if grant.root_kind == "standing":
        _require_good(trust.refuses_principal(grant.subject, grant.audience_epoch), grant.n, grant.subject)
        return
    user = trust.principal(grant.subject)
    _require_good(trust.refuses_principal(grant.subject, user.epoch if user else 0), grant.n, grant.subject)
    evidence = grant.evidence or ("",)
    if grant.root_kind == "token":
        excess = exceeds_issuer(grant, trust.issuers.get(evidence[0]))
        if excess is not None:
            raise _no("reject.issuer", 0, excess)
    else:
        consent = trust.consents.get(grant.evidence[0] if grant.evidence else -1)
        excess = exceeds_consent(grant, consent, trust.issuers)
        if excess is not None:
            raise _no("reject.consent", 0, excess)


def _instance_issuer(link: Link, parent: Link, trust: Trust, now: int) -> VerifyKey:
    """The instance key that may sign this later link."""
    grant = link.grant
    instance = trust.instances[grant.issuer_key]
    if instance.principal != grant.issuer or instance.epoch != grant.issuer_epoch or "grant" not in instance.purposes:
        raise _no("reject.grant_key", grant.n, f"not an instance key of {grant.issuer} for grants")
    if parent.grant.pinned_key is not None and instance.identity_key != parent.grant.pinned_key:
        raise _no("reject.pinned_key", grant.n, "the link above pins another identity key")
    _require_good(trust.refuses(instance, now), grant.n, grant.issuer)
    if trust.closed_to(instance.identity_key, grant.issued_at, through_instance=True):
        raise _no("reject.key_closed", grant.n, f"the key of {grant.issuer} is tainted: it must rotate first")
    if grant.expires > instance.not_after:
        raise _no("reject.grant_outlives_key", grant.n, "expires after the key that signed it")
    return checked_key(instance.key)


def holds_between(links: tuple[Link, ...], trust: Trust) -> tuple[int, int]:
    """The instants at which a chain of these links, found good under this snapshot, is good: from the first on, before
    the second.
    """
    keys = [trust.instances[link.grant.issuer_key] for link in links[1:]]
    start = max([link.grant.not_before for link in links] + [key.not_before for key in keys]) - LIMITS.skew
    ends = [link.grant.expires for link in links] + [trust.holds_until(key) for key in keys]
    return start, min([*ends, trust.key_until(links[0].grant.issuer_key)])


def _judge_holder(link: Link, trust: Trust) -> None:
    grant = link.grant
    _require_good(trust.refuses_principal(grant.audience, grant.audience_epoch), grant.n, grant.audience)


def _require_good(code: str | None, link: int, who: PrincipalId) -> None:
    if code is not None:
        raise _no(code, link, f"{who.short}: {CODES[code]}")


def _between(grant: Grant) -> str:
    return f"what {grant.issuer.short} granted {grant.audience.short}"


def _no(code: str, link: int, message: str, **details: Any) -> Rejected:
    return Rejected(code, f"link {link}: {message}", details={"link": link, **details})
