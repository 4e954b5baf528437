"""``agentbus dev`` as the process it is: a file is edited, broken and mended, and asked each time from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentbus import Bus, HandlerFailed, Identity, Raw
from agentbus.cli.dev.load import Target
from tests.cli.program import AGENTBUS, Program, environment, paste, run

HELLO = Path(__file__).parents[2] / "examples" / "hello.py"
README = Path(__file__).parents[2] / "README.md"

GREETER = """
from pydantic import BaseModel
from agentbus import Agent, Context, Request
import words

class Greeting(BaseModel):
    text: str
class Greet(Request[Greeting]):
    name: str

greeter = Agent("greeter")

@greeter.handler
async def greet(request: Greet, ctx: Context) -> Greeting:
    ctx.require("greetings:send")
    return Greeting(text=f"{words.HELLO}, {request.name}")
"""

Start = Callable[..., Program]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A person who has used no agentbus before; what dev leaves in the temporary folder can be counted."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "work").mkdir()
    found = environment(tmp_path / "nowhere", TMPDIR=str(tmp_path / "tmp"))
    del found["AGENTBUS_HOME"]
    return found


@pytest.fixture
def work(tmp_path: Path, env: dict[str, str]) -> Path:
    return tmp_path / "work"


@pytest.fixture
def start(work: Path, env: dict[str, str]) -> Iterator[Start]:
    started: list[Program] = []

    def begin(*arguments: str, **more: str) -> Program:
        program = Program(*AGENTBUS, "dev", *arguments, cwd=work, env={**env, **more})
        started.append(program)
        return program

    yield begin
    for program in started:
        program.stop(signal.SIGKILL)


def save(path: Path, text: str) -> None:
    """As editors do: a new file takes the old one's place."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text, "utf-8")
    fresh.replace(path)


async def ask(home: str, agent: str, message: Raw, scopes: list[str] | None = None) -> dict[str, Any]:
    url = json.loads((Path(home) / "profile.json").read_text("utf-8"))["url"]
    identity = Identity.from_file(Path(home) / "keys" / "user__alice.json")
    async with Bus.connect(url, identity=identity, listen="") as bus:
        return await bus.as_user(scopes or []).request(agent, message, timeout=30)


@pytest.mark.parametrize("watching", ["as installed", "by looking"])
def test_a_file_is_edited_broken_and_mended_and_asked_each_time(
    watching: str, start: Start, work: Path, env: dict[str, str], tmp_path: Path
) -> None:
    more = {}
    if watching == "by looking":  # as where watchfiles is not installed
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "watchfiles.py").write_text("raise ImportError('not installed')")
        more["PYTHONPATH"] = str(tmp_path / "without")
    shutil.copy(HELLO, work)
    source, file = HELLO.read_text("utf-8"), work / "hello.py"
    dev = start("hello.py", **more)
    assert re.fullmatch(r"bus agentbus://127\.0\.0\.1:\d+#[\w-]{43}\.[\w-]{43}", dev.until("bus "))
    line = dev.until("request planner").strip()
    assert "/agentbus-dev-" in line and "--as user/alice --delegate docs:read" in line

    def answer() -> str:
        asked = paste(line, work, env)
        assert asked.returncode == 0, asked.stderr
        return str(json.loads(asked.stdout)["text"])

    assert answer().startswith("spiffe://dev.local/user/alice asked: question")

    save(file, source.replace("asked:", "wonders:"))
    dev.until("hello.py was saved")
    dev.until("serving summarizer (Summarize), planner (Ask)")
    assert "wonders:" in answer()

    save(file, source + "\nsize = 1 / 0\n")
    dev.until("hello.py was saved")
    dev.until("Traceback")
    assert str(file) in dev.until("File ") and f"line {source.count(chr(10)) + 2}" in dev.lines[-1]
    dev.until("ZeroDivisionError: division by zero")
    dev.until("the version before is still served")
    assert "wonders:" in answer()

    save(file, source.replace("async def answer(", "async def answer((("))
    dev.until("hello.py was saved")
    dev.until("SyntaxError")

    save(file, source.replace("asked:", "has asked:"))
    dev.until("serving summarizer (Summarize), planner (Ask)")
    assert "has asked:" in answer()
    assert not any("agentbus/" in line and "File " in line for line in dev.lines), "frames of ours tell nobody anything"

    assert dev.stop() == 0
    assert list((tmp_path / "tmp").glob("agentbus-*")) == []
    assert "fault in agentbus" not in "\n".join(dev.lines)


