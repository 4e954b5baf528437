"""From an identity and a URL to a running bus: over ZeroMQ, with its log in files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, Final

from agentbus.bus.base import Bus
from agentbus.connect import BusUrl, find_url, log_folder, zmq_transport
from agentbus.directory.mirror import Mirror
from agentbus.enrolment import enrol, hearing, new_identity
from agentbus.errors import (
    AgentBusError,
    ConfigError,
    DirectoryRefused,
    KeyFileError,
    Unavailable,
)
from agentbus.holdings import Holdings
from agentbus.home import home, key_path
from agentbus.identity import Identity
from agentbus.keyfile import SALT, KeyFile, Keys, Lock, passphrase_from_environment
from agentbus.logstore.nodelog import open_log
from agentbus.runtime.agent import Agent
from agentbus.runtime.clock import Clock, SystemClock
from agentbus.runtime.loop import run
from agentbus.runtime.node import Node
from agentbus.runtime.renewal import Step, rotate
from agentbus.runtime.trust_cache import TrustCache
from agentbus.transport.base import Transport
from agentbus.wire.ids import node_name

CODES: Final = {
    "config.node_names": "So many nodes of one identity run on this machine that there is no name left for another.",
    "config.no_identity": "Nobody speaks: pass identity=, set AGENTBUS_IDENTITY, or enrol with `agentbus agent enrol`.",
}


NAMES: Final = 64  # that the nodes of one identity may have on one machine; the directory keeps no more, either


async def speaking_as(of: Identity | str | None, url: BusUrl) -> Identity:
    """The identity itself, the one enrolled here under a name, or the environment's.

    Where it has no key file yet and ``AGENTBUS_ENROLMENT_TOKEN_FILE`` names a token, it is enrolled first: the first
    start of a container is like every other.

    Raises:
        ConfigError: ``config.no_identity``, ``config.token``. KeyFileError: it has no good key file.
        DirectoryRefused: ``directory.token``: the token is used up, too old or another's.
    """
    if isinstance(of, Identity):
        return of
    name = of or os.environ.get("AGENTBUS_IDENTITY")
    if not name:
        raise ConfigError("config.no_identity", "pass identity=, or set AGENTBUS_IDENTITY to a name enrolled here")
    file = os.environ.get("AGENTBUS_ENROLMENT_TOKEN_FILE")
    if not file or key_path(name).exists():
        return await asyncio.to_thread(Identity.load, name)  # a passphrase takes its time
    return await enrol_identity(name, _token(file, name), str(url))


def _token(file: str, name: str) -> str:
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "config.token", f"{name} has no key file yet, and its token file {file} cannot be read"
        ) from error


async def connect_bus(
    url: BusUrl,
    identity: Identity,
    *,
    listen: str | None,
    advertise: str | None = None,
    folder: Path | None = None,
    transport: Transport | None = None,
    clock: Clock | None = None,
) -> Bus:
    """A bus over ZeroMQ with its log in files: what :meth:`Bus.connect` does once everything is known.

    A node is named after its identity; where a running node has that name, ``-2``, ``-3`` and so on.

    Raises:
        ConfigError: ``config.node_names``. LogError, Unavailable, Rejected, DirectoryRefused.
    """
    clock = clock or SystemClock()
    base = node_name(identity.id)
    async with AsyncExitStack() as undo:
        for attempt in range(1, NAMES + 1):
            name = base if attempt == 1 else f"{base}-{attempt}"
            carrier = transport or zmq_transport(identity.curve, listen=listen, advertise=advertise)
            try:
                log = open_log(folder or log_folder(name), identity.id.domain, name, now=clock.now())
            except AgentBusError as error:
                if error.code != "log.locked" or folder is not None:
                    raise
                continue
            node = Node(
                name,
                transport=carrier,
                source=TrustCache(
                    carrier,
                    endpoint=url.endpoint,
                    key=url.curve_key,
                    root=url.root,
                    clock=clock,
                    mirror=Mirror(folder or log_folder(name)),
                ),
                curve_key=identity.curve.public,
                log=log,
                clock=clock,
            )
            undo.push_async_callback(node.aclose)
            await node.open()
            identity = await asyncio.to_thread(identity.current, node.source.trust)
            try:
                bus = Bus(node, await node.enter(identity), Holdings(home() / "grants"))
            except DirectoryRefused as error:
                if error.code != "directory.node_taken" or folder is not None:
                    raise
                await undo.aclose()
                continue
            undo.pop_all()
            return bus
    raise ConfigError(
        "config.node_names", f"the names {base} to {base}-{NAMES} are all in use: stop one of these nodes"
    )


def run_agent(agent: Agent[Any], name: str | None = None, ready: Callable[[Bus], Any] | None = None) -> None:
    """``agent.run()`` and ``agentbus run``: everything from the environment and the profile, until SIGTERM.

    Args:
        agent: What to serve.
        name: Under which identity; else ``AGENTBUS_IDENTITY``, else the one of its own name.
        ready: Called once it can be asked.
    """
    served = copy(agent)
    served.name = name or os.environ.get("AGENTBUS_IDENTITY") or agent.name

    async def main() -> None:
        async with Bus.connect(identity=served.name) as bus:
            await bus.run(served, ready=partial(ready, bus) if ready else None)

    run(main())


async def enrol_identity(
    name: str, token: str, url: str | None = None, *, passphrase: str | None = None, replace: bool = False
) -> Identity:
    """``Identity.enrol``: keys made here, kept in a file, and registered.

    The keys are on disk before the directory hears of them. Whoever is killed before the answer came finds them there,
    and so does another try.
    """
    where, path = find_url(url), key_path(name)
    fresh, file = new_identity(name, token), KeyFile(path)
    if path.exists() and not replace:
        raise KeyFileError("key.exists", f"{path} exists: {name} is enrolled on this machine already")
    passphrase = passphrase or passphrase_from_environment()
    if passphrase is not None:
        file = KeyFile(path, await asyncio.to_thread(Lock.of, passphrase, os.urandom(SALT)))
    earlier = await asyncio.to_thread(_earlier_try, file, replacing=path.exists())
    if earlier is not None and await _was_taken(where, earlier):
        return earlier
    if earlier is None:
        file.proposal.create(Keys(fresh.id, fresh.key, fresh.curve))
    identity = earlier or fresh
    try:
        await enrol(where, name, token, identity)
    except DirectoryRefused:
        if earlier is None:
            file.proposal.path.unlink(missing_ok=True)  # a refusal is an answer: nobody took these keys
        raise
    file.keep_old()
    file.accept()
    return Identity(identity.id, identity.key, identity.curve, file)


async def _was_taken(where: BusUrl, earlier: Identity) -> bool:
    """Whether the directory took the keys of an earlier try whose answer was lost; then they are in the key file."""
    try:
        async with hearing(where, earlier) as source:
            active = source.trust.active_key(earlier.id)
            taken = active is not None and active.key.id == earlier.key.id
            if taken:
                await asyncio.to_thread(earlier.current, source.trust)
            return taken
    except Unavailable:
        return False  # their CURVE key is not admitted


def _earlier_try(file: KeyFile, *, replacing: bool) -> Identity | None:
    """Keys that an earlier enrolment left, to be offered again; those of a rotation that led nowhere are set aside."""
    proposal = file.proposal
    if not proposal.path.exists():
        return None
    keys, _ = proposal.read()
    if replacing and keys.curve.public == file.read()[0].curve.public:
        proposal.keep_old()
        proposal.path.unlink()
        return None
    return Identity(*keys, file)


async def rotate_identity(identity: Identity, url: str | None, overlap: float, step: Step) -> Identity:
    """``Identity.rotate`` and ``prepare``: without an instance, so that a tainted key can be followed, too."""
    async with hearing(find_url(url), identity) as source:
        now, seed = SystemClock().now(), os.urandom(32)
        return await rotate(identity, source, overlap=overlap, now=now, seed=seed, step=step)
