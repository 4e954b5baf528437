"""Everything over IPv6's loopback: the directory, an agent that listens, and who asks it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from agentbus.connect import BusUrl
from agentbus.transport.zeromq.sockets import can_dial
from tests.processes.desk import Desk
from tests.processes.test_auditing import opened


@pytest.fixture
def desk6(tmp_path: Path) -> Desk:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"not run: this machine has no ::1: {error}")

    class Desk6(Desk):
        def directory(self, *arguments: str) -> object:  # type: ignore[override]
            return super().directory("--host", "::1", *arguments)

    made = Desk6(tmp_path)
    made.environment["AGENTBUS_LISTEN"] = "tcp://[::1]:*"
    return made


def test_directory_and_agents_are_dialled_over_ipv6(desk6: Desk) -> None:
    try:
        opened(desk6)
        url = BusUrl.parse(json.loads((desk6.folder / "home" / "profile.json").read_text())["url"])
        assert url.host == "::1" and str(url).startswith(f"agentbus://[::1]:{url.port}#")
        assert BusUrl.parse(str(url)) == url and url.endpoint == f"tcp://[::1]:{url.port}"
        assert desk6.json("request", "keeper", "Keep", '{"text": "six"}', "--as", "user/alice") == {"length": 3}
        shown = desk6.run("agent", "show", "keeper", "--json")
        assert "127.0.0.1" not in shown
    finally:
        for process in reversed(list(desk6.running)):
            desk6.stop(process)


@pytest.mark.parametrize("endpoint", ["tcp://[::1]:7400", "tcp://[2001:db8::192.0.2.1]:1", "tcp://a.example:7400"])
def test_addresses_that_can_be_dialled(endpoint: str) -> None:
    assert can_dial(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://[::1]", "tcp://::1:7400", "tcp://[::g]:1", "tcp://[fe80::1%eth0]:1", "tcp://[:::]:1", "tcp://[]:1"],
)
def test_addresses_that_nobody_dials(endpoint: str) -> None:
    assert not can_dial(endpoint)
