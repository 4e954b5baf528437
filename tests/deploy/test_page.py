"""docs/how-to/deploy.md says what is: its units pass systemd's own check, its commands and variables exist, and an
agent runs as its container would run it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import click
import pytest

from agentbus.cli.main import cli
from tests.deploy.hosts import MORTAL, PATIENCE, ROOT, Host, hosts, require_namespaces

PAGE = (ROOT / "docs" / "how-to" / "deploy.md").read_text("utf-8")
UNITS = dict(re.findall(r"<!-- unit: (\S+) -->\n```ini\n(.*?)```", PAGE, re.DOTALL))
SHELL = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def unit(name: str) -> ConfigParser:
    parsed = ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(UNITS[name])
    return parsed


@pytest.mark.parametrize("name", sorted(UNITS))
def test_a_unit_waits_for_readiness_restarts_and_is_bounded(name: str) -> None:
    service = unit(name)["Service"]
    assert (service["Type"], service["Restart"]) == ("notify", "always")
    assert service["MemoryMax"] and int(service["LimitNOFILE"]) >= 65536
    assert int(service["TimeoutStopSec"]) > 10  # what draining may take
    assert service["StateDirectoryMode"] == "0700" and service["ProtectSystem"] == "strict"


def test_there_is_a_unit_for_the_directory_and_one_for_agents() -> None:
    assert sorted(UNITS) == ["agentbus-agent@.service", "agentbus-directory.service"]


@pytest.mark.parametrize("name", sorted(UNITS))
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None and shutil.which("apt-get") is not None:
        subprocess.run(["apt-get", "install", "-qq", "-y", "systemd"], check=False, capture_output=True)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs the program systemd-analyze: install the package systemd")
    here = str(Path(sys.executable).parent)
    file = tmp_path / name.replace("@.", "@planner.")
    file.write_text(UNITS[name].replace("/opt/agentbus/bin", here).replace("/opt/agents", str(tmp_path)))
    command = ["systemd-analyze", "verify", "--man=no", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or name.split("@")[0] in line]
    assert done.returncode == 0 and said == [], done.stderr


def test_the_containers_user_may_write_where_it_has_to() -> None:
    """A volume gets owner and mode of what the image has at its place: made by VOLUME alone, it would be root's."""
    image = re.search(r"```dockerfile\n(.*?)```", PAGE, re.DOTALL)
    assert image is not None
    steps = ("install -d -o agent -m 700 /data", "USER 10001", "VOLUME /data")
    made, user, volume = (image[1].find(step) for step in steps)
    assert -1 < made < user < volume and "--uid 10001 agent" in image[1]


def agentbus_lines() -> list[list[str]]:
    """Every ``agentbus …`` of the page: shell blocks, units, the Containerfile's arrays."""
    lines = [line for block in SHELL for line in block.replace("\\\n", " ").splitlines()]
    lines += [service for name in UNITS for service in unit(name)["Service"].values()]
    found = []
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        programs = [i for i, word in enumerate(words) if word.endswith("agentbus") and not word.startswith("-")]
        found += [words[i + 1 :] for i in programs[:1]]
    found += [re.findall(r'"([^"]*)"', array)[1:] for array in re.findall(r'CMD (\["agentbus".*?\])', PAGE)]
    return found


@pytest.mark.parametrize("words", agentbus_lines(), ids=" ".join)
def test_a_command_of_the_page_parses(words: list[str]) -> None:
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]
    command.make_context("agentbus", list(words))  # raises on an option or argument that is none


def test_the_page_knows_the_variables_of_the_code() -> None:
    table = set(re.findall(r"^\| `(AGENTBUS_\w+)`", PAGE, re.MULTILINE))
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "agentbus").rglob("*.py"))
    read = set(re.findall(r'environ(?:\.get\(|\[)"(AGENTBUS_\w+)"', sources))
    assert table <= read
    assert set(re.findall(r"AGENTBUS_\w+", PAGE)) <= table
    assert {name for name in read if "DEBUG" not in name and "DEMO" not in name} <= table


# ── as a container ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    require_namespaces()
    with hosts(tmp_path, "harbour", "box") as (harbour, box):
        yield harbour, box


def test_an_agent_runs_on_a_read_only_root_and_enrols_at_its_first_start(harbour: tuple[Host, Host]) -> None:
    """Everything is read-only but /data, as with ``docker run --read-only``; the token is a file."""
    directory, box = harbour
    up = ["up", "--host", "0.0.0.0", "--port", "7400", "--advertise", directory.address]
    started = directory.start("-m", "agentbus.cli.main", *up)
    assert started.stdout is not None
    url = started.stdout.readline().split()[1]
    token = box.home / "token"
    token.write_text(directory.agentbus("agent", "create", "worker")["token"])
    data = box.home / "data"
    data.mkdir()

    env = box.env | {
        "AGENTBUS_URL": url, "AGENTBUS_HOME": str(data / "home"), "AGENTBUS_DATA": str(data / "logs"),
        "AGENTBUS_LISTEN": "tcp://0.0.0.0:7500", "AGENTBUS_ADVERTISE": f"tcp://{box.address}:7500",
        "AGENTBUS_ENROLMENT_TOKEN_FILE": str(token),
    }  # fmt: skip
    sealed = f'mount --make-rprivate / && mount --bind {data} {data} && mount -o remount,bind,ro / && exec "$@"'
    run = [sys.executable, "-B", "-m", "agentbus.cli.main", "run", "tests.deploy.agents:worker"]
    command = [*MORTAL, *box.inside.command("unshare", "--mount", "sh", "-c", sealed, "sh", *run)]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE)

    def served(process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        probe = ["-m", "agentbus.cli.main", "status", "--as", "worker", "--serving"]
        while box_run(probe) != 0:
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def box_run(arguments: list[str]) -> int:
        inside = [*MORTAL, *box.inside.command(sys.executable, *arguments)]
        return subprocess.run(inside, env=env, cwd=ROOT, capture_output=True, timeout=PATIENCE, check=False).returncode

    for _ in range(2):  # the second start finds the key, and needs no token
        process = start()
        try:
            served(process)
            asked = directory.agentbus("request", "worker", "Work", "{}", "--as", "user/operator")
            assert asked == {"by": "worker"}
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
        token.write_text("used up")
    keys = [path for path in (data / "home").rglob("*.json") if "worker" in path.name]
    assert keys and all(path.stat().st_mode & 0o077 == 0 for path in keys)