async def test_a_module_that_the_file_imports_counts_and_scopes_can_be_added(start: Start, work: Path) -> None:
    (work / "greeter.py").write_text(GREETER)
    (work / "words.py").write_text("HELLO = 'Good morning'\n")
    dev = start("greeter.py:greeter", "--scope", "greetings:send", "--json")
    home = json.loads(dev.until('"bus"'))["home"]
    served = json.loads(dev.until('"serving"'))
    assert served["agents"] == [{"name": "greeter", "messages": ["Greet"]}]
    assert served["try"][0].endswith("""greeter Greet '{"name": "name"}' --as user/alice --scope greetings:send""")
    greet = Raw("Greet", {"name": "Bo"})
    assert (await ask(home, "greeter", greet, ["greetings:send"]))["text"] == "Good morning, Bo"

    save(work / "words.py", "HELLO = 'Good evening'\n")  # of the same length, and within the same second
    assert json.loads(dev.until('"changed"'))["files"] == [str(work / "words.py")]
    dev.until('"serving"')
    assert (await ask(home, "greeter", greet, ["greetings:send"]))["text"] == "Good evening, Bo"

    save(work / "words.py", "HELLO = undefined\n")
    error = json.loads(dev.until('"error"'))
    assert "words.py" in error["message"] and "name 'undefined' is not defined" in error["message"]
    save(work / "words.py", "HELLO = 'Hello'\n")
    dev.until('"serving"')
    assert (await ask(home, "greeter", greet, ["greetings:send"]))["text"] == "Hello, Bo"


