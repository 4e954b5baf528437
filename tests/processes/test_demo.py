"""The main job: the demo, as README's command runs it; and each of its attacks by its own code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

EXPECTED = {
    "set up": "ok",
    "question answered": "ok",
    "a frame with one bit flipped": "reject.body",
    "a replayed frame": "reject.replayed",
    "signing as planner": "reject.sender_key",
    "a scope that was not granted": "denied.scope",
    "a widened grant": "reject.grant_widens",
    "planner revoked in the middle": "reject.revoked",
    "logs verified offline": "ok",
    "logs reconciled": "ok",
    "a proof checked": "ok",
    "replayed byte for byte": "ok",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("AGENTBUS_")}
    command = [sys.executable, "-m", "agentbus.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)


def test_the_demo_does_every_step_and_its_logs_verify_with_the_command_line(tmp_path: Path) -> None:
    done = run("demo", "--json", "--data", str(tmp_path / "demo"))
    assert done.returncode == 0, done.stdout + done.stderr
    story: dict[str, Any] = json.loads(done.stdout)
    assert story["ok"] is True
    codes = {step["name"]: step["code"] for step in story["steps"]}
    assert {name: codes.get(name) for name in EXPECTED} == EXPECTED
    assert all(step["ok"] for step in story["steps"])
    assert story["citations"] and "suppressed" in story["answer"]
    assert {name: v["ok"] for name, v in story["verdicts"].items()} == dict.fromkeys(
        ("AUTHENTIC", "KEY-VALID", "AUTHORISED", "INTACT"), True
    )

    replay = story["replay"]
    assert replay["ok"] is True and replay["mode"] == "stub" and replay["counts"]["same"] == replay["messages"] == 3
    assert set(replay["agents"]) == {"planner", "summarizer"}

    data = tmp_path / "demo"
    nodes = [str(data / name) for name in ("planner", "librarian", "summarizer", "directory-node", "user-alice")]
    verify = ["log", "verify", *nodes, "--directory", str(data / "directory"), "--root", story["root"]]
    assert run(*verify).returncode == 0
    other = "A" * 42 + "E"
    assert run(*verify[:-1], other, "--json").returncode == 1


def test_the_demo_answers_any_question_about_any_folder(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "moon.md").write_text(
        "# Tides\n\nThe tides of the sea follow the moon, because the moon pulls the water nearest to it hardest. "
        "The sun pulls the water as well, though less than the moon does, which makes spring tides and neap tides.\n"
    )
    done = run("demo", "--json", "--corpus", str(corpus), "--question", "Why do tides follow the moon?")
    story = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "moon" in story["answer"] and story["citations"][0].startswith("moon.md")


def test_an_empty_corpus_is_said_before_anything_starts(tmp_path: Path) -> None:
    done = run("demo", "--corpus", str(tmp_path))
    assert done.returncode == 2
    assert "config.corpus_empty" in done.stderr
