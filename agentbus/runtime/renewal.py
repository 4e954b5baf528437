"""Another identity key for somebody who runs: how it is asked for, and how running instances come to use it.

The directory takes a rotation that the old and the new key signed, and tells everybody. From then on the old key signs
nothing new, and each instance that it introduced takes a new instance key under the new one, while peers know both.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal, Protocol

from agentbus.crypto.keys import SigningKey
from agentbus.delegation.records import MAX_OVERLAP
from agentbus.delegation.statements import Rotation
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentBusError, DirectoryRefused, ProgrammingError
from agentbus.identity import Identity
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import SECOND

CODES: Final = {
    "usage.overlap": "An overlap is 0 seconds to 7 days.",
    "directory.key_not_here": "The directory says that another key is active than the one that is kept here.",
}

Step = Literal["prepare", "activate"]
_AFTER: Final[dict[Step, str]] = {"prepare": "prepared", "activate": "active"}
PROOF_LIFE: Final = 30 * SECOND


class Rotates(Protocol):
    """The part of a trust source that a rotation needs."""

    @property
    def trust(self) -> Trust: ...
    async def refresh(self) -> None: ...
    async def rotate(self, who: PrincipalId, body: bytes, by_old: bytes, by_new: bytes) -> None: ...


async def rotate(
    identity: Identity, source: Rotates, *, overlap: float, now: int, seed: bytes, step: Step = "activate"
) -> Identity:
    """Let a new key follow an identity's, in the directory and in its key file.

    Args:
        identity: Whose key is followed by another.
        source: The directory.
        overlap: Seconds for which the old key still verifies.
        now: Instant, microseconds.
        seed: 32 secret random bytes: the new key, unless an earlier try or an earlier step left one.
        step: ``prepare`` only publishes the new key, which stays the key file's proposal until it is activated.

    Returns:
        The identity with its new key.

    Raises:
        ProgrammingError: ``usage.overlap``.
        DirectoryRefused: ``directory.rotation``, ``directory.key_not_here``, ``directory.unknown``.
        KeyFileError: the new key could not be written, so it was not asked for.
    """
    if not 0 <= overlap * SECOND <= MAX_OVERLAP:
        raise ProgrammingError("usage.overlap", f"{overlap} s: {CODES['usage.overlap']}")
    identity = await asyncio.to_thread(identity.current, source.trust)  # an earlier try may have come through
    record, known = source.trust.principal(identity.id), source.trust.keys.get(identity.key.id)
    if record is None:
        raise DirectoryRefused("directory.unknown", f"{identity.id.short} is not enrolled")
    if known is None or known.state not in ("active", "tainted"):
        state = "unknown" if known is None else known.state
        raise DirectoryRefused("directory.key_not_here", f"the key of {identity.id.short} that is here is {state}")
    successor = await asyncio.to_thread(identity.propose, SigningKey(seed))
    rotation = Rotation(
        record.id.domain, record.id, record.epoch, identity.key.id, successor.key.public.raw, step,
        int(overlap * SECOND), now + PROOF_LIFE,
    )  # fmt: skip
    body, by_old, by_new = rotation.proven_by(identity.key, successor.key)
    try:
        await source.rotate(record.id, body, by_old, by_new)
    except AgentBusError:
        await source.refresh()  # the answer may have been lost: what counts is the log
        found = source.trust.keys.get(successor.key.id)
        if found is None or found.principal != record.id or found.state != _AFTER[step]:
            raise
    if step == "activate" and successor.file is not None:
        await asyncio.to_thread(successor.file.accept)
    return successor


def is_followed(identity: Identity, trust: Trust) -> bool:
    """Whether the directory says that another key of this identity is the active one."""
    active = trust.active_key(identity.id)
    return active is not None and active.key.id != identity.key.id
