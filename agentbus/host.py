"""A directory in a folder: its keys, its log, its node. ``agentbus up`` is this and a signal handler.

``DIR/keys/`` root and online keys (0600) · ``DIR/directory/`` the log of key events · ``DIR/directory-node/`` the
directory's own messages · ``DIR/discovery/`` what agents claim of themselves ·
``DIR/exchange/`` which tokens were used.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from agentbus.connect import BusUrl, zmq_transport
from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.delegation.statements import enrolment_transcript
from agentbus.directory.core import Directory, prove_possession
from agentbus.directory.data import DirectoryData
from agentbus.errors import ConfigError
from agentbus.identity import Identity
from agentbus.keyfile import KeyFile, Keys
from agentbus.logstore.nodelog import open_log
from agentbus.runtime.clock import Clock, SystemClock
from agentbus.runtime.node import Node
from agentbus.runtime.serving import Service, policy_of
from agentbus.services.administration import directory_agent
from agentbus.services.directory import DirectoryServer
from agentbus.services.discovery import Claims, add_discovery
from agentbus.services.exchange import add_exchange
from agentbus.services.once import Once
from agentbus.wire.ids import everyone, name_id
from agentbus.wire.limits import SECOND

CODES: Final = {
    "config.operator": "The key file of user/operator that is here belongs to another directory.",
}


class DirectoryHost:
    """A running directory.

    Args:
        folder: Its data.
        listen: ZeroMQ address to bind.
    """

    def __init__(
        self, folder: Path, *, listen: str, domain: str | None = None, advertise: str | None = None, max_age: int = 30
    ) -> None:
        self.folder = folder
        self.clock: Clock = SystemClock()
        self._listen, self._advertise, self._domain = listen, advertise, domain
        self._max_age = max_age
        self._data = DirectoryData(folder)
        self.node: Node
        self.core: Directory
        self.url: BusUrl
        self._running: AsyncExitStack
        self.created = False

    async def open(self) -> None:
        """Take the folder, make or load keys, fold the log, bind, serve.

        Raises:
            ConfigError: ``config.in_use``, ``config.domain``, ``config.keys``.
        """
        self._data.take()
        async with AsyncExitStack() as undo:
            undo.callback(self._data.release)
            if self._data.keyring.exists():
                self.core = self._load()
            else:
                domain = self._domain or "agents.local"
                self.core = self._data.create(domain, now=self.clock.now(), max_age=self._max_age)
                self.created = True
            undo.callback(self.core.close)
            await self._start(undo)
            self._running = undo.pop_all()

    def _load(self) -> Directory:
        core = self._data.load(now=self.clock.now())
        if self._domain is not None and self._domain != core.domain:
            core.close()
            raise ConfigError("config.domain", f"this is the directory of {core.domain}; leave --domain out")
        return core

    async def _start(self, undo: AsyncExitStack) -> None:
        keys, domain = self.core.keys, self.core.domain
        server = DirectoryServer(self.core, self.clock)
        log = open_log(self.folder / "directory-node", domain, "directory", now=self.clock.now())
        undo.callback(log.close)  # twice is harmless: the node closes it too
        carrier = zmq_transport(keys.curve, listen=self._listen, advertise=self._advertise)
        self.node = Node(
            "directory",
            transport=carrier,
            source=server,
            curve_key=keys.curve.public,
            log=log,
            clock=self.clock,
            server=server,
        )
        undo.push_async_callback(self.node.aclose)
        await self.node.open()
        identity = Identity(name_id("service/directory", domain), keys.identity, keys.curve)
        agent = directory_agent(server)
        add_discovery(agent, self.core, Claims(self.folder / "discovery"), self.clock.now)
        add_exchange(agent, self.core, Once(self.folder / "exchange"), self.clock.now, os.urandom)
        service = Service(agent, self.node, await self.node.enter(identity))
        undo.push_async_callback(service.aclose, drain=2.0)
        self.node.set_rules(policy_of([service]))
        await service.open()
        host, _, port = carrier.endpoints[0].rpartition("://")[2].rpartition(":")
        self.url = BusUrl(host.strip("[]"), int(port), self.core.trust.root, keys.curve.public)

    async def aclose(self) -> None:
        """A clean stop."""
        await self._running.aclose()

    def enrol(self, name: str, **record: Any) -> Identity:
        """Create and enrol a principal with fresh keys, here in the directory's own process."""
        identity = Identity(name_id(name, self.core.domain), SigningKey(os.urandom(32)), CurveKey(os.urandom(32)))
        enrol_here(self.core, identity, now=self.clock.now(), **record)
        return identity


def enrol_here(core: Directory, identity: Identity, *, now: int, **record: Any) -> None:
    """Create and enrol a principal in a directory of this process, with the same proof of possession as any other."""
    core.add_principal(identity.id, now=now, owner=record.pop("owner", ""), **record)
    register_here(core, identity, now=now)


def register_here(core: Directory, identity: Identity, *, now: int) -> None:
    """Register an identity's keys in a directory of this process."""
    key, curve = identity.key.public.raw, identity.curve.public
    transcript = enrolment_transcript(core.domain, identity.id, b"in process", key, curve, now + 60 * SECOND)
    proof = prove_possession(identity.key, transcript)
    core.enrol(identity.id, key=key, curve_key=curve, transcript=transcript, proof=proof, now=now)


def make_operator(core: Directory, file: Path, *, now: int) -> Identity | None:
    """The first user, with all rights: every admin command is a signed request of this identity.

    Its keys are in its key file before the log has them: killed in between, the next start goes on from there.

    Returns:
        The operator that was made; None where there is one already.

    Raises:
        ConfigError: ``config.operator``: a key file of that name belongs to another directory.
    """
    who, kept = name_id("user/operator", core.domain), KeyFile(file)
    if core.trust.active_key(who) is not None:
        if not file.exists() and kept.proposal.path.exists():
            Identity.from_file(file).current(core.trust)
        return None
    if file.exists():
        raise ConfigError("config.operator", f"{file} is another directory's; set AGENTBUS_HOME to another folder")
    if kept.proposal.path.exists():
        identity = Identity.from_file(file)
    else:
        identity = Identity(who, SigningKey(os.urandom(32)), CurveKey(os.urandom(32)), kept)
        kept.proposal.create(Keys(who, identity.key, identity.curve))
    if core.trust.principal(who) is None:
        core.add_principal(who, now=now, owner="", rights=None, may_talk_to=[everyone(core.domain)], purpose="operator")
    register_here(core, identity, now=now)
    kept.accept()
    return identity
