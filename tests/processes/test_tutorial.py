"""The tutorial, block by block and in its order, as a newcomer would paste it into three shells."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.program import Program, environment

DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL = (DOCS / "tutorial.md").read_text("utf-8")
STEP = re.compile(
    r"^<!-- shell (?P<shell>\d)(, (?P<how>until|refused|says): (?P<what>[^>]+?)|, (?P<key>Ctrl-C))? -->\n"
    r"(```sh\n(?P<block>.*?)^```)?",
    re.MULTILINE | re.DOTALL,
)


class Shell(Program):
    """A shell into which one pastes; it is in a session of its own, as a terminal's is."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        super().__init__("bash", cwd=folder, env=env, typed=True)
        self.pasted = 0

    def paste(self, block: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(block)
        self.process.stdin.flush()

    def ran(self, block: str) -> tuple[int, str]:
        """Paste a block of commands that end: the exit status of the last one, and what they said."""
        self.pasted += 1
        before = len(self.lines)
        self.paste(f"{block}echo done {self.pasted} $?\n")
        last = self.until(f"done {self.pasted} ")
        return int(last.split()[-1]), "\n".join(self.lines[before:-1])

    def interrupt(self) -> None:
        """Ctrl-C reaches what runs in the foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        self.stop()


@pytest.fixture
def shells(tmp_path: Path) -> Iterator[dict[str, Shell]]:
    """Three, in an empty folder, of somebody who has no bus."""
    env = environment(tmp_path)
    del env["AGENTBUS_HOME"]
    opened = {number: Shell(tmp_path, env) for number in "123"}
    yield opened
    for shell in opened.values():
        shell.close()


def test_every_block_of_the_tutorial_is_one_that_the_test_pastes() -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", TUTORIAL, re.MULTILINE | re.DOTALL)
    steps = [step["block"] for step in STEP.finditer(TUTORIAL) if step["block"]]
    assert [text for language, text in blocks if language == "sh"] == steps
    assert [language for language, _ in blocks if language != "sh"] == ["python"]
    assert len(steps) >= 9


def test_a_newcomer_gets_from_an_empty_folder_to_the_first_refused_request(
    tmp_path: Path, shells: dict[str, Shell]
) -> None:
    hello = tmp_path / "hello.py"
    program = re.search(r"^```python\n(.*?)^```", TUTORIAL, re.MULTILINE | re.DOTALL)
    assert program is not None
    hello.write_text(program[1], "utf-8")
    said: list[str] = []
    for step in STEP.finditer(TUTORIAL):
        shell, block = shells[step["shell"]], step["block"] or ""
        block = re.sub(r"^agentbus up$", "agentbus up --port 0", block, flags=re.MULTILINE)  # 7400 may be somebody's
        if step["key"]:
            shell.interrupt()
            assert shell.ran("true\n")[0] == 0  # it has its prompt again
        elif step["how"] == "until":
            shell.paste(block)
            shell.until(step["what"])
        else:
            status, text = shell.ran(block)
            assert (status != 0) == (step["how"] in ("refused", "says")), text
            assert step["how"] != "says" or step["what"] in text, text
            if step["how"] == "refused":
                assert re.fullmatch(rf"agentbus: .+ \[{re.escape(step['what'])}\]", text), text
            said.append(text)

    assert "spiffe://dev.local/user/alice asked: why?why?" in said[0]
    assert "spiffe://agents.local/user/alice asked: why?why?" in said[1]
    assert "add --delegate SCOPE" in said[2]
    verified = said[-1]
    assert re.search(r"^INTACT +yes", verified, re.MULTILINE) and "Summarize" in verified

    segment = tmp_path / "bus" / "logs" / "planner" / "00000000.seg"
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    again = "agentbus log verify bus/logs/planner --directory bus/directory/directory\n"
    status, text = shells["3"].ran(again)
    assert status == 1 and re.search(r"^INTACT +NO", text, re.MULTILINE)
