"""One purpose per signature: DSSE's pre-authentication encoding with one type string for each artefact.

A signature made for one purpose verifies for no other, because the type is part of what is signed.
"""

from __future__ import annotations

from enum import StrEnum

from agentbus.crypto.keys import SigningKey, VerifyKey


class Purpose(StrEnum):
    """What a signature is for: the PAE type of each artefact."""

    BATCH = "application/vnd.agentbus.batch.v1"
    REPLAY_BATCH = "application/vnd.agentbus.replay-batch.v1"
    GRANT = "application/vnd.agentbus.grant.v1"
    INSTANCE = "application/vnd.agentbus.instance.v1"
    INSTANCE_POSSESSION = "application/vnd.agentbus.instance-possession.v1"
    KEY_EVENT = "application/vnd.agentbus.key-event.v1"
    REVOCATION = "application/vnd.agentbus.revocation.v1"
    POP = "application/vnd.agentbus.pop.v1"
    ROTATION = "application/vnd.agentbus.rotation.v1"
    RETIREMENT = "application/vnd.agentbus.retirement.v1"

    def __init__(self, value: str) -> None:
        self.prefix = b"DSSEv1 %d %s " % (len(value), value.encode())


def pae(purpose: Purpose, body: bytes) -> bytes:
    """DSSE v1 PAE: ``DSSEv1 SP len(type) SP type SP len(body) SP body``."""
    return b"%b%d %b" % (purpose.prefix, len(body), body)


def sign(key: SigningKey, purpose: Purpose, body: bytes) -> bytes:
    """64 bytes: ``key``'s signature over ``body`` for ``purpose`` alone."""
    return key.sign(pae(purpose, body))


def verify(key: VerifyKey, purpose: Purpose, body: bytes, signature: bytes) -> None:
    """Return when ``signature`` is ``key``'s over ``body`` for ``purpose``.

    Raises:
        BadSignature: ``key.bad_signature``.
    """
    key.verify(pae(purpose, body), signature)
