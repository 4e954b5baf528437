"""Enrolling: from a single-use token to an identity whose keys never left this machine."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from agentbus.connect import BusUrl, zmq_transport
from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.delegation.statements import enrolment_transcript
from agentbus.directory.core import prove_possession
from agentbus.errors import AgentBusError, ConfigError, Malformed, Unavailable, from_code
from agentbus.identity import Identity
from agentbus.runtime.clock import SystemClock
from agentbus.runtime.trust_cache import TrustCache
from agentbus.services.directory import token_curve_key
from agentbus.transport.base import REFUSED, Connection
from agentbus.wire.ids import PrincipalId, name_id, parse_id, unb64
from agentbus.wire.limits import SECOND
from agentbus.wire.sync import decode_sync, encode_sync

CODES: Final = {
    "config.token": "This is no enrolment token; `agentbus agent create NAME` prints one (abe_…), good for 10 minutes.",
    "unavailable.enrolment": "The directory did not answer the enrolment; is the token used or expired, is it running?",
}


class _OneAnswer:
    """The sink of an enrolment connection: admits nobody, takes one frame."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def received(self, connection: Connection, frame: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(frame)

    def lost(self, connection: Connection, reason: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(
                Unavailable(
                    "unavailable.enrolment",
                    "the directory refuses this token: it was used, or has expired; "
                    "ask the operator for another: `agentbus agent token NAME`"
                    if reason == REFUSED
                    else f"{reason}; is the directory running, and is the bus URL its own?",
                    retryable=reason != REFUSED,
                )
            )

    async def admit(self, key: bytes) -> bool:
        return False


class _Hearing:
    """The sink of a connection to the directory that is no node's: it hears, and is asked nothing."""

    def __init__(self) -> None:
        self.source: TrustCache

    def received(self, connection: Connection, frame: bytes) -> None:
        if self.source.owns(connection):
            self.source.received(frame)

    def lost(self, connection: Connection, reason: str) -> None:
        if self.source.owns(connection):
            self.source.cut(reason)

    async def admit(self, key: bytes) -> bool:
        return False


@asynccontextmanager
async def hearing(url: BusUrl, identity: Identity) -> AsyncIterator[TrustCache]:
    """The directory, heard once, without an instance of ``identity``: enough to rotate its key.

    Raises:
        Unavailable: ``unavailable.directory``: it does not answer, or does not admit this identity's CURVE key.
    """
    transport, sink = zmq_transport(identity.curve, listen=None), _Hearing()
    sink.source = TrustCache(transport, endpoint=url.endpoint, key=url.curve_key, root=url.root, clock=SystemClock())
    await transport.open(sink)
    try:
        await sink.source.refresh()
        yield sink.source
    finally:
        await sink.source.aclose()
        await transport.aclose()


def new_identity(name: str, token: str) -> Identity:
    """New keys for whom a token was made.

    Raises:
        ConfigError: ``config.token``.
    """
    who, _ = _read(name, token)
    return Identity(who, SigningKey(os.urandom(32)), CurveKey(os.urandom(32)))


def _read(name: str, token: str) -> tuple[PrincipalId, CurveKey]:
    try:
        if not token.startswith("abe_"):
            raise Malformed("malformed.base64")
        secret, _, domain = token.strip().removeprefix("abe_").partition(".")
        return parse_id(name_id(name, domain)), token_curve_key(unb64(secret, 32))
    except AgentBusError as error:
        raise ConfigError("config.token", "no enrolment token; ask the operator for a new one") from error


async def enrol(url: BusUrl, name: str, token: str, identity: Identity | None = None) -> Identity:
    """Prove that an identity's keys are held, and register them with a single-use token.

    Args:
        url: The pinned bus URL.
        name: The name the token was made for.
        token: ``abe_<secret>.<trust domain>``; it is used up by this.
        identity: The keys; new ones where none are given.

    Raises:
        ConfigError: ``config.token``. DirectoryRefused: ``directory.token``. Unavailable: ``unavailable.enrolment``.
    """
    who, door = _read(name, token)
    identity = identity or new_identity(name, token)
    expires = SystemClock().now() + 30 * SECOND
    key, curve = identity.key.public.raw, identity.curve.public
    nonce = hashlib.sha256(door.public).digest()
    proof = prove_possession(identity.key, enrolment_transcript(who.domain, who, nonce, key, curve, expires))
    transport = zmq_transport(door, listen=None)
    sink = _OneAnswer()
    await transport.open(sink)
    try:
        transport.dial(url.endpoint, url.curve_key).offer(encode_sync("enrol", 1, who, key, curve, expires, proof))
        async with asyncio.timeout(10):
            operation, _, parts = decode_sync(await sink.answer)
    except TimeoutError as error:
        if isinstance(error, AgentBusError):
            raise
        raise Unavailable("unavailable.enrolment", f"{url.endpoint} did not answer; is it running?") from error
    finally:
        await transport.aclose()
    if operation == "refused":
        raise from_code(parts[0], parts[1], retryable=False, details={})
    return identity
