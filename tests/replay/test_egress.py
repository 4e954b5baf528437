"""A replay leaves no trace outside its process: in processes of their own, against real listeners."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from agentbus.testing import Network
from agentbus.wire.ids import b64

from .stage import Taped, taped

AGENT = '''
import ctypes, os, socket, struct, subprocess, sys, urllib.request
from pydantic import BaseModel
from agentbus import Agent, Context, Request

class Got(BaseModel):
    text: str

class Go(Request[Got]):
    how: str

async def outside() -> int:
    raise AssertionError("a step was called")

def c_library(port: int) -> None:
    """What Python does not see: the system calls of a C library."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.socket(2, 1, 0)
    address = struct.pack("=HH4s8x", 2, socket.htons(port), bytes([127, 0, 0, 1]))
    if libc.connect(fd, address, len(address)) != 0:
        raise OSError(ctypes.get_errno(), "connect")

PORT = int(os.environ.get("PORT", "0"))
WAYS = {
    "step": lambda: None,
    "socket": lambda: socket.create_connection(("127.0.0.1", PORT), timeout=5),
    "http": lambda: urllib.request.urlopen(f"http://127.0.0.1:{PORT}/secret", timeout=5),
    "process": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
    "c": lambda: c_library(PORT),
}
agent = Agent("shop", replayable=True)

@agent.handler
async def go(request: Go, ctx: Context) -> Got:
    n = await ctx.step("outside", outside, type=int)
    if os.environ.get("LEAK"):
        try:
            WAYS[request.how]()
        except Exception:  # even who swallows what refuses it is found out
            pass
    return Got(text=f"{request.how} {n} {ctx.now()}")
'''

CHILD = """
import socket, sys

class Refused(socket.socket):
    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        if fileno is None:  # with one it is half of the pair that wakes an event loop
            raise AssertionError("a socket was opened")
        super().__init__(family, type, proto, fileno)

socket.socket = Refused
import zmq
def refused(*_, **__): raise AssertionError("a ZeroMQ socket was opened")
zmq.Context.socket = refused
from agentbus.cli.main import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Taped:
    folder = tmp_path_factory.mktemp("tape")
    (folder / "leaky.py").write_text(AGENT)

    async def business(net: Network) -> None:
        async def seven() -> int:
            return 7

        space: dict[str, Any] = {}
        exec(compile(AGENT, "leaky.py", "exec"), space)
        space["outside"] = seven
        async with net.serve(space["agent"]):
            for how in space["WAYS"]:
                await net.request("shop", space["Go"](how=how))

    return taped(business, folder)


@pytest.fixture
def listener() -> Iterator[tuple[int, list[Any]]]:
    """A server on loopback that remembers who came."""
    server, came = socket.create_server(("127.0.0.1", 0)), []

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            came.append(connection)
            connection.close()

    thread = threading.Thread(target=accept)
    thread.start()
    yield server.getsockname()[1], came
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def replay(tape: Taped, *start: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    command = [
        sys.executable, *start, "log", "replay", str(tape.log), "leaky:agent", "--mode", "stub",
        "--root", b64(tape.root), "--json",
    ]  # fmt: skip
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("AGENTBUS_")}, **environment}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=env, cwd=tape.log.parent
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_a_replay_opens_no_socket(tape: Taped) -> None:
    code, report, complaint = replay(tape, "-c", CHILD)
    assert code == 0, (report, complaint)
    assert report["counts"]["same"] == report["messages"] == 5


def test_an_agent_that_wants_out_is_refused_and_found_out(tape: Taped, listener: tuple[int, list[Any]]) -> None:
    port, came = listener
    code, report, _ = replay(tape, "-m", "agentbus.cli.main", LEAK="1", PORT=str(port))
    assert code == 1
    status = {result["what"]: result["status"] for result in report["results"] if result["what"]}
    assert status == {"egress": "extra"}
    assert [r["status"] for r in report["results"]][:4] == ["same", "extra", "extra", "extra"]
    if report["egress"] == "namespace":  # the kernel's promise holds for a C library, too; the guard's does not
        assert came == []


def test_without_a_replay_the_same_agent_gets_out(tape: Taped, listener: tuple[int, list[Any]]) -> None:
    """The control: what the test above counts, it can count."""
    port, came = listener
    script = "import leaky; leaky.WAYS['socket'](); leaky.WAYS['c']()"
    subprocess.run(
        [sys.executable, "-c", script], check=True, cwd=tape.log.parent, env={**os.environ, "PORT": str(port)}
    )
    deadline = threading.Event()
    for _ in range(500):
        if len(came) == 2:
            break
        deadline.wait(0.01)
    assert len(came) == 2


def test_the_guard_is_off_once_a_replay_is_over(tape: Taped, listener: tuple[int, list[Any]]) -> None:
    from agentbus.errors import Unavailable
    from agentbus.replay.guard import Guard

    told: list[str] = []
    with Guard(told.append), pytest.raises(Unavailable, match=r"unavailable\.egress"):
        socket.create_connection(("127.0.0.1", listener[0]))
    assert told
    socket.create_connection(("127.0.0.1", listener[0])).close()
