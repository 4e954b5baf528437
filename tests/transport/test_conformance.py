"""The same promises, kept by each transport."""

from __future__ import annotations

import pytest
from nacl.public import PrivateKey

from agentbus.testing.transports import TransportConformance
from agentbus.transport.base import Transport
from agentbus.transport.memory import MemoryHub, MemoryTransport
from agentbus.transport.zeromq import ZmqTransport


class TestMemory(TransportConformance):
    @pytest.fixture(autouse=True)
    def one_hub(self) -> None:
        self.hub = MemoryHub()

    def make(self, *, listen: bool, queue: int, max_frame: int) -> tuple[Transport, bytes]:
        key = bytes(PrivateKey.generate().public_key)
        return MemoryTransport(self.hub, key=key, listen=listen, queue=queue, max_frame=max_frame), key


class TestZeroMQ(TransportConformance):
    def make(self, *, listen: bool, queue: int, max_frame: int) -> tuple[Transport, bytes]:
        secret = PrivateKey.generate()
        key = bytes(secret.public_key)
        endpoint = "tcp://127.0.0.1:*" if listen else None
        return (
            ZmqTransport(
                secret_key=bytes(secret), public_key=key, listen=endpoint, high_water=queue, max_frame=max_frame
            ),
            key,
        )


async def test_a_hub_closes_everybody_who_listens() -> None:
    hub = MemoryHub()
    transports = [MemoryTransport(hub, key=bytes([number]) * 32) for number in range(3)]
    for transport in transports:
        await transport.open(_Deaf())
    endpoints = [transport.endpoints[0] for transport in transports]
    assert len(set(endpoints)) == 3
    await hub.aclose()
    assert [hub.listener(endpoint) for endpoint in endpoints] == [None] * 3


class _Deaf:
    def received(self, connection: object, frame: bytes) -> None: ...

    def lost(self, connection: object, reason: str) -> None: ...

    async def admit(self, key: bytes) -> bool:
        return False
