"""From a bus URL to transports, stores and sources: the only module that knows drivers by name.

``agentbus://host:port#<root thumbprint>.<directory CURVE key>``: the second half opens the connection, and what comes
over it must lead back to the first.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from agentbus.errors import AgentBusError, ConfigError
from agentbus.home import home
from agentbus.wire.ids import b64, unb64

if TYPE_CHECKING:
    from agentbus.crypto.keys import CurveKey
    from agentbus.transport.base import Transport

CODES: Final = {
    "config.url": "A bus URL is agentbus://host:port#<root thumbprint>.<directory CURVE key>; `agentbus up` prints it.",
    "config.unpinned": "A bus URL without a pin would trust whoever answers; copy the whole line of `agentbus up`.",
    "config.no_bus": "No bus is configured: pass a URL, set AGENTBUS_URL, or run `agentbus init URL` once.",
    "config.profile": "The profile cannot be read.",
}


@dataclass(frozen=True, slots=True)
class BusUrl:
    """Where a directory listens, and the pin that makes it the right one."""

    host: str
    port: int
    root: bytes
    curve_key: bytes

    @property
    def endpoint(self) -> str:
        """The directory's ZeroMQ endpoint."""
        return f"tcp://{bracketed(self.host)}:{self.port}"

    def __str__(self) -> str:
        return f"agentbus://{bracketed(self.host)}:{self.port}#{b64(self.root)}.{b64(self.curve_key)}"

    @classmethod
    def parse(cls, text: str) -> BusUrl:
        """Read a bus URL.

        Raises:
            ConfigError: ``config.url``, ``config.unpinned``.
        """
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError("config.url", f"{text!r}: {error}") from error
        if parts.scheme != "agentbus" or not host or port is None or parts.path or parts.query or parts.username:
            raise ConfigError("config.url", f"{text!r} is no agentbus://host:port#pin; `agentbus up` prints one")
        root, _, curve = parts.fragment.partition(".")
        if not parts.fragment:
            raise ConfigError("config.unpinned", f"{text!r} has no pin; copy the whole line that `agentbus up` printed")
        try:
            return cls(host, port, unb64(root, 32), unb64(curve, 32))
        except AgentBusError as error:
            raise ConfigError("config.url", f"the pin of {text!r} is cut or damaged; copy the whole line") from error


def bracketed(host: str) -> str:
    """A host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def profile_path() -> Path:
    """Where the profile is kept."""
    return home() / "profile.json"


def save_profile(url: BusUrl) -> Path:
    """Make ``url`` the bus of this account."""
    path = profile_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"url": str(url)}) + "\n", "utf-8")
    fresh.replace(path)
    return path


def find_url(url: str | None = None) -> BusUrl:
    """The bus: the argument, else ``AGENTBUS_URL``, else the profile. A bare host and port is completed by the profile.

    Raises:
        ConfigError: ``config.no_bus``, ``config.url``, ``config.unpinned``, ``config.profile``.
    """
    text = url or os.environ.get("AGENTBUS_URL") or None
    pinned = _profile_url()
    if text is None:
        if pinned is None:
            todo = "`agentbus up` makes one, `agentbus init URL` or AGENTBUS_URL names one"
            raise ConfigError("config.no_bus", f"no bus is known here: {todo}")
        return pinned
    if "#" not in text and pinned is not None and text == str(pinned).partition("#")[0]:
        return pinned
    return BusUrl.parse(text)


def _profile_url() -> BusUrl | None:
    path = profile_path()
    try:
        data = json.loads(path.read_text("utf-8"))
        return BusUrl.parse(data["url"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError("config.profile", f"{path} cannot be read; run `agentbus init URL` again") from error


def zmq_transport(curve: CurveKey, *, listen: str | None, advertise: str | None = None) -> Transport:
    """A ZeroMQ transport; the driver is loaded only now."""
    from agentbus.transport.zeromq import ZmqTransport

    return ZmqTransport(secret_key=curve.secret, public_key=curve.public, listen=listen, advertise=advertise)


def log_folder(node: str) -> Path:
    """Where the log of a node is kept: ``AGENTBUS_DATA``, else under the profile's folder."""
    data = os.environ.get("AGENTBUS_DATA")
    return (Path(data) if data else home() / "logs") / node
