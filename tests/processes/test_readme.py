"""README's commands, as a stranger would paste them. Its installation, demo and tests are what ``.ci/run`` runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cli.program import Program, environment, paste

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def block(mark: str, language: str) -> str:
    found = re.search(rf"^<!-- {mark} -->\n```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_from_nothing_to_a_reply_in_three_commands(tmp_path: Path) -> None:
    """The first is the installation; here, what is installed already stands where it would put it."""
    install, serve, ask = block("serve", "sh").splitlines()
    assert install == "python3 -m venv .venv && .venv/bin/pip install -q -e ."
    assert install in block("demo", "sh")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent, target_is_directory=True)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    env = environment(tmp_path)
    del env["AGENTBUS_HOME"]
    served = Program("bash", "-c", f"exec {serve}", cwd=tmp_path, env=env)
    try:
        served.until("request planner")
        asked = paste(ask, tmp_path, env)
        assert asked.returncode == 0, asked.stderr
        assert "spiffe://dev.local/user/alice asked: why?why?" in asked.stdout
    finally:
        assert served.stop() == 0


def test_the_example_runs_and_without_delegate_it_is_refused_as_readme_says(tmp_path: Path) -> None:
    """``Take delegate=["docs:read"] away and run it again``: the error says what is missing."""
    source = block("example", "python")
    for text, code in ((source, 0), (source.replace(', delegate=["docs:read"]', ""), 1)):
        (tmp_path / "example.py").write_text(text, "utf-8")
        done = subprocess.run(
            [sys.executable, "example.py"], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        if code == 0:
            assert done.stdout.startswith("spiffe://local.test/user/alice asked: why?why?")
        else:
            assert "denied.nothing_handed_over" in done.stderr.strip().splitlines()[-1]
            assert "delegate=[…]" in done.stderr.strip().splitlines()[-1]


def test_every_link_of_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
