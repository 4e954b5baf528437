"""The errors that people meet first: one line that says what, why and what to do, a code, and an exit status.

Every case runs the real command line against a real directory. The directory is a process, and so is whoever is asked;
the commands run in this one, because starting a hundred of them takes long.
"""

# ruff: noqa: E501 - the cases are a table

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from agentbus.cli.main import main
from agentbus.runtime.clock import SystemClock
from agentbus.wire.ids import b64
from agentbus.wire.limits import SECOND
from tests.cli.program import Program
from tests.cli.town import Town

HERE = Path(__file__).parent
ALICE = ("--as", "user/alice")
NOBODYS_KEY = b64(b"x" * 32)


class Place(Town):
    """A town with everything in it that can be wrong."""

    def __init__(self, folder: Path) -> None:
        self.clock = folder / "clock"
        self.clock.write_text("0")
        super().__init__(folder, program=(sys.executable, "-P", str(HERE / "clocked.py")), CLOCK=str(self.clock))
        self.address, _, self.pin = self.url.partition("#")
        self.root, _, self.curve = self.pin.partition(".")
        self.port = self.address.rpartition(":")[2]
        self.logs, self.keys = folder / "logs", self.home / "keys"
        self.directory_log = self.home / "directory" / "directory"
        names = ["worker", "mute", "sleeper", "paused", "ended", "user/alice", "user/bob", "user/away"]
        self.enrol(*names, scopes=["docs:read"])
        self.modules()
        self.files()
        self.people()
        for name, more in (("worker", {}), ("mute", {"AGENTBUS_LISTEN": ""})):
            clocked = (sys.executable, "-P", str(HERE / "clocked.py"))
            env = {**self.env, "CLOCK": str(self.clock), **more}
            agent = Program(*clocked, "run", "working:worker", "--as", name, "--json", cwd=folder, env=env)
            self.programs.append(agent)
            agent.until('"ready"')

    def modules(self) -> None:
        shutil.copy(HERE / "working.py", self.folder)
        (self.folder / "needy.py").write_text("import nothing_such\n")
        (self.folder / "faulty.py").write_text("x = 1\ny = x / 0\n")
        (self.folder / "torn.py").write_text("def f(:\n")
        (self.folder / "empty.py").write_text("")

    def files(self) -> None:
        """Keys, profiles, grants and logs that are not as they should be."""
        self.private(self.keys / "user__open.json", (self.keys / "user__alice.json").read_text(), mode=0o644)
        self.private(self.keys / "user__torn.json", '{"v": 1')
        (self.keys / "user__folder.json").mkdir(mode=0o700)
        (self.folder / "damaged").mkdir()
        (self.folder / "damaged" / "profile.json").write_text("{")
        (self.folder / "junk").write_bytes(b"junk")
        (self.folder / "folder").mkdir()

    def private(self, path: Path, text: str, mode: int = 0o600) -> None:
        path.write_text(text)
        path.chmod(mode)

    def people(self) -> None:
        self.token = self.inside("agent", "create", "fresh", "--json")["token"]
        self.used = self.inside("agent", "create", "used", "--json")["token"]
        self.inside("agent", "enrol", "used", "--token", self.used)
        (self.keys / "used.json").unlink()
        self.inside("agent", "suspend", "paused")
        self.inside("user", "disable", "away")
        self.inside("agent", "revoke", "ended", "--reason", "lost")
        for name in ("given", "taken"):
            grant = ("grant", "create", "sleeper", "--scope", "docs:read", "--expires-in", "3600", *ALICE)
            self.inside(*grant, "--out", str(self.folder / f"{name}.grant"))
        self.inside("grant", "revoke", str(self.folder / "taken.grant"), "--reason", "enough", *ALICE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("place"))
    try:
        yield made
    finally:
        made.close()


