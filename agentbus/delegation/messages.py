"""Trust as types: only ``open_envelope`` makes a :class:`VerifiedMessage`, only ``decide`` a :class:`Permitted`.

A test reads the source and lets nobody else construct them; handlers are given nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

from agentbus.delegation.chain import Authority
from agentbus.delegation.statements import Instance
from agentbus.wire.frame import Envelope
from agentbus.wire.header import Header


class VerifiedMessage(NamedTuple):
    """A message we may act on: who sent it and under which authority is proven. Whether it is allowed is not."""

    header: Header
    digest: bytes  # the message digest: RFC 9162 leaf hash of the header's bytes
    authority: Authority  # the chain it is judged on; its holder is the sender
    handover: Authority | None  # what the recipient may use next
    sender: Instance
    body: bytes
    envelope: Envelope  # exactly as it came


class Permitted(NamedTuple):
    """A verified message that targets, scopes, ceilings, rights and policy all allow."""

    message: VerifiedMessage
    policy_version: str
    directory_size: int
    revocation_seq: int
