"""Links that a running instance issues: handovers and delegations, signed by its instance key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import Grant, Link, decode_grant, encode_chain, targets_within
from agentbus.delegation.scope import Scope, all_within, scopes
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentNotFound, Denied, Malformed, ProgrammingError
from agentbus.runtime.voices import Voice
from agentbus.wire.ids import PrincipalId, everyone
from agentbus.wire.limits import SECOND

CODES: Final = {
    "denied.no_depth": "The authority allows no further link: its depth is used up.",
    "denied.not_held": "What is to be handed on is not within what is held.",
    "usage.expires": "An authority lives for more than 0 seconds and at most a year.",
    "usage.grant": "A field of the grant is out of its bounds: a purpose has 1 to 64 characters, a depth 0 to 11.",
}

MAX_LIFETIME: Final = 366 * 24 * 3600  # seconds; a longer one would be forgotten before it ends


def extend(
    held: Authority,
    voice: Voice,
    to: PrincipalId,
    granted: Sequence[str | Scope],
    *,
    trust: Trust,
    now: int,
    expires: int,
    link_id: bytes,
    targets: Sequence[str] = (),
    depth: int | None = None,
    purpose: str = "",
    conversation: bytes | None = None,
    pin: bool = False,
) -> Link:
    """One more link on ``held``, from this voice to ``to``.

    Raises:
        Denied: ``denied.no_depth``, ``denied.not_held``: a receiver would refuse it, so it is not made.
    """
    last = held.links[-1].grant
    if last.depth == 0:
        raise Denied("denied.no_depth", f"{held.holder.short} may not hand this on: ask for a greater depth")
    depth = last.depth - 1 if depth is None else depth
    if depth >= last.depth:
        raise Denied("denied.no_depth", f"depth {depth} is more than the {last.depth - 1} that is left to hand on")
    wanted = scopes(granted)
    if not all_within(wanted, last.scopes):
        missing = [str(s) for s in wanted if not all_within([s], last.scopes)]
        has = f"{held.holder.short} holds {', '.join(held.scopes) or 'nothing'}"
        text = f"{has}, and {', '.join(missing)} is not within that; hand on less, or ask for more"
        raise Denied("denied.not_held", text)
    aim = tuple(sorted(set(targets))) or last.targets
    if not targets_within(aim, last.targets, held.subject.domain):
        raise Denied("denied.not_held", "targets beyond those of what is held; leave them out for the same ones")
    if last.conversation is not None and conversation not in (None, last.conversation):
        raise Denied("denied.not_held", "what is held counts in one conversation only, and this is another")
    record = trust.principal(to)
    grant = Grant(
        voice.identity.id, voice.instance.epoch, voice.key.id, now, to, record.epoch if record else 1,
        _identity_key(trust, to) if pin else None, held.subject, held.links[0].digest, len(held.links),
        held.links[-1].digest, now, min(expires, held.expires_at, voice.instance.not_after), wanted, aim, depth,
        link_id, purpose or None, conversation or last.conversation, None,
    )  # fmt: skip
    return signed(_checked(grant), voice.key, Purpose.GRANT)


def user_root(
    voice_id: PrincipalId,
    identity: SigningKey,
    epoch: int,
    granted: Sequence[str | Scope],
    *,
    now: int,
    expires: int,
    link_id: bytes,
    to: PrincipalId | None = None,
    to_epoch: int = 1,
    targets: Sequence[str] = (),
    depth: int = 1,
    purpose: str = "",
    conversation: bytes | None = None,
    pinned: bytes | None = None,
) -> Authority:
    """A user's own root: link 0, signed by her identity key, to an agent or (when she sends) to herself."""
    grant = Grant(
        voice_id, epoch, identity.id, now, to or voice_id, to_epoch if to else epoch, pinned, voice_id, None, 0, None,
        now, expires, scopes(granted), tuple(sorted(set(targets))) or (everyone(voice_id.domain),), depth, link_id,
        purpose or None, conversation, "user",
    )  # fmt: skip
    return Authority.from_bytes(encode_chain((signed(_checked(grant), identity, Purpose.GRANT),)))


def grant_to(
    voice: Voice,
    to: PrincipalId,
    granted: Sequence[str | Scope],
    *,
    trust: Trust,
    now: int,
    expires: int,
    link_id: bytes,
    pin: bool = False,
    **bounds: Any,
) -> Authority:
    """A root grant to somebody who is enrolled, signed by the identity key of this user's voice.

    Raises:
        AgentNotFound: ``agent.not_found``. Denied: ``denied.not_held``: there is no identity key to pin.
    """
    record = trust.principal(to)
    if record is None:
        raise AgentNotFound("agent.not_found", f"nobody is called {to.short}; see `agentbus agent list`")
    return user_root(
        voice.identity.id, voice.identity.key, voice.instance.epoch, granted, now=now, expires=expires, link_id=link_id,
        to=to, to_epoch=record.epoch, pinned=_identity_key(trust, to) if pin else None, **bounds,
    )  # fmt: skip


def signed(grant: Grant, key: SigningKey, purpose: Purpose) -> Link:
    """The grant as a link."""
    body = grant.encode()
    return Link(grant, body, sign(key, purpose, body))


def lifetime(seconds: float) -> int:
    """``expires_in`` in microseconds.

    Raises:
        ProgrammingError: ``usage.expires``.
    """
    if not 0 < seconds <= MAX_LIFETIME:
        raise ProgrammingError("usage.expires", f"expires_in={seconds!r}: more than 0 seconds and at most a year")
    return int(seconds * SECOND)


def conversation_id(text: str | None) -> bytes | None:
    """The 16 bytes of a conversation from what :attr:`Session.conversation` shows.

    Raises:
        ProgrammingError: ``usage.grant``.
    """
    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError as error:
        raise ProgrammingError("usage.grant", "a conversation is named by 32 hexadecimal digits") from error


def _identity_key(trust: Trust, who: PrincipalId) -> bytes:
    """The newest active identity key of ``who``, to be pinned."""
    record = trust.principal(who)
    keys = [
        (key.since, key_id)
        for key_id, key in trust.keys.items()
        if key.principal == who and key.state == "active" and record is not None and key.epoch == record.epoch
    ]
    if not keys:
        raise Denied("denied.not_held", f"{who.short} has no active identity key that could be pinned")
    return max(keys)[1]


def _checked(grant: Grant) -> Grant:
    """The grant, when a receiver could read it: found here rather than by the first who is asked."""
    try:
        decode_grant(grant.encode())
    except (Malformed, TypeError, ValueError) as error:
        raise ProgrammingError("usage.grant", f"no such grant can be made: {error}") from error
    return grant
