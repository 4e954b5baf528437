"""CURVE's handshake by hand (ZMTP 3.1, RFC 26/CurveZMQ), so that each step of it can be done wrong.

Blocking, for a thread or a test that waits for nothing else.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Final

from nacl.bindings import crypto_box, crypto_box_afternm, crypto_box_beforenm, crypto_box_open
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


class Client:
    """A dialler that completes the handshake as it should, and then sends what it likes.

    Args:
        key: Its registered CURVE key.
        endpoint: Whom it dials.
        server_key: The key that listens there.
    """

    def __init__(self, key: PrivateKey, endpoint: str, server_key: bytes) -> None:
        host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        ours, self._nonce = PrivateKey.generate(), 2
        self.socket.sendall(greeting(server=False) + hello(server_key, ours=ours))
        assert len(receive(self.socket, 64)) == 64
        said = receive(self.socket, 2 + 168)
        opened = crypto_box_open(said[26:], b"WELCOME-" + said[10:26], server_key, bytes(ours))
        theirs, cookie = opened[:32], opened[32:]
        vouch_nonce = os.urandom(16)
        vouch = crypto_box(bytes(ours.public_key) + server_key, b"VOUCH---" + vouch_nonce, theirs, bytes(key))
        metadata = b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER" + b"\x08Identity" + bytes(4)
        plain = bytes(key.public_key) + vouch_nonce + vouch + metadata
        self._shared = crypto_box_beforenm(theirs, bytes(ours))
        box = crypto_box_afternm(plain, b"CurveZMQINITIATE" + self._short(), self._shared)
        self.socket.sendall(command(b"INITIATE", cookie + self._short() + box))
        self._nonce += 1
        head = receive(self.socket, 2)
        assert receive(self.socket, head[1]).startswith(b"\x05READY"), "not admitted"

    def message(self, payload: bytes, *, more: bool) -> bytes:
        """One MESSAGE command, as it goes over the wire."""
        plain = bytes([more]) + payload
        box = crypto_box_afternm(plain, b"CurveZMQMESSAGEC" + self._short(), self._shared)
        body = b"\x07MESSAGE" + self._short() + box
        self._nonce += 1
        return (b"\0" + bytes([len(body)]) if len(body) < 256 else b"\x02" + len(body).to_bytes(8, "big")) + body

    def pour(self, part: bytes, parts: int) -> int:
        """So many parts of one message that has no end; how many went before the connection was cut."""
        for number in range(parts):
            try:
                self.socket.sendall(self.message(part, more=True))
            except OSError:
                return number
        return parts

    def _short(self) -> bytes:
        return self._nonce.to_bytes(8, "big")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()


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
