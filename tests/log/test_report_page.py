"""The page for somebody who was not there, and the folder for somebody who does not believe it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from directories import write_directory
from loglab import Lab

from agentbus.audit import Evidence
from agentbus.audit.page import report_page
from agentbus.audit.page.story import tell
from agentbus.cli.main import cli
from agentbus.wire.ids import b64

HOSTILE = b'{"text": "</pre><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>"}'


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def data(lab: Lab, tmp_path: Path) -> Path:
    """Carol answered two requests, refused two, and one came with a body that would like to run in a browser."""
    log = lab.open(tmp_path / "carol")
    lab.write(log)
    lab.log(
        log, lab.request("alice -[quote]-> erin -[quote,pay]-> dave"), "dave", sent=False, code="reject.grant_widens"
    )
    lab.log(log, lab.request(body=HOSTILE)[:1], "dave", sent=False)
    log.close()
    write_directory(tmp_path / "directory", lab.world.entries)
    return tmp_path


class Page(HTMLParser):
    """Counts what a browser would do."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.outside: list[str] = []
        self.depth = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data") and not (value or "").startswith("#"):
                self.outside.append(f"{tag} {name}={value}")
            if name.startswith("on"):
                self.outside.append(f"{tag} {name}")


def page_of(lab: Lab, data: Path, *, bodies: bool = True) -> str:
    evidence = Evidence.open(data / "carol", directory=data / "directory", root=lab.world.root.id)
    report = evidence.verify()
    return report_page(
        report, list(evidence.messages()), list(evidence.refusals()), domain=evidence.domain, logs=list(evidence.logs),
        root=b64(lab.world.root.id), made=0, bodies=bodies,
    )  # fmt: skip


def test_the_page_tells_who_asked_whom_and_what_was_refused(lab: Lab, data: Path) -> None:
    page = page_of(lab, data)
    for text in (
        "What happened in", "local.test", "All that could be judged is in order", "reject.grant_widens",
        "dave → carol", "user/alice → erin → dave", "1</b>conversations", "7</b>messages", "2</b>refused",
    ):  # fmt: skip
        assert text in page, text
    assert page.count("<svg") == 3 and "reject.x" in page


def test_nothing_is_fetched_and_nothing_runs(lab: Lab, data: Path) -> None:
    """A body that is a script, in a page that an auditor opens."""
    page = page_of(lab, data)
    found = Page(page)
    assert not found.outside and not {"script", "link", "iframe", "object", "embed", "img"} & set(found.tags)
    assert "&lt;script&gt;" in page and "default-src 'none'" in page
    assert not re.search(r"url\((?!#)|@import", page)
    assert "alert(1)" not in page_of(lab, data, bodies=False)


def test_a_negative_verdict_is_the_first_thing_it_says(lab: Lab, data: Path) -> None:
    path = data / "carol" / "00000000.seg"
    bad = bytearray(path.read_bytes())
    bad[200] ^= 1
    path.write_bytes(bytes(bad))
    page = page_of(lab, data)
    assert "Something is wrong" in page and "the checksum of a record" in page


def test_what_two_logs_say_of_one_message_is_told_once(lab: Lab, data: Path) -> None:
    evidence = Evidence.open(data / "carol", directory=data / "directory", root=lab.world.root.id)
    evidence.verify()
    messages = list(evidence.messages())
    twice = tell([*messages, *messages])
    assert len(twice) == 1 and len(twice[0].told) == 7 and twice[0].refused == 2
    assert twice[0].user == "user/alice" and set(twice[0].people) == {"dave", "carol"}
    assert tell([]) == []


def test_an_empty_log_makes_a_page_as_well(lab: Lab, data: Path) -> None:
    log = lab.open(data / "empty")
    log.checkpoint()
    log.close()
    evidence = Evidence.open(data / "empty", directory=data / "directory", root=lab.world.root.id)
    page = report_page(evidence.verify(), [], [], domain="local.test", logs=["empty"], root="x", made=0)
    assert "0</b>messages" in page


def test_the_commands(lab: Lab, data: Path) -> None:
    run, root = CliRunner(), b64(lab.world.root.id)
    common = [str(data / "carol"), "--directory", str(data / "directory"), "--root", root, "--json"]
    done = run.invoke(cli, ["log", "report", *common, "--out", str(data / "x.html")])
    assert done.exit_code == 0 and json.loads(done.output)["bytes"] == (data / "x.html").stat().st_size
    done = run.invoke(cli, ["log", "export", *common, "--out", str(data / "out")])
    assert done.exit_code == 0 and json.loads(done.output)["messages"] == 7
    again = run.invoke(cli, ["log", "export", *common, "--out", str(data / "out")])
    assert again.exit_code != 0
    rows = [json.loads(line) for line in (data / "out" / "messages.jsonl").read_text().splitlines()]
    assert len(rows) == 7 and rows[0]["path"] == "user/alice → erin → dave"
    out = data / "out"
    assert not [path for path in out.rglob("*") if path.name in ("log.key", "lock", "state.sqlite")]
    verify = ["log", "verify", str(out / "logs" / "carol"), "--directory", str(out / "directory"), "--root", root]
    done = run.invoke(cli, [*verify, "--json"])
    assert (
        done.exit_code == 0
        and json.loads(done.output)["verdicts"] == json.loads((out / "verdicts.json").read_text())["verdicts"]
    )


@pytest.mark.parametrize(
    ("options", "count"),
    [([], 7), (["--accepted"], 3), (["--refused"], 2), (["--last", "2"], 2), (["--user", "alice"], 3),
     (["--since", "2030-01-01T00:00Z"], 0), (["--until", "2030-01-01T02:00+02:00"], 7), (["--agent", "erin"], 0)],
)  # fmt: skip
def test_show_has_filters(lab: Lab, data: Path, options: list[str], count: int) -> None:
    common = ["log", "show", str(data / "carol"), "--directory", str(data / "directory"), "--root"]
    done = CliRunner().invoke(cli, [*common, b64(lab.world.root.id), "--body", *options])
    assert done.exit_code == 0 and sum(line[:1].isdigit() for line in done.output.splitlines()) == count
    bad = CliRunner().invoke(cli, [*common, b64(lab.world.root.id), "--since", "yesterday"])
    assert bad.exit_code != 0 and "15m" in str(bad.exception)
