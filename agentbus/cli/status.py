"""``agentbus status``: a probe. It asks as NAME over one connection and starts no instance: no log remembers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agentbus.cli.output import as_option, json_option, run_async, say
from agentbus.errors import AgentGone, AgentNotFound, Unavailable

if TYPE_CHECKING:
    from agentbus.runtime.trust_cache import TrustCache
    from agentbus.transport.base import Connection


@click.command()
@click.option("--serving", is_flag=True, help="Require as well that an instance of NAME runs and can be asked.")
@as_option
@json_option
def status(serving: bool, name: str | None, as_json: bool) -> None:
    """Probe the directory. Exit 0 when this identity is registered, and the directory reachable and fresh."""
    found = run_async(_status(name))
    if serving and not any(one["endpoints"] for one in found["running"]):
        raise _not_serving(found)
    say(found, _text(found), as_json=as_json)


async def _status(name: str | None) -> dict[str, Any]:
    from agentbus.cli.node import speaker
    from agentbus.connect import find_url, zmq_transport
    from agentbus.crypto.keys import thumbprint
    from agentbus.identity import Identity
    from agentbus.runtime.clock import SystemClock
    from agentbus.runtime.trust_cache import TrustCache

    url, clock = find_url(), SystemClock()
    identity = Identity.load(speaker(name))
    transport = zmq_transport(identity.curve, listen=None)
    source = TrustCache(transport, endpoint=url.endpoint, key=url.curve_key, root=url.root, clock=clock)
    try:
        await transport.open(_Ear(source))
        await source.refresh()
        source.check_clock()
        record = source.trust.principal(identity.id)
        if record is None or record.state != "active":
            raise AgentNotFound("agent.not_found", f"{identity.id} is {record.state if record else 'not registered'}")
        age = source.age()
        if age is None or age > source.trust.max_age:
            raise Unavailable("unavailable.directory_stale", "the directory's answer is too old to rely on")
        await source.find(principals=[identity.id])
        running = source.trust.instances_of(identity.id, clock.now())
        return {
            "id": str(identity.id),
            "domain": source.trust.domain,
            "directory_size": source.trust.size,
            "age_ms": age // 1000,
            "max_age_ms": source.trust.max_age // 1000,
            "running": [
                {"node": one.node, "endpoints": list(one.endpoints)}
                for one in running
                if thumbprint(one.key) not in source.departed
            ],
            "ready": True,
        }
    finally:
        await source.aclose()
        await transport.aclose()


class _Ear:
    """Hears the directory, and nobody else."""

    def __init__(self, source: TrustCache) -> None:
        self._source = source

    def received(self, connection: Connection, frame: bytes) -> None:
        if self._source.owns(connection):
            self._source.received(frame)

    def lost(self, connection: Connection, reason: str) -> None:
        if self._source.owns(connection):
            self._source.cut(reason)

    async def admit(self, key: bytes) -> bool:
        return False


def _text(found: dict[str, Any]) -> str:
    nodes = ", ".join(f"{one['node']} at {' '.join(one['endpoints']) or 'no address'}" for one in found["running"])
    return (
        f"{found['id']} is registered; directory of {found['directory_size']} entries, heard {found['age_ms']} ms ago; "
        f"running: {nodes or 'none'}"
    )


def _not_serving(found: dict[str, Any]) -> AgentGone:
    if found["running"]:
        return AgentGone("agent.dials_out_only", f"{found['id']} runs and does not listen: it cannot be asked")
    return AgentGone("agent.not_running", f"{found['id']} is registered and not running")
