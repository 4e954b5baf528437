"""The six programs, each with its whole trust domain in this process."""

from __future__ import annotations

import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentbus import Bus
from agentbus.testing import Network
from agentbus.testing.plugin import net
from tests.cli.program import environment
from tests.examples.conftest import EXAMPLES
from tests.examples.model import Model

__all__ = ["net"]


async def test_hello(capsys: pytest.CaptureFixture[str]) -> None:
    await import_module("hello").main()
    assert capsys.readouterr().out == "spiffe://local.test/user/alice asked: why?why?why?why?why?why?why?why?why?\n"


# ── the LLM agent ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def answering(model: Model, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    monkeypatch.setenv("OPENAI_MODEL", "parrot")
    return model


async def test_the_model_answers_from_the_notes_of_whoever_asks(
    answering: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    await import_module("llm_agent").main("What is due?")
    assert capsys.readouterr().out == "Monday: water the ferns. Tuesday: call Bo. What is due? \n"
    assert answering.requests[-1]["model"] == "parrot" and answering.keys[-1] == "Bearer a-key"


async def test_another_user_gets_her_own_notes_and_no_user_gets_none(answering: Model) -> None:
    program = import_module("llm_agent")

    async def answer(caller: Any, **options: Any) -> str:
        async with caller.stream("assistant", program.Chat(question="?"), **options) as tokens:
            return "".join([token.text async for token in tokens])

    async with Bus.local() as bus, bus.serve(program.notebook, program.assistant):
        bob = bus.user("bob", scopes=["notes:read"])
        assert (await answer(bob, delegate=["notes:read"])) == "Nothing this week. ? "
        for caller, options, code in (
            (bob, {}, "denied.nothing_handed_over"),
            (bus, {"delegate": ["notes:read"]}, "denied.user_required"),
        ):
            with pytest.raises(PermissionError) as refused:
                await answer(caller, **options)
            assert getattr(refused.value, "code", "") == code


async def test_a_model_that_is_away_is_the_programs_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    program = import_module("llm_agent")
    with pytest.raises(program.ModelUnavailable) as away:
        await program.main("?")
    assert "http://127.0.0.1:9/v1/ did not answer" in str(away.value)


# ── the web application ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_web_application_acts_for_whoever_is_logged_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hello, web = import_module("hello"), import_module("web_app")
    async with Bus.local() as bus, bus.serve(hello.planner, hello.summarizer):
        web.app.state.bus = bus
        alice = bus.user("alice", scopes=["docs:read"])
        granted = await alice.delegate("local", ["docs:read"], depth=1)
        bus.keep(granted)
        transport = httpx2.ASGITransport(web.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://web") as client:

            async def ask(*login: str) -> httpx2.Response:
                return await client.get("/ask", params={"question": "why?"}, auth=login or None)

            answer = await ask("alice", "wonderland")
            assert answer.status_code == 200 and answer.json()["text"].startswith("spiffe://local.test/user/alice")
            assert (await ask()).status_code == 401
            assert (await ask("alice", "looking-glass")).status_code == 401
            assert "does not allow" in (await ask("bob", "builder")).json()["detail"]
            bob = bus.user("bob", scopes=["notes:read"])
            bus.keep(await bob.delegate("local", ["notes:read"], depth=1))
            refused = await ask("bob", "builder")
            assert refused.status_code == 403 and refused.json()["code"].startswith("denied.")
            assert refused.headers["content-type"] == "application/problem+json"

            await alice.revoke(granted, reason="enough")
            refused = await ask("alice", "wonderland")
            assert refused.status_code == 403 and "does not allow" in refused.json()["detail"]


# ── the pool, the test, the auditor ──────────────────────────────────────────────────────────────────────────────────


async def test_the_worker_pool(capsys: pytest.CaptureFixture[str]) -> None:
    await import_module("worker_pool").main(connect=False)
    out = capsys.readouterr().out
    assert "600851475143 = 71 × 839 × 1471 × 6857" in out and "2305843009213693951 = 2305843009213693951" in out


def test_the_test_of_a_widened_scope(tmp_path: Path) -> None:
    """By pytest as anybody has it, with no setting of theirs: the fixture comes from the installed package."""
    (tmp_path / "test_widened_scope.py").write_bytes((EXAMPLES / "test_widened_scope.py").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path, capture_output=True, text=True,
        env=environment(tmp_path), timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


async def test_the_auditor(net: Network) -> None:
    hello, auditor = import_module("hello"), import_module("auditor")
    async with net.serve(hello.planner, hello.summarizer):
        alice = net.user("alice", scopes=["docs:read"])
        await alice.request("planner", hello.Ask(question="why?"), delegate=["docs:read"])
        with pytest.raises(PermissionError):
            await alice.request("planner", hello.Ask(question="why?"))
        evidence = net.evidence("planner")
    report = evidence.verify()
    assert report.ok and "INTACT         yes" in auditor.verdicts(report)
    told = auditor.who_did_what_for_whom(evidence).splitlines()
    assert [line for line in told if line.startswith("for user/")] == [
        "for user/alice: user/alice asked planner to Ask: ok, 2 ×",
        "for user/alice: user/alice → planner asked summarizer to Summarize: ok, 1 ×",
    ]
    assert "for itself: service/directory → planner asked service/directory to Describe: ok, 1 ×" in told


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_importing_a_program_runs_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="imported")
    assert capsys.readouterr().out == ""
