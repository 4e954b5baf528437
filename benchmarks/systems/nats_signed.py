"""nats-py and a user who signs and verifies each message by hand, with PyNaCl: what one builds without agentbus."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey, VerifyKey
from nats.aio.msg import Msg

from benchmarks.peer import Echo
from benchmarks.systems.nats_unsigned import broker, connected

LABEL: Final = "nats-py, each message signed by hand"


def key_of(name: str) -> SigningKey:
    """Known to both sides, for want of a directory."""
    return SigningKey(sha256(name.encode()).digest())


def signed(key: SigningKey, text: str) -> bytes:
    """Signature and body."""
    return bytes(key.sign(json.dumps({"text": text}).encode()))


def verified(key: VerifyKey, data: bytes) -> str:
    """The text, if the signature is good."""
    return str(json.loads(key.verify(data))["text"])


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[str]:
    """The broker and who answers."""
    ours, theirs = key_of("echo"), key_of("asker").verify_key
    async with broker() as url:
        connection = await connected(url)

        async def answer(message: Msg) -> None:
            await message.respond(signed(ours, verified(theirs, message.data)))

        await connection.subscribe("echo", cb=answer)
        await connection.flush()
        yield url
        await connection.close()


@asynccontextmanager
async def client(folder: Path, address: str) -> AsyncIterator[Echo]:
    """Who asks."""
    ours, theirs = key_of("asker"), key_of("echo").verify_key
    connection = await connected(address)

    async def echo(text: str) -> str:
        reply = await connection.request("echo", signed(ours, text), timeout=30)
        return verified(theirs, reply.data)

    yield echo
    await connection.close()
