"""a2a-sdk: an agent behind JSON-RPC over HTTP (starlette, uvicorn, httpx), unsigned."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import uvicorn
from a2a.client.client import ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.helpers.proto_helpers import get_stream_response_text, new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes.jsonrpc_routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Role, SendMessageRequest
from starlette.applications import Starlette

from benchmarks.peer import Echo

LABEL: Final = "a2a-sdk, JSON-RPC"


def card(url: str) -> AgentCard:
    """What a client needs to know."""
    return AgentCard(
        name="echo",
        description="echoes",
        version="1.0.0",
        capabilities=AgentCapabilities(streaming=False),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="echo", description="echoes", tags=["echo"])],
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
    )


class Echoing(AgentExecutor):
    """Answers each message with its text."""

    async def execute(self, context: RequestContext, event_queue: object) -> None:
        """The same again."""
        await event_queue.enqueue_event(new_text_message(context.get_user_input()))  # type: ignore[attr-defined]

    async def cancel(self, context: RequestContext, event_queue: object) -> None:
        """Nothing to cancel."""


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[str]:
    """uvicorn with the agent."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    handler = DefaultRequestHandler(Echoing(), InMemoryTaskStore(), card(url))
    app = Starlette(routes=create_jsonrpc_routes(handler, "/"))
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    task = asyncio.ensure_future(running.serve())
    while not running.started:  # noqa: ASYNC110  # it has no event for that
        await asyncio.sleep(0.02)
    yield url
    running.should_exit = True
    await task


@asynccontextmanager
async def client(folder: Path, address: str) -> AsyncIterator[Echo]:
    """The SDK's own client, with room for all requests in flight."""
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(limits=limits, timeout=60) as http:
        asking = ClientFactory(ClientConfig(streaming=False, httpx_client=http)).create(card(address))

        async def echo(text: str) -> str:
            request = SendMessageRequest(message=new_text_message(text, role=Role.ROLE_USER))
            return "".join([get_stream_response_text(response) async for response in asking.send_message(request)])

        yield echo
