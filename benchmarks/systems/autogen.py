"""autogen-core over its gRPC host: a routed agent that echoes a dataclass, unsigned."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from autogen_core import AgentId, MessageContext, RoutedAgent, message_handler, try_get_known_serializers_for_type
from autogen_ext.runtimes.grpc import GrpcWorkerAgentRuntime, GrpcWorkerAgentRuntimeHost

from benchmarks.peer import Echo

LABEL: Final = "autogen-core, gRPC"


@dataclass
class Ping:
    """What is echoed."""

    text: str


class EchoAgent(RoutedAgent):
    """Answers."""

    def __init__(self) -> None:
        super().__init__("echoes")

    @message_handler
    async def on_ping(self, message: Ping, ctx: MessageContext) -> Ping:
        """The same again."""
        return Ping(message.text)


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[str]:
    """The host and a worker with the agent."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host = GrpcWorkerAgentRuntimeHost(address=address)
    host.start()
    worker = GrpcWorkerAgentRuntime(host_address=address)
    await worker.start()
    await EchoAgent.register(worker, "echo", EchoAgent)
    yield address
    await worker.stop()
    await host.stop()


@asynccontextmanager
async def client(folder: Path, address: str) -> AsyncIterator[Echo]:
    """Another worker, which asks."""
    worker = GrpcWorkerAgentRuntime(host_address=address)
    worker.add_message_serializer(try_get_known_serializers_for_type(Ping))
    await worker.start()
    target = AgentId("echo", "default")

    async def echo(text: str) -> str:
        reply: Ping = await worker.send_message(Ping(text), target)
        return reply.text

    yield echo
    await worker.stop()
