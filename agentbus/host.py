"""A directory in a folder: its keys, its log, its node. ``agentbus up`` is this and a signal handler.

``DIR/keys/`` root and online keys (0600) · ``DIR/directory/`` the log of key events · ``DIR/directory-node/`` the
directory's own messages · ``DIR/discovery/`` what agents claim of themselves ·
``DIR/exchange/`` which tokens were used.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from agentbus.connect import BusUrl, file_log, zmq_transport
from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.delegation.statements import enrolment_transcript
from agentbus.directory.core import Directory, OnlineKeys, prove_possession
from agentbus.directory.store import SqliteStore
from agentbus.errors import ConfigError, KeyFileError
from agentbus.identity import Identity
from agentbus.log.base import LogStore
from agentbus.runtime.clock import Clock, SystemClock
from agentbus.runtime.node import Node
from agentbus.runtime.serving import Service, policy_of
from agentbus.services.administration import directory_agent
from agentbus.services.directory import DirectoryServer
from agentbus.services.discovery import Claims, add_discovery
from agentbus.services.exchange import Once, add_exchange
from agentbus.wire.ids import DOMAIN, b64, everyone, name_id, unb64
from agentbus.wire.limits import SECOND

CODES: Final = {
    "config.in_use": "Another directory runs on this data; two would make two histories.",
    "config.domain": "The trust domain is a lower-case DNS name, and an existing directory keeps its own.",
    "config.keys": "The directory's keys are missing or damaged; restore them from a backup.",
}

ROLES: Final = ("identity", "head", "consent", "token")


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
        self._lock: int | None = None
        self.node: Node
        self.core: Directory
        self.url: BusUrl
        self._service: Service
        self.created = False

    async def open(self) -> None:
        """Take the folder, make or load keys, fold the log, bind, serve.

        Raises:
            ConfigError: ``config.in_use``, ``config.domain``, ``config.keys``.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take_lock()
        try:
            self.core = self._load() if (self.folder / "keys").exists() else self._create()
            await self._start()
        except BaseException:
            self._release()
            raise

    async def _start(self) -> None:
        keys, domain = self.core.keys, self.core.domain
        server = DirectoryServer(self.core, self.clock)
        log, log_key = open_log(self.folder / "directory-node", domain, "directory", self.clock)
        carrier = zmq_transport(keys.curve, listen=self._listen, advertise=self._advertise)
        self.node = Node(
            "directory",
            transport=carrier,
            source=server,
            curve_key=keys.curve.public,
            log=log,
            log_key=log_key.public.raw,
            clock=self.clock,
            server=server,
        )
        await self.node.open()
        identity = Identity(name_id("service/directory", domain), keys.identity, keys.curve)
        agent = directory_agent(server)
        add_discovery(agent, self.core, Claims(self.folder / "discovery"), self.clock.now)
        add_exchange(agent, self.core, Once(self.folder / "exchange"), self.clock.now, os.urandom)
        self._service = Service(agent, self.node, await self.node.enter(identity))
        self.node.set_rules(policy_of([self._service]))
        await self._service.open()
        host, _, port = carrier.endpoints[0].rpartition("://")[2].rpartition(":")
        self.url = BusUrl(host, int(port), self.core.trust.root, keys.curve.public)

    async def aclose(self) -> None:
        """A clean stop."""
        await self._service.aclose(drain=2.0)
        await self.node.aclose()
        self._release()

    def enrol(self, name: str, **record: Any) -> Identity:
        """Create and enrol a principal with fresh keys, here in the directory's own process."""
        identity = Identity(name_id(name, self.core.domain), SigningKey(os.urandom(32)), CurveKey(os.urandom(32)))
        enrol_here(self.core, identity, now=self.clock.now(), **record)
        return identity

    def _create(self) -> Directory:
        domain = self._domain or "agents.local"
        if not DOMAIN.fullmatch(domain) or len(domain) > 200:
            raise ConfigError("config.domain", f"{domain!r} is no lower-case DNS name such as agents.example")
        keys, root = OnlineKeys.make(os.urandom), SigningKey(os.urandom(32))
        folder = self.folder / "keys.new"
        folder.mkdir(mode=0o700, exist_ok=True)
        _write(folder / "root.json", {"key": b64(root.seed)})
        online = {role: b64(getattr(keys, role).seed) for role in ROLES}
        _write(folder / "online.json", {**online, "curve": b64(keys.curve.secret), "root": b64(root.id)})
        store = SqliteStore(self.folder / "directory")
        core = Directory.create(store, keys, root, domain=domain, now=self.clock.now(), max_age=self._max_age * SECOND)
        folder.rename(self.folder / "keys")  # last: keys without a log, or a log without keys, is never taken for whole
        self.created = True
        return core

    def _load(self) -> Directory:
        path = self.folder / "keys" / "online.json"
        try:
            if path.stat().st_mode & 0o077:
                raise KeyFileError("key.readable", f"{path} is open to others: rotate the online keys")
            data = json.loads(path.read_text("utf-8"))
            signing = {role: SigningKey(unb64(data[role], 32)) for role in ROLES}
            keys = OnlineKeys(**signing, curve=CurveKey(unb64(data["curve"], 32)))
            root = unb64(data["root"], 32)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, KeyFileError):
                raise
            raise ConfigError("config.keys", f"{path}: {CODES['config.keys']}") from error
        core = Directory(SqliteStore(self.folder / "directory"), keys, root, now=self.clock.now())
        if self._domain is not None and self._domain != core.domain:
            raise ConfigError("config.domain", f"this is the directory of {core.domain}; leave --domain out")
        return core

    def _take_lock(self) -> None:
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._release()
            raise ConfigError("config.in_use", f"another directory runs on {self.folder}; stop it first") from error

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


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


def make_operator(host: DirectoryHost) -> Identity:
    """The first user, with all rights: every admin command is a signed request of this identity."""
    domain = host.core.domain
    return host.enrol("user/operator", rights=None, may_talk_to=[everyone(domain)], purpose="operator")


def open_log(folder: Path, domain: str, node: str, clock: Clock) -> tuple[LogStore, SigningKey]:
    """The node's log in ``folder``, and its log key, which lives beside it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "log.key"
    if not path.exists():
        _make_log_key(path)
    key = SigningKey(path.read_bytes())
    return file_log(folder, key=key, domain=domain, node=node, now=clock.now()), key


def _make_log_key(path: Path) -> None:
    """Whole or not at all: another process that starts in this folder at the same moment may read it at any time."""
    fresh = path.with_name(f"log.key.{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(os.urandom(32))
        out.flush()
        os.fsync(out.fileno())
    with suppress(FileExistsError):
        os.link(fresh, path)  # unlike a rename, it never replaces the key of whoever was first
    fresh.unlink()


def _write(path: Path, data: dict[str, str]) -> None:
    opener: Callable[[str, int], int] = lambda name, flags: os.open(name, flags, 0o600)  # noqa: E731
    with open(path, "w", encoding="utf-8", opener=opener) as out:
        json.dump(data, out)
        out.flush()
        os.fsync(out.fileno())
