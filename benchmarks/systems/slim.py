"""SLIM's RPC (slim-bindings) through its data plane: a unary call that echoes, in sessions as its bindings make."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import slim_bindings as slim

from benchmarks.peer import Echo

LABEL: Final = "SLIM, RPC"
SECRET: Final = "a secret of sixty-four characters, for want of anything to hide."


async def app(name: str, address: str) -> tuple[Any, int]:
    """An application called ``name``, connected to the data plane."""
    service = slim.get_global_service()
    made = slim.App.new_with_secret(slim.Name.from_string(f"bench/local/{name}"), SECRET)
    connection = await service.connect_async(slim.new_insecure_client_config(f"http://{address}"))
    await made.subscribe_async(made.name(), connection)
    return made, connection


class Echoing(slim.UnaryUnaryHandler):  # type: ignore[misc]
    """Answers."""

    async def handle(self, request: bytes, context: Any) -> bytes:
        """The same again."""
        return request


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[str]:
    """The data plane and who answers."""
    slim.uniffi_set_event_loop(asyncio.get_running_loop())
    slim.initialize_with_defaults()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    await slim.get_global_service().run_server_async(slim.new_insecure_server_config(address))
    made, connection = await app("echo", address)
    answering = slim.Server.new_with_connection(made, slim.Name.from_string("bench/local/echo"), connection)
    answering.register_unary_unary("Echo", "Say", Echoing())
    task = asyncio.ensure_future(answering.serve_async())
    await asyncio.sleep(0.5)  # it says nothing when it is ready
    yield address
    with suppress(Exception):
        await asyncio.wait_for(answering.shutdown_async(), 5)
    task.cancel()


@asynccontextmanager
async def client(folder: Path, address: str) -> AsyncIterator[Echo]:
    """A channel to it."""
    slim.uniffi_set_event_loop(asyncio.get_running_loop())
    slim.initialize_with_defaults()
    made, connection = await app("asker", address)
    target = slim.Name.from_string("bench/local/echo")
    await made.set_route_async(target, connection)
    channel = slim.Channel.new_with_connection(made, target, connection)

    async def echo(text: str) -> str:
        reply = await channel.call_unary_async("Echo", "Say", text.encode(), timedelta(seconds=60), None)
        return bytes(reply).decode()

    yield echo
    with suppress(Exception):
        await asyncio.wait_for(channel.close_async(timedelta(seconds=2)), 5)