Texts = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A command, and what is said about it. ``{name}`` in a text stands for that attribute of the place."""

    name: str
    command: Texts
    code: str
    status: int
    says: str
    env: dict[str, str] = field(default_factory=dict)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def request(*arguments: str) -> Texts:
    return ("request", *arguments)


ELSEWHERE = {"AGENTBUS_HOME": "{fresh}"}
CASES = [
    # what is typed
    Case("no such command", ("frobnicate",), "usage.command_line", 2, r"no such command 'frobnicate'.*agentbus --help"),
    Case("no such option", ("run", "--frob", "a:b"), "usage.command_line", 2, r"option '?--frob'?.*agentbus run --help"),
    Case("an argument is missing", ("run",), "usage.command_line", 2, r"missing argument 'MODULE:AGENT'"),
    Case("a value out of range", ("up", "--port", "99999"), "usage.command_line", 2, r"--port.*99999.*65535"),
    Case("JSON that is none", request("worker", "Work", "{"), "config.body", 2, r"object of the message's fields.*\{\"a\""),
    Case("JSON that is no object", request("worker", "Work", "[1]"), "config.body", 2, "not an object"),
    Case("a bad name", ("agent", "create", "Bad Name"), "malformed.id", 2, "'Bad Name' is no name; use lower-case"),
    Case("a bad scope", ("agent", "create", "x", "--ceiling", "READ"), "malformed.scope", 2, "no scope such as docs:read"),
    Case("a timeout of nothing", request("worker", "Slow", "{}", "--timeout", "0"), "usage.timeout", 2, "at most 600 s"),
    # which bus
    Case("no bus", ("status",), "config.no_bus", 2, "no bus is known here: `agentbus up`", ELSEWHERE),
    Case("a URL without its pin", ("init", "{address}"), "config.unpinned", 2, "has no pin; copy the whole line"),
    Case("a pin that was cut", ("init", "{address}#abc"), "config.url", 2, "cut or damaged; copy the whole line"),
    Case("another kind of URL", ("init", "http://h"), "config.url", 2, "no agentbus://host:port#pin; `agentbus up` prints"),
    Case("a damaged profile", ("status",), "config.profile", 2, "cannot be read; run `agentbus init",
         {"AGENTBUS_HOME": "{folder}/damaged"}),
    Case("a home that cannot be written", ("init", "{url}"), "config.path", 2, "cannot be used: .*; name another",
         {"AGENTBUS_HOME": "{folder}/junk"}),
    Case("no directory", ("status",), "unavailable.directory", 1, "nobody listens there; is `agentbus up` running there?",
         {"AGENTBUS_URL": "agentbus://127.0.0.1:{closed}#{pin}"}),
    Case("another root key", ("status",), "reject.wrong_root", 1, "not the directory that is pinned.*compare the bus URLs",
         {"AGENTBUS_URL": "{address}#" + NOBODYS_KEY + ".{curve}"}),
    Case("another CURVE key", ("status",), "unavailable.directory_key", 1, "no directory with the pinned key; compare",
         {"AGENTBUS_URL": "{address}#{root}." + NOBODYS_KEY}),
    # who speaks
    Case("a user without its kind", ("status", "--as", "alice"), "key.missing", 2, r"alice.json; did you mean user/alice\?"),
    Case("no key file", ("status", "--as", "user/ghost"), "key.missing", 2, "no key file .*ghost.json; enrol"),
    Case("a key that others can read", ("status", "--as", "user/open"), "key.readable", 2, "open to others; rotate the key"),
    Case("a key file cut in two", ("status", "--as", "user/torn"), "key.file", 2, "torn.json is no agentbus key file"),
    Case("a key file that cannot be read", ("status", "--as", "user/folder"), "key.file", 2, "cannot be read: Is a dir"),
    Case("who is suspended", request("worker", "Work", "{}", "--as", "paused"), "unavailable.directory_refused", 1,
         "refuses this identity: unknown there, suspended or revoked \\(ask its operator\\), or it connects too often"),
    Case("who is revoked", request("worker", "Work", "{}", "--as", "ended"), "unavailable.directory_refused", 1, "revoked"),
    Case("a disabled user", request("worker", "Work", "{}", "--as", "user/away"), "unavailable.directory_refused", 1, "ask"),
    Case("a probe of who is suspended", ("status", "--as", "paused"), "unavailable.directory_refused", 1, "suspended"),
    # enrolment
    Case("no token", ("agent", "enrol", "fresh"), "config.token", 2, "pass --token, or the path of one in AGENTBUS_ENROL"),
    Case("no token file", ("agent", "enrol", "fresh"), "config.path", 2, "/nowhere cannot be used.*name another",
         {"AGENTBUS_ENROLMENT_TOKEN_FILE": "/nowhere"}),
    Case("what is no token", ("agent", "enrol", "fresh", "--token", "abc"), "config.token", 2, "ask the operator for a new"),
    Case("a used token", ("agent", "enrol", "used", "--token", "{used}"), "unavailable.enrolment", 1,
         "refuses this token: it was used, or has expired; ask the operator for another"),
    Case("somebody else's token", ("agent", "enrol", "other", "--token", "{token}"), "directory.token", 1,
         "unknown, used, expired or for another name; ask the operator for another: `agentbus agent token NAME`"),
    Case("enrolled already", ("agent", "enrol", "worker", "--token", "{token}"), "key.exists", 2, "enrolled on this machine"),
    Case("enrolling where no directory is", ("agent", "enrol", "fresh", "--token", "{token}"), "unavailable.enrolment", 1,
         r"is the bus URL its own\? \[", {"AGENTBUS_URL": "agentbus://127.0.0.1:{closed}#{pin}"}),
    # what only some may do
    Case("a name that is taken", ("agent", "create", "worker"), "directory.name_taken", 1, "exists already; choose another"),
    Case("a name that is created already", ("service", "create", "agent/fresh"), "directory.name_taken", 1,
         "it has no key yet: `agentbus agent token fresh` makes another"),
    Case("not the operator", ("agent", "create", "mine", *ALICE), "directory.not_operator", 1, "--as user/operator"),
    Case("not the owner", ("agent", "suspend", "worker", *ALICE), "directory.not_owner", 1, "ask its owner or the operator"),
    Case("no user of that name", ("user", "show", "ghost"), "directory.unknown", 1, "`agentbus user list` shows who is"),
    Case("nobody of that name", ("agent", "show", "ghost"), "directory.unknown", 1, "`agentbus agent list` shows who is"),
    Case("revoked for good", ("agent", "resume", "ended"), "directory.ended", 1, "revoked for good; names are never given"),
    Case("a grant to nobody", ("grant", "create", "ghost", "--scope", "docs:read", *ALICE), "agent.not_found", 1, "agent list"),
    Case("a grant by no user", ("grant", "create", "worker", "--scope", "docs:read", "--as", "sleeper"), "denied.not_holder",
         1, "only users sign root grants"),
    # who is asked
    Case("nobody is called that", request("ghost", "Work", "{}"), "agent.not_found", 1, "`agentbus agent list` shows who"),
    Case("created, not enrolled", request("fresh", "Work", "{}"), "agent.not_active", 1, "not enrolled yet: .*agent enrol`"),
    Case("enrolled, not running", request("sleeper", "Work", "{}"), "agent.not_running", 1, "no instance of it is known to run; .*agentbus run"),
    Case("suspended", request("paused", "Work", "{}"), "agent.not_active", 1, "is suspended; its owner may resume it"),
    Case("revoked", request("ended", "Work", "{}"), "agent.not_active", 1, "was revoked, for good"),
    Case("dials out only", request("mute", "Work", "{}"), "agent.dials_out_only", 1, "does not listen.*AGENTBUS_LISTEN"),
    Case("a probe of who is not running", ("status", "--as", "sleeper", "--serving"), "agent.not_running", 1, "not running"),
    # what is asked
    Case("an unknown type", request("worker", "Nope", "{}"), "handler.missing", 1, "no handler for 'Nope'.*agent show"),
    Case("a stream asked as a request", request("worker", "Count", '{"to": 1}'), "handler.missing", 1, "--stream"),
    Case("a request asked as a stream", request("worker", "Work", "{}", "--stream"), "handler.missing", 1, "not --stream"),
    Case("a message without a reply", request("worker", "Note", '{"text": ""}'), "handler.missing", 1, "by send only"),
    Case("an unknown field", request("worker", "Work", '{"m": 1}'), "request.invalid", 1, "m: Extra inputs.*fields"),
    Case("a field of another type", request("worker", "Work", '{"n": "x"}'), "request.invalid", 1, "n: .*valid integer"),
    Case("a field is missing", request("worker", "Count", "{}", "--stream"), "request.invalid", 1, "to: Field required"),
    Case("too much", request("worker", "Work", "{big}"), "request.too_large", 1, "do not fit into one frame"),
    Case("too slow", request("worker", "Slow", "{}", "--timeout", "0.2"), "deadline.exceeded", 1, "in time; .*--timeout"),
    Case("its handler raised", request("worker", "Fail", "{}"), "handler.failed", 1, "its own standard error says why"),
    Case("its handler lied", request("worker", "Odd", "{}"), "reply.invalid", 1, "whoever wrote the agent has to mend it"),
    Case("an error of its own", request("worker", "Buy", "{}"), "shop.out_of_stock", 1, "there are no more ferns"),
    # with what
    Case("a scope is missing", request("worker", "Read", "{}", *ALICE), "denied.scope", 1, "not grant docs:read; add --sc"),
    Case("no right to it", request("worker", "Write", "{}", *ALICE, "--scope", "docs:write"), "denied.rights", 1,
         "user/alice has no right to docs:write; a user's rights are set once"),
    Case("above its ceiling", request("worker", "Write", "{}", "--as", "sleeper"), "denied.scope", 1, "docs:write"),
    Case("nothing handed over", request("worker", "Onward", "{}", *ALICE), "denied.nothing_handed_over", 1, "--delegate SC"),
    Case("no user asks", request("worker", "Personal", "{}", "--as", "sleeper"), "denied.user_required", 1, "user"),
    # grants
    Case("no grant", ("grant", "show", "nowhere"), "config.grant_unknown", 2, "no grant 'nowhere' is here; see `agentbus"),
    Case("what is no grant", ("grant", "show", "junk"), "config.grant_file", 2, "junk is no grant"),
    Case("somebody else's grant", request("worker", "Read", "{}", "--as", "mute", "--grant", "given.grant"), "denied.not_holder", 1, "held by sleeper; .*--as NAME"),
    Case("a revoked grant", request("worker", "Read", "{}", "--as", "sleeper", "--grant", "taken.grant"), "reject.revoked", 1, "make a new one: `agentbus grant create`"),
    Case("a grant for less", request("worker", "Write", "{}", "--as", "sleeper", "--grant", "given.grant"), "denied.scope", 1, "does not grant docs:write"),
    Case("scopes beside a grant", request("worker", "Read", "{}", "--as", "sleeper", "--grant", "given.grant", "--scope", "a:b"), "config.own_grant", 2, "do not change the grant that was given; leave them out"),
    Case("scopes of an agent", request("worker", "Read", "{}", "--as", "sleeper", "--scope", "docs:read"), "config.own_grant", 2, "standing grant of sleeper; leave them out"),
    # what runs
    Case("no such module", ("run", "nowhere:agent"), "config.target", 2, "no module nowhere in .*; go to its folder"),
    Case("a module that needs another", ("run", "needy:agent"), "config.target", 2, "needs the module nothing_such"),
    Case("a module that raises", ("run", "faulty:agent"), "config.target", 2, "faulty.py, line 2: ZeroDivisionError.*mend"),
    Case("a module that cannot be parsed", ("run", "torn:agent"), "config.target", 2, "torn.py, line 1: SyntaxError"),
    Case("a module without an agent", ("run", "empty:agent"), "config.target", 2, r"no Agent 'agent'; write one such as"),
    Case("another agent than it has", ("run", "working:nobody"), "config.target", 2, "no Agent 'nobody'; it has worker"),
    Case("no MODULE:AGENT", ("run", "working.py"), "config.target", 2, "no MODULE:AGENT such as hello:planner"),
    Case("an agent that is not enrolled here", ("run", "working:worker", "--as", "stranger"), "key.missing", 2, "enrol"),
    Case("an address that is taken", ("run", "working:worker"), "config.transport", 2, "already in use; choose another",
         {"AGENTBUS_LISTEN": "tcp://127.0.0.1:{port}"}),
    Case("no address", ("run", "working:worker"), "config.transport", 2, "cannot listen at nonsense.*; write tcp://",
         {"AGENTBUS_LISTEN": "nonsense"}),
    Case("a ready-file in no folder", ("run", "working:worker", "--ready-file", "/nowhere/x"), "config.path", 2, "/nowhere/x"),
    Case("dev of no file", ("dev", "nofile.py"), "config.target", 2, "there is no file nofile.py; name one such as"),
    # directories
    Case("a port that is taken", ("up", "--port", "{port}"), "config.transport", 2, "already in use; choose another", ELSEWHERE),
    Case("a directory that runs", ("up", "--port", "0"), "config.in_use", 2, "another directory runs on .*; stop it first"),
    Case("no domain", ("up", "--port", "0", "--domain", "NO"), "config.domain", 2, "lower-case DNS name such as", ELSEWHERE),
    Case("a second directory at home", ("up", "--port", "0", "--data", "{folder}/second"), "config.operator", 2, "AGENTBUS_HOME"),
    # logs
    Case("no log", ("log", "verify", "/nowhere", "--directory", "{directory_log}"), "usage.command_line", 2, "does not exist"),
    Case("a folder that is no log", ("log", "verify", "{folder}/folder", "--directory", "{directory_log}"), "log.missing", 1,
         "name the folder of a node's log"),
    Case("no directory's log", ("log", "verify", "{logs}/worker", "--directory", "{folder}/folder"), "evidence.no_directory",
         1, "holds no directory.sqlite; name the directory's folder"),
    Case("no root key", ("log", "verify", "{logs}/worker", "--directory", "{directory_log}"), "config.no_root", 2,
         "--root THUMBPRINT, or run `agentbus init URL`", ELSEWHERE),
    Case("what is no root key", ("log", "verify", "{logs}/worker", "--directory", "{directory_log}", "--root", "abc"),
         "config.no_root", 2, "'abc' is no thumbprint: 43 characters, as in a bus URL"),
]  # fmt: skip


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def command(place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process, as in a shell that stands in the place's folder."""
    for name in [name for name in os.environ if name.startswith("AGENTBUS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTBUS_HOME", str(place.home))
    monkeypatch.setenv("AGENTBUS_DATA", str(place.folder / "mine"))
    monkeypatch.chdir(place.folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = set(sys.modules)

    def run(*arguments: str, **env: str) -> Said:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        assert isinstance(end.value.code, int)
        for name in set(sys.modules) - modules:
            if getattr(sys.modules[name], "__file__", None) and str(place.folder) in str(sys.modules[name].__file__):
                del sys.modules[name]
        out, err = capfd.readouterr()
        return Said(end.value.code, out, err)

    return run


def filled(text: str, place: Place) -> str:
    """The text with the place's attributes in it."""
    known = {
        **vars(place),
        "closed": closed_port(),
        "fresh": mkdtemp(dir=place.folder),
        "big": json.dumps({"n": 1, "pad": "x" * 2_000_000}),
    }
    return re.sub(r"\{([a-z_]+)\}", lambda found: str(known[found[1]]), text)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_error_is_one_line_that_says_what_why_and_what_to_do(case: Case, place: Place, command: Run) -> None:
    env = {name: filled(value, place) for name, value in case.env.items()}
    said = command(*(filled(part, place) for part in case.command), **env)
    lines = said.err.strip().splitlines()
    assert len(lines) == 1 and said.out == "", said
    assert lines[0].startswith("agentbus: ") and lines[0].endswith(f" [{case.code}]"), said
    assert re.search(case.says, lines[0]), said
    assert said.status == case.status, said
    assert len(lines[0]) < 400 and "Traceback" not in lines[0]
    assert "nobody else may see" not in lines[0], "what a handler raised leaves its process nowhere"


@pytest.mark.parametrize("case", CASES[::6], ids=lambda case: case.name)
def test_the_same_as_json(case: Case, place: Place, command: Run) -> None:
    env = {name: filled(value, place) for name, value in case.env.items()}
    said = command(*(filled(part, place) for part in case.command), "--json", **env)
    error = json.loads(said.out)["error"]
    assert (error["code"], said.status, said.err) == (case.code, case.status, "")
    assert re.search(case.says, "; ".join(part for part in (error["message"], error["hint"]) if part))


def test_at_least_forty_of_them_and_no_two_alike() -> None:
    assert len(CASES) >= 40 and len({case.name for case in CASES}) == len(CASES)
    assert len({case.code for case in CASES}) >= 40


def test_one_flipped_byte_in_a_log(place: Place, command: Run) -> None:
    """Not an error but an answer: it is on standard output, and the exit status says no."""
    worker = place.start("run", "working:worker", "--as", "sleeper", "--json")
    worker.until('"ready"')
    assert command("request", "sleeper", "Work", "{}").status == 0
    assert worker.stop() == 0
    log = place.logs / "sleeper"
    arguments = ("log", "verify", str(log), "--directory", str(place.directory_log))
    assert command(*arguments).status == 0
    segment = log / "00000000.seg"
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    said = command(*arguments)
    assert said.status == 1 and re.search(r"^INTACT +NO", said.out, re.MULTILINE) and said.err == ""


def test_a_stream_is_one_item_a_line(command: Run) -> None:
    said = command("request", "worker", "Count", '{"to": 3}', "--stream")
    assert said.status == 0 and said.out.splitlines() == ['{"n": 0}', '{"n": 1}', '{"n": 2}']


def test_a_fault_of_our_own_says_so_without_a_traceback(
    command: Run, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a body or a key might stand here")

    monkeypatch.setattr("agentbus.connect.save_profile", broken)
    said = command("init", place.url)
    assert said.status == 1 and said.err.endswith("[internal.fault]\n") and "might stand here" not in said.err


# ── the directory's clock goes forward only: these are the last ──────────────────────────────────────────────────────


def test_a_grant_that_has_expired(place: Place, command: Run) -> None:
    """It holds while it lasts; half a minute later, by everybody's clock, it does not."""
    grant = ("grant", "create", "sleeper", "--scope", "docs:read", "--expires-in", "28", "--out", "brief.grant", *ALICE)
    assert command(*grant).status == 0
    arguments = request("worker", "Read", "{}", "--as", "sleeper", "--grant", "brief.grant")
    assert command(*arguments).out == '{"n": 0}\n'
    place.clock.write_text("29")
    said = command(*arguments)
    assert said.status == 1 and "make a new one: `agentbus grant create` [reject.grant_expired]" in said.err, said


def test_a_token_that_has_expired(place: Place, command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven minutes later, by the directory's clock and by ours."""
    token = json.loads(command("agent", "create", "late", "--json").out)["token"]
    now = SystemClock.now
    monkeypatch.setattr(SystemClock, "now", lambda self: now(self) + 660 * SECOND)
    place.clock.write_text("660")
    said = command("agent", "enrol", "late", "--token", token)
    assert said.status == 1 and "it was used, or has expired" in said.err, said


def test_a_clock_that_is_off_by_an_hour(place: Place, command: Run) -> None:
    place.clock.write_text("3600")
    for arguments in (("status",), request("worker", "Work", "{}"), ("agent", "create", "later")):
        said = command(*arguments)
        assert said.status == 2 and said.err.endswith("[config.clock]\n"), said
        assert re.search(r"clock is 3[56]\d\d s behind the directory's; set both", said.err)