def test_readmes_example_is_served_as_it_stands(start: Start, work: Path, env: dict[str, str]) -> None:
    """Its last line runs it: that happens, too, and does not keep it from being served."""
    text = README.read_text("utf-8").partition("<!-- example -->")[2]
    (work / "hello.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    dev = start("hello.py")
    dev.until("user/alice asked: why?why?")
    asked = paste(dev.until("request planner"), work, env)
    assert "spiffe://dev.local/user/alice asked: question" in asked.stdout


def test_what_a_folder_keeps_is_there_again_and_no_other_directorys_folder_is_touched(
    start: Start, work: Path, env: dict[str, str], tmp_path: Path
) -> None:
    shutil.copy(HELLO, work)
    mine = {**env, "AGENTBUS_HOME": str(work / "bus")}
    first = start("hello.py", "--data", "bus", AGENTBUS_HOME=mine["AGENTBUS_HOME"])
    pin = first.until("bus ").partition("#")[2]
    line = first.until("request planner").strip()
    assert line.startswith("agentbus request") or line.startswith("/") or " -m agentbus" in line, line
    assert "AGENTBUS_HOME" not in line  # it is that shell's already
    assert paste(line, work, mine).returncode == 0
    assert first.stop(signal.SIGINT) == 0

    again = start("hello.py", "--data", "bus", AGENTBUS_HOME=mine["AGENTBUS_HOME"])
    assert again.until("bus ").partition("#")[2] == pin
    again.until("request planner")
    assert paste(line, work, mine).returncode == 0
    listed = paste(f"{' '.join(AGENTBUS)} agent list --json", work, mine)
    assert {card["id"] for card in json.loads(listed.stdout)} == {
        "spiffe://dev.local/agent/planner", "spiffe://dev.local/agent/summarizer"
    }  # fmt: skip
    second = run("dev", "hello.py", "--data", "bus", cwd=work, env=mine)
    assert second.returncode == 2 and "config.in_use" in second.stderr
    assert again.stop() == 0

    other = Program(*AGENTBUS, "up", "--port", "0", cwd=work, env=environment(tmp_path / "real"))
    other.until("bus ")
    other.stop()
    refused = run("dev", "hello.py", "--data", str(tmp_path / "real"), cwd=work, env=env)
    assert refused.returncode == 2 and "config.domain" in refused.stderr


async def test_a_file_that_cannot_be_served_yet_is_waited_for(start: Start, work: Path) -> None:
    file = work / "late.py"
    file.write_text("")
    dev = start("late.py:worker", "--json")
    home = json.loads(dev.until('"bus"'))["home"]
    assert "late.py has no Agent called 'worker'" in json.loads(dev.until('"error"'))["message"]

    lifespan = "async def life(bus):\n    raise RuntimeError('no database')\n    yield\n"
    head = "from contextlib import asynccontextmanager\nfrom agentbus import Agent\n\n@asynccontextmanager\n"
    save(file, f"{head}{lifespan}\nworker = Agent('worker', lifespan=life)\n")
    error = json.loads(dev.until('"error"'))
    assert "RuntimeError: no database" in error["message"] and 'late.py", line 6, in life' in error["message"]
    assert error["state"].startswith("nothing is served")

    save(file, GREETER.replace("import words", "").replace("words.HELLO", "'Hi'").replace('"greeter"', '"worker"'))
    assert "no Agent called 'worker'; it has greeter" in json.loads(dev.until('"error"'))["message"]
    save(file, file.read_text().replace("greeter", "worker").replace('    ctx.require("greetings:send")\n', ""))
    dev.until('"serving"')
    assert (await ask(home, "worker", Raw("Greet", {"name": "Bo"})))["text"] == "Hi, Bo"


async def test_what_a_handler_raises_is_shown_to_its_author_and_to_nobody_else(start: Start, work: Path) -> None:
    fault = GREETER.replace("import words", "").replace("words.HELLO", "'Hi' / 2")
    (work / "greeter.py").write_text(fault.replace('    ctx.require("greetings:send")\n', ""))
    dev = start("greeter.py", "--json")
    home = json.loads(dev.until('"bus"'))["home"]
    dev.until('"serving"')
    with pytest.raises(HandlerFailed) as failed:
        await ask(home, "greeter", Raw("Greet", {"name": "Bo"}))
    assert "unsupported operand" not in str(failed.value)
    dev.until("the handler of Greet raised")
    dev.until("greeter.py")
    dev.until("TypeError: unsupported operand type(s)")


async def test_agents_of_several_files_ask_each_other_and_one_can_be_chosen(start: Start, work: Path) -> None:
    source = HELLO.read_text("utf-8")
    (work / "summaries.py").write_text(source)
    (work / "answers.py").write_text(source.replace('Agent("summarizer"', 'Agent("another"'))
    dev = start("answers.py:planner", "summaries.py:summarizer", "--json")
    home = json.loads(dev.until('"bus"'))["home"]
    served = json.loads(dev.until('"serving"'))
    assert [one["name"] for one in served["agents"]] == ["planner", "summarizer"]
    url = json.loads((Path(home) / "profile.json").read_text("utf-8"))["url"]
    identity = Identity.from_file(Path(home) / "keys" / "user__alice.json")
    async with Bus.connect(url, identity=identity, listen="") as bus:
        alice = bus.as_user(["docs:read"])
        reply = await alice.request("planner", Raw("Ask", {"question": "who?"}), delegate=["docs:read"])
    assert reply["text"].startswith("spiffe://dev.local/user/alice asked: who?who?")


def test_a_file_that_never_ends_is_said_to_and_can_be_left(start: Start, work: Path) -> None:
    (work / "stuck.py").write_text("import threading\nthreading.Event().wait()\n")
    dev = start("stuck.py")
    dev.until("stuck.py is still being imported")
    assert dev.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("name", "why"),
    [("none.py", "there is no file none.py"), ("notes.txt", "no Python module"), (".", "there is no file .")],
)
def test_a_file_that_is_none_is_wrong_use(name: str, why: str, work: Path, env: dict[str, str]) -> None:
    (work / "notes.txt").write_text("")
    done = run("dev", name, cwd=work, env=env)
    assert done.returncode == 2 and why in done.stderr and "[config.target]" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_name_that_a_library_has_is_said_so(start: Start, work: Path) -> None:
    shutil.copy(HELLO, work / "json.py")
    start("json.py").until("json.py hides behind the module json, which has that name; rename it")


def test_a_file_in_a_package_is_imported_as_part_of_it(work: Path) -> None:
    package = work / "shop" / "agents"
    package.mkdir(parents=True)
    for folder in (work / "shop", package):
        (folder / "__init__.py").write_text("")
    (package / "till.py").write_text("")
    target = Target.parse(f"{package / 'till.py'}:till")
    assert (target.root, target.module, target.agent) == (work.resolve(), "shop.agents.till", "till")


def test_libraries_are_never_loaded_again(start: Start, work: Path) -> None:
    """Two of one library would be two classes of one name: a file next to its virtual environment is the usual case."""
    library = work / ".venv" / "lib" / "site-packages" / "painted"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("print('painted is loaded')\n")
    source = HELLO.read_text("utf-8").replace("import asyncio", "import asyncio\nimport painted", 1)
    (work / "hello.py").write_text(source)
    dev = start("hello.py", PYTHONPATH=os.fspath(library.parent))
    dev.until("painted is loaded")
    dev.until("serving")
    save(work / "hello.py", source + "# another\n")
    dev.until("hello.py was saved")
    dev.until("serving")
    assert dev.lines.count("painted is loaded") == 1
