"""How libzmq's sockets are set up here. Every option has its reason; no other module sets one.

Rule 1: every option stands before ``bind`` or ``connect``, because libzmq copies them there.
Rule 2: no socket speaks anything but CURVE, and a listener without an answer from ZAP lets nobody in.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final

import zmq
from zmq.utils import z85

from agentbus.errors import ConfigError
from agentbus.transport.common import KEY_SIZE, MAX_FRAME, WAITING

HEARTBEAT: Final = 1000  # ms between pings; with the next line a stopped peer is lost after about 4 s
HEARTBEAT_TIMEOUT: Final = 3000  # ms of silence after which the other side is gone
HANDSHAKE: Final = 5000  # ms; libzmq waits 30 s, which lets half-open connections pile up
LINGER: Final = 800  # ms that accepted frames have to leave at aclose, within the port's 1 s
HANDSHAKE_SIZE: Final = 1024  # bytes; MAXMSGSIZE counts for the handshake's commands, too: HELLO has 200
CURVE_OVERHEAD: Final = 64  # bytes; MAXMSGSIZE counts the MESSAGE command, 33 bytes longer than the frame in it
ZAP_DOMAIN: Final = b"agentbus"

_ENDPOINT: Final = re.compile(
    r"tcp://(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[([0-9A-Fa-f:.]{2,45})\]):[0-9]{1,5}"
)
_IPV6: Final = "tcp://["  # names are looked up as IPv4: a socket that speaks both would try IPv6 first, and alone


CODES: Final = {
    "config.transport": "The transport's keys, addresses or limits cannot be used.",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What all sockets of one transport have in common."""

    secret_key: bytes = field(repr=False)
    public_key: bytes
    max_frame: int = MAX_FRAME  # bytes
    high_water: int = 4096  # frames for each peer and direction; libzmq's 1,000 is less than one burst of batches
    waiting: int = WAITING  # bytes that may wait for each peer

    def __post_init__(self) -> None:
        if len(self.secret_key) != KEY_SIZE or len(self.public_key) != KEY_SIZE:
            raise ConfigError("config.transport", f"CURVE keys are {KEY_SIZE} raw bytes")
        if zmq.curve_public(z85.encode(self.secret_key)) != z85.encode(self.public_key):
            raise ConfigError("config.transport", "the public CURVE key is not the secret key's")
        if self.max_frame < 1 or self.high_water < 1:
            raise ConfigError("config.transport", "max_frame and high_water are at least 1")


def can_dial(endpoint: str) -> bool:
    """Whether ``endpoint`` is a plain ``tcp://host:port`` or ``tcp://[IPv6 address]:port``.

    Endpoints come from others' statements. libzmq would also follow ``inproc://`` (our own ZAP handler), ``ipc://``
    (any file) and ``tcp://source;target``.
    """
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None or found[1] is None:
        return found is not None
    try:
        return bool(IPv6Address(found[1]))
    except ValueError:
        return False


def speak_ipv6(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Let a socket use the endpoint's address where that is of IPv6; call it before bind or connect."""
    socket.setsockopt(zmq.IPV6, int(endpoint.startswith(_IPV6)))


def listening(context: zmq.Context[zmq.Socket[bytes]], settings: Settings) -> zmq.Socket[bytes]:
    """A ROUTER that only admitted CURVE keys can reach; not bound yet."""
    _seed_routing_ids()
    socket = context.socket(zmq.ROUTER)
    _limit(socket, settings)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # else what cannot be routed vanishes without a word
    socket.setsockopt(zmq.ROUTER_HANDOVER, 0)  # a peer never takes over another's routing id
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, settings.secret_key)
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it, a missing ZAP handler means that everybody may enter
    return socket


def dialling(context: zmq.Context[zmq.Socket[bytes]], settings: Settings, server_key: bytes) -> zmq.Socket[bytes]:
    """A DEALER for one connection to the holder of ``server_key``; not connected yet."""
    socket = context.socket(zmq.DEALER)
    _limit(socket, settings)
    socket.setsockopt(zmq.RECONNECT_IVL, -1)  # a successor must not get what was queued for its predecessor
    socket.setsockopt(zmq.CONNECT_TIMEOUT, HANDSHAKE)
    socket.setsockopt(zmq.IMMEDIATE, 0)  # frames may wait for the handshake
    # Unguessable, so that nobody waits at the listener to inherit our replies when we go; and not empty, so that the
    # listener does not count an id up for us (see _seed_routing_ids).
    socket.setsockopt(zmq.ROUTING_ID, b"a" + secrets.token_bytes(15))
    socket.setsockopt(zmq.CURVE_SERVERKEY, server_key)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, settings.public_key)
    socket.setsockopt(zmq.CURVE_SECRETKEY, settings.secret_key)
    return socket


def _limit(socket: zmq.Socket[bytes], settings: Settings) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, settings.high_water)
    socket.setsockopt(zmq.RCVHWM, settings.high_water)
    socket.setsockopt(zmq.MAXMSGSIZE, max(settings.max_frame + CURVE_OVERHEAD, HANDSHAKE_SIZE))
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT)
    socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE)


def _seed_routing_ids() -> None:
    """Make the ids that a ROUTER counts up for nameless peers start where nobody can guess.

    libzmq 4.3.5 takes the first one from an unseeded ``rand()``: 0x6B8B4567 in every process. Whoever names itself with
    the next such id, and lets another connection come without a name, makes libzmq abort (``Assertion failed: ok``,
    socket_base.cpp). With 32 random bits and the gate's pace for each key, hitting it takes years.
    """
    ctypes.CDLL(None).srand(ctypes.c_uint(int.from_bytes(os.urandom(4), "big")))
