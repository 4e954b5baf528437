"""The six programs with a directory, as the processes they are."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentbus import Authority, Identity
from agentbus.testing.raw import RawPeer
from tests.cli.program import PATIENCE, Program, paste, run
from tests.cli.town import Town
from tests.examples.conftest import EXAMPLES
from tests.examples.model import Model


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Everybody who appears in the examples."""
    made = Town(tmp_path_factory.mktemp("town"))
    try:
        names = ["summarizer", "planner", "web", "worker", "boss", "bank", "mallory", "user/alice", "user/bob"]
        made.enrol(*names, scopes=["docs:read", "account:read", "account:pay"])
        yield made
    finally:
        made.close()


def serve(town: Town, target: str, *more: str) -> Program:
    """``agentbus run``, once it can be asked."""
    program = town.start("run", target, *more, "--json", cwd=EXAMPLES)
    program.until('"ready": true')
    return program


def test_hello_the_web_application_and_the_auditor(town: Town) -> None:
    agents = [serve(town, "hello:summarizer"), serve(town, "hello:planner")]
    asking = ("request", "planner", "Ask", '{"question": "why?"}', "--as", "user/alice")
    answer = town.run(*asking, "--delegate", "docs:read")
    assert answer["text"].startswith("spiffe://agents.local/user/alice asked: why?why?")

    grant = town.folder / "alice.grant"
    town.run("grant", "create", "web", "--scope", "docs:read", "--as", "user/alice", "--out", str(grant))
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    server = Program(
        sys.executable, "-m", "uvicorn", "web_app:app", "--port", str(port), "--log-level", "info",
        cwd=EXAMPLES, env=town.env,
    )  # fmt: skip
    town.programs.append(server)
    server.until("Uvicorn running on")

    def ask(*login: str) -> httpx2.Response:
        return httpx2.get(f"http://127.0.0.1:{port}/ask", params={"question": "who?"}, auth=login, timeout=PATIENCE)

    answer = ask("alice", "wonderland")
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"].startswith("spiffe://agents.local/user/alice asked: who?who?")
    assert ask("bob", "builder").status_code == 403
    town.run("grant", "revoke", str(grant), "--reason", "enough", "--as", "user/alice")
    end = time.monotonic() + PATIENCE
    while (answer := ask("alice", "wonderland")).status_code == 200 and time.monotonic() < end:
        continue  # each round is a request: the revocation is on its way
    assert answer.status_code == 403, answer.text  # by planner, or by the application that heard of it first

    server.stop()
    assert [agent.stop() for agent in agents] == [0, 0]
    assert "Traceback" not in "\n".join(line for program in (server, *agents) for line in program.lines)
    logs = [str(town.folder / "logs" / name) for name in ("planner", "summarizer")]
    command = [sys.executable, str(EXAMPLES / "auditor.py"), *logs, "--directory"]
    audited = paste(f"{shlex.join(command)} {town.home / 'directory' / 'directory'}", town.folder, town.env)
    assert audited.returncode == 0, audited.stdout + audited.stderr
    told = audited.stdout.splitlines()
    assert [line for line in told if line.startswith("for user/alice: user/alice → web → planner asked summarizer")]
    assert [line for line in told if line.startswith("for user/alice: user/alice → web asked planner to Ask: ok")]


def test_the_llm_agent_streams_for_a_user(model: Model, tmp_path: Path) -> None:
    """Under ``agentbus dev``, asked by the line that it prints."""
    env = {**os.environ, "OPENAI_BASE_URL": model.url, "TMPDIR": str(tmp_path)}
    program = Program(sys.executable, "-P", "-m", "agentbus.cli.main", "dev", "llm_agent.py", cwd=EXAMPLES, env=env)
    try:
        line = program.until("assistant Chat").strip()
        assert line.endswith("--as user/alice --delegate notes:read --stream")
        asked = paste(line, tmp_path, env)
        assert asked.returncode == 0, asked.stderr
        words = asked.stdout.splitlines()
        assert words[1:4] == ['{"text": "Monday: "}', '{"text": "water "}', '{"text": "the "}']
        assert words[-2:] == ['{"text": "question "}', '{"text": ""}']
    finally:
        assert program.stop() == 0


def test_the_pool_of_workers_shares_the_work(town: Town) -> None:
    workers = serve(town, "worker_pool:worker", "--instances", "2")
    boss = [sys.executable, str(EXAMPLES / "worker_pool.py"), "--connect"]
    done = paste(shlex.join(boss), town.folder, town.env)
    assert done.returncode == 0, done.stderr
    assert "600851475143 = 71 × 839 × 1471 × 6857" in done.stdout and done.stdout.endswith("2 processes\n")
    assert workers.stop() == 0


async def test_a_widened_scope_is_refused_by_another_process(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bank as in the example; mallory's node is her own, and signs what she wants."""
    example = import_module("test_widened_scope")
    bank = serve(town, "test_widened_scope:bank")
    look = tmp_path / "look.grant"
    grant = ("grant", "create", "mallory", "--scope", "account:read", "--out", str(look), "--as", "user/alice")
    await asyncio.to_thread(town.run, *grant)
    held = Authority.from_bytes(look.read_bytes())
    mallory = Identity.from_file(town.home / "keys" / "mallory.json")
    peer = await RawPeer.connect(mallory, url=town.url, folder=tmp_path / "log")
    try:

        async def outcome(message: Any, **chain: Any) -> str | None:
            return await peer.deliver(await peer.seal("bank", message, authority=held, **chain), wait=PATIENCE)

        assert await outcome(example.Balance()) == "ok"
        assert await outcome(example.Pay(cents=100)) == "denied.scope"
        wide = peer.widened(held, "bank", ["account:pay"])
        assert await outcome(example.Balance(), handover=wide) == "reject.grant_widens"
    finally:
        await peer.aclose()
    assert bank.stop() == 0


def test_the_command_line_runs_where_the_examples_lie(town: Town) -> None:
    """Nothing they need is missing where only ``[examples]`` is installed: no test package is imported."""
    assert run("run", "hello:nobody", cwd=EXAMPLES, env=town.env).stderr.count("it has summarizer, planner") == 1
