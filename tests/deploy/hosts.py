"""Hosts on one machine: network namespaces that a test makes, joined by a switch it can unplug them from.

Rule 1: nothing of this outlives the test, whatever ends it. A namespace lives as long as the process that holds it,
each process here is killed by the kernel when its parent dies (``PR_SET_PDEATHSIG``), and none lives longer than
:data:`LIFE`.
Rule 2: no packet leaves the machine: the namespaces have no link but those to the switch, which is a namespace, too.
Rule 3: a cut is silent. The cable stays up and packets vanish, which is the harder case: nothing is told, all is waited
out.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
LIFE: Final = 600  # seconds
PATIENCE: Final = 40.0  # seconds; only a failing test waits that long
MORTAL: Final = ("setpriv", "--pdeathsig", "KILL")


def require_namespaces() -> None:
    """Install what is missing where that is allowed, else skip and name it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux, for network namespaces")
    if shutil.which("ip") is None and shutil.which("apt-get") is not None:
        subprocess.run(["apt-get", "install", "-qq", "-y", "iproute2"], check=False, capture_output=True)
    if shutil.which("ip") is None:
        pytest.skip("needs the program ip: install the package iproute2")
    if subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("may not make network namespaces here: run as root with CAP_SYS_ADMIN")


class Namespace:
    """A network namespace, held open by a process that does nothing else."""

    def __init__(self) -> None:
        hold = ["unshare", "--net", "sh", "-c", f"echo made; exec sleep {LIFE}"]
        self._holder = subprocess.Popen([*MORTAL, *hold], stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline(), "the namespace was not made"
        self._holder.stdout.close()
        self.pid = self._holder.pid

    def command(self, *arguments: str) -> list[str]:
        """``arguments``, to be run inside."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *arguments]

    def ip(self, line: str) -> None:
        """One command of iproute2, inside."""
        subprocess.run(self.command("ip", *line.split()), check=True, capture_output=True)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


class Host:
    """One host: its namespace, its address, its files, its processes."""

    def __init__(self, name: str, number: int, switch: Namespace, folder: Path) -> None:
        self.name = name
        self.address = f"192.0.2.{number}"  # RFC 5737: documentation
        self._port = f"port{number}"
        self._switch = switch
        self.inside = Namespace()
        self.home = folder / name
        self.home.mkdir()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AGENTBUS_")}
        self.env |= {"AGENTBUS_HOME": str(self.home), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.processes: list[subprocess.Popen[str]] = []
        switch.ip(f"link add {self._port} type veth peer name eth0 netns {self.inside.pid}")
        switch.ip(f"link set {self._port} up")
        for line in ("link set lo up", f"addr add {self.address}/24 dev eth0", "link set eth0 up"):
            self.inside.ip(line)
        self.plug_in()

    def plug_in(self) -> None:
        """Join the switch (again)."""
        self._switch.ip(f"link set {self._port} master switch")

    def unplug(self) -> None:
        """From now on every packet vanishes without a word."""
        self._switch.ip(f"link set {self._port} nomaster")

    def lose_sight_of(self, other: Host) -> None:
        """Only packets to ``other`` vanish: they go to a neighbour that does not exist."""
        self.inside.ip(f"neigh replace {other.address} lladdr 02:00:00:00:00:99 nud permanent dev eth0")

    def see(self, other: Host) -> None:
        """Undo :meth:`lose_sight_of`."""
        self.inside.ip(f"neigh del {other.address} dev eth0")

    def agentbus(self, *arguments: str, check: bool = True, **env: str) -> Any:
        """Run a command to its end; the JSON it printed."""
        done = subprocess.run(
            self._python("-m", "agentbus.cli.main", *arguments, "--json"),
            env=self.env | env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start a Python program and leave it running; its standard output can be read, its errors go to a file."""
        with (self.home / "errors").open("a") as errors:
            process = subprocess.Popen(
                self._python(*arguments), env=self.env | env, cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def serve(self, name: str, **env: str) -> subprocess.Popen[str]:
        """``agentbus run`` of the worker as ``name``, until it can be asked."""
        ready = self.home / f"{name}.ready"
        ready.unlink(missing_ok=True)
        module = "tests.deploy.agents:" + name
        process = self.start("-m", "agentbus.cli.main", "run", module, "--ready-file", str(ready), **env)
        deadline = time.monotonic() + PATIENCE
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < deadline, (self.home / "errors").read_text()
            time.sleep(0.05)
        return process

    def caller(self, name: str, **env: str) -> Caller:
        """A bus under the identity ``name`` that asks what it is told to."""
        return Caller(self.start("-m", "tests.deploy.caller", name, **env))

    def kill(self, process: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL) -> None:
        process.send_signal(number)
        process.wait(PATIENCE)

    def close(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
        self.inside.close()

    def _python(self, *arguments: str) -> list[str]:
        return [*MORTAL, *self.inside.command(sys.executable, *arguments)]


class Caller:
    """The other end of ``tests/deploy/caller.py``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._answers: dict[int, str] = {}
        self._arrived = threading.Condition()
        self._number = 0
        threading.Thread(target=self._listen, daemon=True).start()
        assert self.answer(0) == "ready"

    def ask(self, to: str, *, seconds: float = 0.0, timeout: float = 20.0) -> int:
        """Ask, and do not wait; the number under which the answer will come."""
        self._number += 1
        order = {"number": self._number, "to": to, "seconds": seconds, "timeout": timeout}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._number

    def answer(self, number: int, within: float = PATIENCE) -> str:
        """``ok``, or the code of the error; a test fails when neither came in time: nothing ever hangs."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: number in self._answers, within), "no answer and no error"
            return self._answers.pop(number)

    def request(self, to: str, *, timeout: float = 20.0) -> str:
        """Ask, and wait."""
        return self.answer(self.ask(to, timeout=timeout), timeout + PATIENCE)

    def until(self, to: str, wanted: str, *, within: float = 60.0) -> set[str]:
        """Ask again and again until ``wanted`` is the answer; whatever else was answered meanwhile."""
        others: set[str] = set()
        deadline = time.monotonic() + within
        while (answer := self.request(to)) != wanted:
            others.add(answer)
            assert time.monotonic() < deadline, f"never {wanted}, but {others}"
            time.sleep(0.1)
        return others

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError):  # closed at the end of the test
            for line in self._process.stdout:
                said = json.loads(line)
                with self._arrived:
                    self._answers[said["number"]] = said["answer"]
                    self._arrived.notify_all()


@contextmanager
def hosts(folder: Path, *names: str) -> Iterator[list[Host]]:
    """So many hosts, joined by one switch."""
    require_namespaces()
    with ExitStack() as undo:
        switch = Namespace()
        undo.callback(switch.close)
        switch.ip("link add switch type bridge forward_delay 0 mcast_snooping 0")
        switch.ip("link set switch up")
        made = []
        for number, name in enumerate(names, 1):
            host = Host(name, number, switch, folder)
            undo.callback(host.close)
            made.append(host)
        yield made
