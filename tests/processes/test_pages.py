"""How-to pages, block by block: every shell and Python block is pasted, with the places' names put in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from tests.authn.idp import AUDIENCE, IDP, IdentityProvider
from tests.cli.program import Program, paste
from tests.processes.desk import Desk, desk

__all__ = ["desk"]

DOCS = Path(__file__).parents[2] / "docs" / "how-to"
HELLO = Path(__file__).parents[2] / "examples" / "hello.py"
START = """import asyncio
from pathlib import Path
from agentbus import Bus, Identity
from agentbus.runtime.admin import CreatePrincipal

async def main() -> None:
    async with Bus.connect(identity={identity!r}) as bus:
"""
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Page:
    """A page's blocks in order; :meth:`close` asserts that each was pasted."""

    def __init__(self, desk: Desk, name: str) -> None:
        self.desk = desk
        text = (DOCS / name).read_text("utf-8")
        assert not re.search(r"^```\n(agentbus|systemctl|mv) ", text, re.MULTILINE), "a block without its language"
        self.blocks = [(match[1], match[2]) for match in BLOCK.finditer(text)]
        self.environment = desk.environment | {
            "PATH": f"{Path(sys.executable).parent}:{desk.environment['PATH']}", "PYTHONPATH": str(desk.folder),
        }  # fmt: skip

    def block(self, language: str, **names: str) -> str:
        """The next block, with ``names`` put in the places of what stands for them; each has to stand there."""
        found, text = self.blocks.pop(0)
        assert found == language, text
        for name, value in names.items():
            assert name in text, f"{name} does not stand in\n{text}"
            text = text.replace(name, value)
        return text

    def paste(self, *, exit: int = 0, text: str | None = None, **names: str) -> str:
        done = paste(self.block("sh", **names) if text is None else text, self.desk.folder, self.environment)
        assert done.returncode == exit, done.stdout + done.stderr
        return done.stdout + done.stderr

    def python(self, *blocks: str, identity: str, before: str = "") -> str:
        """Run blocks of a page within an opened bus."""
        body = textwrap.indent(before + "".join(blocks), " " * 8)
        start = START.format(identity=identity)
        (self.desk.folder / "pasted.py").write_text(f"{start}{body}\nasyncio.run(main())\n")
        done = subprocess.run(
            [sys.executable, "pasted.py"], cwd=self.desk.folder, env=self.environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def enrol(self, **principals: dict[str, list[str]]) -> None:
        """Create and enrol all of them in one process; a user is who has rights, a service is ``service__NAME``."""
        lines = []
        for name, fields in principals.items():
            who = f"user/{name}" if "rights" in fields else name.replace("__", "/")
            wanted = {"name": who, "may_talk_to": ["*"], **fields}
            lines += [f"made = await bus.request('service/directory', CreatePrincipal(**{wanted!r}))\n"]
            lines += [f"await Identity.enrol({who!r}, token=made.token)\n"]
        self.python(*lines, identity="user/operator")

    def close(self) -> None:
        assert self.blocks == []


BANK = """
from agentbus import Agent, Context, Request
class Pay(Request[str]):
    amount: int
bank = Agent("bank")
@bank.handler
async def pay(request: Pay, ctx: Context) -> str:
    ctx.require("pay:send", amount=request.amount)
    return f"{ctx.user.short} paid {request.amount}"
"""


def test_grants(desk: Desk) -> None:
    desk.directory()
    (desk.folder / "banking.py").write_text(BANK)
    page, both = Page(desk, "grants.md"), ["docs:read", "pay:send"]
    page.enrol(bank={}, planner={"ceiling": both}, alice={"rights": both})
    desk.serve("banking:bank")

    create, *more = page.block("sh").splitlines(keepends=True)
    made = re.search(r"grant (\w+) is kept here", page.paste(text=create))
    assert made is not None
    shown = page.paste(text="".join(more).replace("3fa9", made[1][:8]))
    assert f"{made[1]}  valid" in shown and "state: valid" in shown
    before = "from banking import Pay\n"
    assert page.python(page.block("python"), identity="planner", before=before) == ""

    (desk.folder / "handed.py").write_text(page.block("python"))
    handed = page.paste(text="python handed.py", exit=1)
    assert "cashier paid 15 for user/alice\n" in handed
    assert "link 2 to cashier does not grant pay:send for amount=50, to=shop" in handed

    why = page.paste(exit=1, **{"3fa9": made[1][:8]})
    assert "denied.scope" in why and "would change it" in why
    page.paste(**{"3fa9": made[1][:8]})
    assert "reject.revoked" in page.paste(exit=1, text=f"agentbus grant why bank Pay --grant {made[1]} --as user/alice")
    page.close()


def test_discover(desk: Desk) -> None:
    desk.directory()
    (desk.folder / "hello.py").write_text(HELLO.read_text("utf-8"))
    page = Page(desk, "discover.md")
    page.enrol(summarizer={"ceiling": ["docs:read"], "tags": ["internal"]}, planner={"ceiling": ["docs:read"]})
    desk.serve("hello:summarizer")

    queries = [f"{line}\nprint([card.id.name for card in cards])\n" for line in page.block("python").splitlines()]
    assert page.python(*queries, identity="planner") == "['summarizer']\n" * 3
    assert "Shortens text" in page.paste()
    asked = page.python(page.block("python"), "print(summary)\n", identity="planner")
    assert asked == "text='…'\n"
    page.close()


def test_deploy(desk: Desk, tmp_path: Path) -> None:
    """The two hosts are two folders of this one; ports are free ones. Images are built and run elsewhere."""
    page = Page(desk, "deploy.md")
    (desk.folder / "agents.py").write_text(HELLO.read_text("utf-8"))
    data, mill = "/var/lib/agentbus-directory/data", {"AGENTBUS_HOME": str(tmp_path / "mill")}
    up = page.block("sh", **{data: str(tmp_path / "data"), "7400": "0", "bus.example.org": "localhost"})
    served = [Program("bash", "-c", f"exec {up}", cwd=desk.folder, env=page.environment)]
    try:
        url = served[0].until("bus agentbus://localhost:").split()[1]
        page.paste(**{"> planner.token": f"> {tmp_path}/token"})
        page.environment |= mill
        here = {"agentbus://bus.example.org:7400#…": url, "/run/planner.token": f"{tmp_path}/token"}
        here |= {"7500": "*", "mill.example.org": "localhost"}
        init, enrol, run = page.block("sh", **here).splitlines()
        page.paste(text=f"{init}\n{enrol}\n")
        served.append(Program("bash", "-c", run, cwd=desk.folder, env=page.environment, typed=True))
        served[1].until("agent/planner is served (tcp://localhost:")
        assert "running: planner at" in page.paste(text="agentbus status --as planner --serving")
        assert page.block("sh").startswith("docker build ")
        page.close()
    finally:
        for program in reversed(served):
            program.stop()


LIBRARY = """
from agentbus import Agent, Context, Request
class Read(Request[str]):
    name: str
library = Agent("library")
@library.handler(scopes=["docs:read"], requires_user=True)
async def read(request: Read, ctx: Context) -> str:
    return f"{ctx.user.short} reads {request.name}"
"""


def test_tokens(desk: Desk) -> None:
    desk.directory("--domain", "agents.example")
    (desk.folder / "library.py").write_text(LIBRARY)
    page, provider = Page(desk, "tokens.md"), IdentityProvider()
    page.enrol(library={}, app={"ceiling": ["docs:*"]}, service__archive={}, alice={"rights": ["docs:read"]})
    desk.serve("library:library")
    assert IDP in page.blocks[0][1] and AUDIENCE in page.blocks[0][1]
    (desk.folder / "keys.json").write_text(json.dumps(provider.jwks))

    def token() -> str:
        return provider.token(time.time(), sub="00u1", email="alice@corp.example", email_verified=True)

    add = page.block("sh")
    page.paste(text=add)
    first = page.block("python")
    page.paste(text=f"{add.rstrip()} --consent-by app --consent-seconds 86400\n")
    made = page.python(
        f"token = {token()!r}\n", first, f"token = {token()!r}\n", page.block("python"), "ctx = bus.acting(held)\n",
        page.block("python"), "print(token.value)\n", identity="app", before="from library import Read\n",
    ).strip()  # fmt: skip
    keys = "import json, jwt\nkeys = jwt.PyJWKSet.from_dict(json.loads(Path('served.json').read_text()))\n"
    page.paste(text="agentbus token keys > served.json")
    key = f"token = {made!r}\nkey = keys[jwt.get_unverified_header(token)['kid']]\n"
    page.python(keys, key, page.block("python"), identity="app")

    (desk.folder / "token.jwt").write_text(token())
    said = page.paste()
    assert "active       True" in said and "it counts no more" in said
    page.close()


def test_directory(desk: Desk, tmp_path: Path) -> None:
    """Where the page starts and stops a service, the process is."""
    up = desk.directory()
    page = Page(desk, "directory.md")
    page.enrol(summarizer={})
    (desk.folder / "hello.py").write_text(HELLO.read_text("utf-8"))
    desk.stop(desk.serve("hello:summarizer"))
    stick, data = tmp_path / "stick", desk.folder / "data"
    stick.mkdir()
    names = {"DIR": str(data), "/media/stick": str(stick)}

    page.paste(**names)
    assert (stick / "root.json").exists() and not (data / "keys" / "root.json").exists()
    stop, rotate, start = page.block("sh", **names).splitlines()
    assert (stop, start) == ("systemctl stop agentbus-directory", "systemctl start agentbus-directory")
    assert "config.in_use" in page.paste(text=rotate, exit=2)
    desk.stop(up)
    assert "new online keys" in page.paste(text=rotate)
    up = desk.directory()

    backups = tmp_path / "backups"
    page.paste(**{"DIR": str(data), "/backups/2026-01-01": str(backups / "1")})
    assert "config.root_away" in page.paste(
        text=f"agentbus directory backup {backups}/2 --data {data} --with-root-key", exit=2
    )
    profile = (desk.folder / "home" / "profile.json").read_text()
    desk.stop(up)
    data.rename(tmp_path / "lost")
    (backups / "1").rename(data)
    recover = f"agentbus directory recover {desk.folder}/logs/summarizer --data {data}"
    assert "entries added" in page.paste(text=recover)
    desk.directory()
    pin = re.compile(r"#(\S+?)\"")
    assert pin.findall(profile) == pin.findall((desk.folder / "home" / "profile.json").read_text())
    page.enrol(another={})  # it signs again
    page.close()


def test_audit(desk: Desk) -> None:
    desk.directory()
    root = re.search(r"#(.+?)\.", (desk.folder / "home" / "profile.json").read_text())
    assert root is not None
    hello = HELLO.read_text("utf-8").replace('Agent("summarizer"', 'Agent("librarian", erasure="parties"')
    (desk.folder / "hello.py").write_text(hello.replace('ctx.request("summarizer"', 'ctx.request("librarian"'))
    page, read = Page(desk, "audit.md"), ["docs:read"]
    page.enrol(librarian={"ceiling": read}, planner={"ceiling": read}, alice={"rights": read})
    desk.serve("hello:summarizer")
    desk.serve("hello:planner")
    desk.run("request", "planner", "Ask", '{"question": "why?"}', "--as", "user/alice", "--delegate", "docs:read")

    assert "INTACT         yes" in page.paste(THUMBPRINT=root[1])
    text = page.paste()
    (shown,) = re.findall(r"planner +(\d+) request +planner → librarian", text)
    assert "why?why?" in text and (desk.folder / "report.html").exists() and (desk.folder / "evidence").is_dir()
    assert "Summarize" in page.paste(MESSAGE=shown, THUMBPRINT=root[1])
    erased = page.paste(MESSAGE=shown)
    assert erased.count("1 body erased") == 2, "at the node that runs, and at the other party"
    page.close()
