"""Three hosts: a directory on ``harbour``, agents on ``mill`` and ``barn``; links are cut and healed.

Nothing is restarted in any of these tests: whatever recovers, recovers by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.deploy.hosts import Caller, Host, hosts

CUT_OFF = {"agent.gone", "agent.not_running", "deadline.exceeded"}  # what asking somebody behind a cut may say


@dataclass
class Fleet:
    harbour: Host
    mill: Host
    barn: Host
    at_harbour: Caller
    at_mill: Caller
    at_barn: Caller

    def heal(self) -> None:
        for host in (self.harbour, self.mill, self.barn):
            host.plug_in()
        for caller in (self.at_harbour, self.at_mill, self.at_barn):
            caller.until("worker", "ok")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with hosts(tmp_path_factory.mktemp("hosts"), "harbour", "mill", "barn") as (harbour, mill, barn):
        up = ["up", "--host", "0.0.0.0", "--port", "7400", "--advertise", harbour.address, "--max-directory-age", "5"]
        directory = harbour.start("-m", "agentbus.cli.main", *up)
        assert directory.stdout is not None
        url = directory.stdout.readline().split()[1]
        assert url.startswith(f"agentbus://{harbour.address}:7400#")
        for host in (mill, barn):
            host.agentbus("init", url)

        def enrol(host: Host, name: str) -> None:
            token = harbour.agentbus("agent", "create", name, "--may-talk-to", "*")["token"]
            (host.home / "token").write_text(token)
            host.agentbus("agent", "enrol", name, AGENTBUS_ENROLMENT_TOKEN_FILE=str(host.home / "token"))

        for host, name in (
            (harbour, "asker"), (mill, "worker"), (mill, "helper"), (mill, "miller"), (barn, "mole"), (barn, "farmer"),
        ):  # fmt: skip
            enrol(host, name)
        everywhere = f"tcp://{mill.address}:*"
        mill.serve("worker", AGENTBUS_LISTEN="tcp://0.0.0.0:7500", AGENTBUS_ADVERTISE=everywhere)
        yield Fleet(harbour, mill, barn, harbour.caller("asker"), mill.caller("miller"), barn.caller("farmer"))


@pytest.fixture
def fleet(running: Fleet) -> Iterator[Fleet]:
    yield running
    running.heal()


def test_an_agent_is_asked_from_every_host(fleet: Fleet) -> None:
    for caller in (fleet.at_harbour, fleet.at_mill, fleet.at_barn):
        assert caller.request("worker") == "ok"
    found = fleet.mill.agentbus("status", "--as", "worker", "--serving")
    assert [one["endpoints"] for one in found["running"]] == [[f"tcp://{fleet.mill.address}:7500"]]


def test_an_agent_that_can_only_dial_out_asks_and_says_that_it_cannot_be_asked(fleet: Fleet) -> None:
    """The farmer dials out, too: that she asks at all is in every other test."""
    fleet.barn.serve("mole", AGENTBUS_LISTEN="")
    assert fleet.at_harbour.request("mole") == "agent.dials_out_only"
    assert "dials out only" in (fleet.barn.home / "errors").read_text()
    status = fleet.barn.agentbus("status", "--as", "mole", "--serving", check=False)
    assert status["error"]["code"] == "agent.dials_out_only"


def test_an_agent_behind_a_load_balancer_is_found_where_it_advertises(fleet: Fleet) -> None:
    """It listens on loopback only; nobody else could dial that."""
    balancer = fleet.mill.start("-m", "tests.deploy.forward", f"{fleet.mill.address}:9600", "127.0.0.1:7600")
    assert balancer.stdout is not None and balancer.stdout.readline() == "ready\n"
    advertised = f"tcp://{fleet.mill.address}:9600"
    fleet.mill.serve("helper", AGENTBUS_LISTEN="tcp://127.0.0.1:7600", AGENTBUS_ADVERTISE=advertised)
    assert fleet.at_barn.request("helper") == "ok"
    fleet.mill.kill(balancer)
    assert fleet.at_barn.request("helper") in CUT_OFF


def test_a_cut_link_is_a_typed_error_and_heals_by_itself(fleet: Fleet) -> None:
    asked = fleet.at_harbour.ask("worker", seconds=60, timeout=60)
    assert fleet.at_harbour.request("worker") == "ok"  # so the first is being handled
    fleet.mill.unplug()
    assert fleet.at_harbour.answer(asked) == "agent.gone"
    for _ in range(3):
        assert fleet.at_harbour.request("worker", timeout=10) in CUT_OFF
    fleet.mill.plug_in()
    assert fleet.at_harbour.until("worker", "ok") <= CUT_OFF
    assert fleet.at_barn.until("worker", "ok") <= CUT_OFF


def test_a_partitioned_node_goes_on_then_fails_closed_then_recovers(fleet: Fleet) -> None:
    """Miller and worker share a host, and see each other throughout. What they cannot see is a revocation."""
    fleet.mill.unplug()
    assert fleet.at_mill.request("worker") == "ok"
    assert fleet.at_mill.until("worker", "unavailable.directory_stale") <= {"ok"}
    assert fleet.at_mill.request("worker") == "unavailable.directory_stale"
    fleet.mill.plug_in()
    # The directory saw both go: until worker has told it otherwise, miller may hear first that worker had ended.
    assert fleet.at_mill.until("worker", "ok") <= {"unavailable.directory_stale", "agent.not_running"}


def test_without_the_directorys_host_the_others_go_on_then_fail_closed_then_recover(fleet: Fleet) -> None:
    fleet.harbour.unplug()
    assert fleet.at_barn.request("worker") == "ok"
    assert fleet.at_barn.until("worker", "unavailable.directory_stale") <= {"ok"}
    fleet.harbour.plug_in()
    fleet.at_barn.until("worker", "ok")


def test_two_hosts_that_lose_sight_of_each_other_only(fleet: Fleet) -> None:
    """The directory sees both, so the worker counts as running; it cannot be reached from the barn."""
    assert fleet.at_barn.request("worker") == "ok"
    fleet.barn.lose_sight_of(fleet.mill)
    try:
        assert fleet.at_barn.until("worker", "agent.gone") <= CUT_OFF
        assert fleet.at_harbour.request("worker") == "ok"
        assert fleet.at_barn.request("worker", timeout=10) in CUT_OFF
    finally:
        fleet.barn.see(fleet.mill)
    assert fleet.at_barn.until("worker", "ok") <= CUT_OFF


def test_what_is_revoked_during_a_partition_counts_no_more_when_it_heals(fleet: Fleet) -> None:
    fleet.mill.unplug()
    assert fleet.harbour.agentbus("agent", "suspend", "farmer")["state"] == "suspended"
    fleet.mill.plug_in()
    assert fleet.at_harbour.until("worker", "ok") <= CUT_OFF
    assert fleet.at_barn.request("worker", timeout=10) != "ok"
    assert fleet.harbour.agentbus("agent", "resume", "farmer")["state"] == "active"
