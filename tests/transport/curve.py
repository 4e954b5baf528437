"""CURVE's handshake by hand (ZMTP 3.1, RFC 26/CurveZMQ), so that each step of it can be done wrong.

Blocking, for a thread or a test that waits for nothing else.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Final

from nacl.bindings import crypto_box
from nacl.public import PrivateKey

LOW_ORDER: Final = bytes(32)  # u = 0: the product with any secret is 0, and libsodium refuses to go on


def greeting(*, server: bool) -> bytes:
    """64 bytes: signature, version 3.1, mechanism, role."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes([server]) + bytes(31)


def command(name: bytes, data: bytes) -> bytes:
    """A command frame."""
    body = bytes([len(name)]) + name + data
    return (b"\x04" + bytes([len(body)]) if len(body) < 256 else b"\x06" + len(body).to_bytes(8, "big")) + body


def hello(server_key: bytes, *, ours: PrivateKey | None = None, claim: bytes | None = None) -> bytes:
    """HELLO from a fresh transient key; with ``claim``, that key is named and another one was used."""
    ours = ours or PrivateKey.generate()
    box = crypto_box(bytes(64), b"CurveZMQHELLO---" + bytes(7) + b"\x01", server_key, bytes(ours))
    return command(b"HELLO", b"\x01\0" + bytes(72) + (claim or bytes(ours.public_key)) + bytes(7) + b"\x01" + box)


def welcome(server: PrivateKey, client_transient: bytes, transient: bytes) -> bytes:
    """WELCOME with ``transient`` as the server's key for this connection."""
    nonce = os.urandom(16)
    box = crypto_box(transient + os.urandom(96), b"WELCOME-" + nonce, client_transient, bytes(server))
    return command(b"WELCOME", nonce + box)


def receive(peer: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes, or what came before the end."""
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            break
        data += more
    return data


class HostileListener:
    """Whoever dials it is welcomed with ``transient``: an enrolled peer whose listener is no libzmq.

    Args:
        key: Its registered CURVE key, so that the handshake is genuine up to that point.
    """

    def __init__(self, key: PrivateKey, transient: bytes = LOW_ORDER) -> None:
        self._key, self._transient = key, transient
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.welcomed = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer, suppress(OSError):
                peer.settimeout(10)
                peer.sendall(greeting(server=True))
                receive(peer, 64)
                said = receive(peer, 2 + 200)
                if len(said) == 202:
                    self.welcomed += 1
                    peer.sendall(welcome(self._key, said[2 + 80 : 2 + 112], self._transient))
                    receive(peer, 10_000)
