"""Links that a running instance issues: handovers and delegations, signed by its instance key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentbus.crypto.keys import SigningKey
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import Grant, Link, encode_chain
from agentbus.delegation.scope import Scope, all_within, scopes
from agentbus.delegation.trust import Trust
from agentbus.errors import Denied
from agentbus.runtime.voices import Voice
from agentbus.wire.ids import PrincipalId, everyone

CODES: Final = {
    "denied.no_depth": "The authority allows no further link: its depth is used up.",
    "denied.not_held": "What is to be handed on is not within what is held.",
}


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
) -> Link:
    """One more link on ``held``, from this voice to ``to``.

    Raises:
        Denied: ``denied.no_depth``, ``denied.not_held``: a receiver would refuse it, so it is not made.
    """
    last = held.links[-1].grant
    if last.depth == 0:
        raise Denied("denied.no_depth", f"{held.holder.short} may not hand this on: ask for a greater depth")
    wanted = scopes(granted)
    if not all_within(wanted, last.scopes):
        missing = [str(s) for s in wanted if not all_within([s], last.scopes)]
        raise Denied("denied.not_held", f"{', '.join(missing)} is not within {', '.join(held.scopes) or 'nothing'}")
    record = trust.principal(to)
    grant = Grant(
        voice.identity.id, voice.instance.epoch, voice.key.id, now, to, record.epoch if record else 1, None,
        held.subject, held.links[0].digest, len(held.links), held.links[-1].digest, now,
        min(expires, held.expires_at, voice.instance.not_after), wanted, tuple(sorted(set(targets))) or last.targets,
        last.depth - 1 if depth is None else depth, link_id, purpose or None, last.conversation, None,
    )  # fmt: skip
    return signed(grant, voice.key, Purpose.GRANT)


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
) -> Authority:
    """A user's own root: link 0, signed by her identity key, to an agent or (when she sends) to herself."""
    grant = Grant(
        voice_id, epoch, identity.id, now, to or voice_id, to_epoch if to else epoch, None, voice_id, None, 0, None,
        now, expires, scopes(granted), tuple(sorted(set(targets))) or (everyone(voice_id.domain),), depth, link_id,
        purpose or None, None, "user",
    )  # fmt: skip
    return Authority.from_bytes(encode_chain((signed(grant, identity, Purpose.GRANT),)))


def signed(grant: Grant, key: SigningKey, purpose: Purpose) -> Link:
    """The grant as a link."""
    body = grant.encode()
    return Link(grant, body, sign(key, purpose, body))
