"""The signed statements that establish trust: key events, revocations and instance statements (docs/spec/directory.md).

They have types of their own, and whoever carries them proves nothing: only
:meth:`agentbus.delegation.trust.Trust.advance` accepts one. Key events and
revocations are the entries of the directory's log; an instance statement is presence.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from agentbus.crypto.keys import SigningKey, VerifyKey
from agentbus.crypto.signing import Purpose, sign, verify
from agentbus.errors import Malformed
from agentbus.wire.codec import pack, unpack_array
from agentbus.wire.ids import PrincipalId, parse_id
from agentbus.wire.limits import SECOND

CODES: Final = {
    "malformed.statement": "A statement is a canonical array of the right positions, types and lengths.",
}

KEY_EVENT: Final = 1
REVOCATION: Final = 2
INSTANCE: Final = 3
MAX_INSTANCE_WINDOW: Final = 3600 * SECOND
ROLES: Final = ("identity", "head", "consent", "token")
"""The four online keys of a directory."""


class Signed(NamedTuple):
    """A statement's envelope: which kind, the signed bytes, whose key, the signature."""

    tag: int
    body: bytes
    key_id: bytes
    signature: bytes
    possession: bytes = b""

    def encode(self) -> bytes:
        """The bytes that are stored and carried."""
        row: list[Any] = [self.tag, self.body, self.key_id, self.signature]
        return bytes(pack([*row, self.possession] if self.tag == INSTANCE else row))

    def verify(self, key: VerifyKey) -> None:
        """Return when ``key`` signed this for this purpose.

        Raises:
            BadSignature: ``key.bad_signature``.
        """
        verify(key, _PURPOSES[self.tag], self.body, self.signature)


_PURPOSES: Final = {
    KEY_EVENT: Purpose.KEY_EVENT,
    REVOCATION: Purpose.REVOCATION,
    INSTANCE: Purpose.INSTANCE,
}


def decode_signed(data: bytes) -> Signed:
    """Read a statement's envelope; its signature has not been looked at.

    Raises:
        Malformed: ``malformed.statement``, and the codec's.
    """
    row = unpack_array(data)
    if not row or type(row[0]) is not int or row[0] not in _PURPOSES or len(row) != (5 if row[0] == INSTANCE else 4):
        raise Malformed("malformed.statement", "no kind of statement has this shape")
    if any(type(part) is not bytes for part in row[1:]) or len(row[2]) != 32 or len(row[3]) != 64:
        raise Malformed("malformed.statement", "a key id has 32 bytes, a signature 64")
    if row[0] == INSTANCE and len(row[4]) != 64:
        raise Malformed("malformed.statement", "a proof of possession has 64 bytes")
    return Signed(*row)


class KeyEvent(NamedTuple):
    """One entry of the directory's log: what was decided about whom.

    ``payload`` by kind: see docs/spec/directory.md. ``subject`` is a principal's id, a role or the trust domain.
    """

    seq: int
    instant: int
    domain: str
    kind: str
    subject: str
    payload: list[Any]

    def signed_by(self, key: SigningKey) -> Signed:
        """This event as a signed statement."""
        body = bytes(pack([1, *self]))
        return Signed(KEY_EVENT, body, key.id, sign(key, Purpose.KEY_EVENT, body))

    @classmethod
    def decode(cls, body: bytes) -> KeyEvent:
        """Read an event's body.

        Raises:
            Malformed: ``malformed.statement``.
        """
        row = unpack_array(body, 7)
        if [type(v) for v in row] != [int, int, int, str, str, str, list] or row[0] != 1:
            raise Malformed("malformed.statement", "not a version 1 key event")
        return cls(*row[1:])


class Rotation(NamedTuple):
    """What the old and the new key of a principal both sign: the one is followed by the other.

    It is the payload of a ``rotate`` event and proves itself, so it does not matter who carries it.
    """

    domain: str
    principal: PrincipalId
    epoch: int
    old: bytes  # id of the key that ends
    new: bytes  # raw public key that follows
    step: str  # prepare: published and not usable yet; activate: usable, and the old one verifies only
    overlap: int  # microseconds for which the old key still verifies
    expires: int  # instant after which the directory must not take it

    def encode(self) -> bytes:
        """The bytes that both keys sign (purpose ROTATION)."""
        return bytes(pack([1, *self]))

    @classmethod
    def decode(cls, body: bytes) -> Rotation:
        """Read a rotation's body.

        Raises:
            Malformed: ``malformed.statement``, ``malformed.id``.
        """
        row = unpack_array(body, 9)
        if [type(v) for v in row] != [int, str, str, int, bytes, bytes, str, int, int] or row[0] != 1:
            raise Malformed("malformed.statement", "not a version 1 rotation")
        if len(row[4]) != 32 or len(row[5]) != 32 or row[6] not in ("prepare", "activate"):
            raise Malformed("malformed.statement", "a rotation names two keys, and prepares or activates")
        row[2] = parse_id(row[2])
        return cls(*row[1:])

    def proven_by(self, old: SigningKey, new: SigningKey) -> list[bytes]:
        """The payload of the event: body, the old key's signature, the new key's."""
        body = self.encode()
        return [body, sign(old, Purpose.ROTATION, body), sign(new, Purpose.ROTATION, body)]


class Revocation(NamedTuple):
    """An irreversible statement that something counts no more. ``id`` is raw bytes, or a principal's id in UTF-8."""

    seq: int
    instant: int
    domain: str
    kind: str  # grant, instance, key or principal
    id: bytes
    revoker: PrincipalId
    reason: str
    effective_at: int
    number: int  # the revocation sequence: from 1, gap-free
    proof: bytes  # the chain prefix that shows the revoker issued it, or empty

    def signed_by(self, key: SigningKey) -> Signed:
        """This revocation as a signed statement."""
        body = bytes(pack([1, *self]))
        return Signed(REVOCATION, body, key.id, sign(key, Purpose.REVOCATION, body))

    @classmethod
    def decode(cls, body: bytes) -> Revocation:
        """Read a revocation's body.

        Raises:
            Malformed: ``malformed.statement``.
        """
        row = unpack_array(body, 11)
        if [type(v) for v in row] != [int, int, int, str, str, bytes, str, str, int, int, bytes] or row[0] != 1:
            raise Malformed("malformed.statement", "not a version 1 revocation")
        if row[4] not in ("grant", "instance", "key", "principal") or len(row[7]) > 256:
            raise Malformed("malformed.statement", "nothing of this kind can be revoked, or the reason is too long")
        row[6] = parse_id(row[6])
        return cls(*row[1:])


class Instance(NamedTuple):
    """One start of one principal in one process: binds an instance key to who, where and until when."""

    principal: PrincipalId
    epoch: int
    instance_id: bytes  # 16 random bytes
    key: bytes  # raw instance public key
    identity_key: bytes  # id of the identity key that signs this
    node: str
    log_key: bytes  # raw public key of the node's log
    curve_key: bytes  # raw X25519 key of the node
    endpoints: list[str]  # where the node can be dialled; empty: it only dials out
    purposes: list[str]  # ascending subset of envelope, grant
    not_before: int
    not_after: int

    def signed_by(self, identity: SigningKey, instance: SigningKey) -> Signed:
        """This statement, signed by the identity key and countersigned by the instance key it introduces."""
        body = bytes(pack([1, *self]))
        return Signed(
            INSTANCE,
            body,
            identity.id,
            sign(identity, Purpose.INSTANCE, body),
            sign(instance, Purpose.INSTANCE_POSSESSION, body),
        )

    @property
    def handle(self) -> bytes:
        """What a revocation names: an instance id alone could be chosen to be somebody else's."""
        return f"{self.principal}#{self.instance_id.hex()}".encode()

    @classmethod
    def decode(cls, body: bytes) -> Instance:
        """Read an instance statement's body.

        Raises:
            Malformed: ``malformed.statement``, ``malformed.id``.
        """
        row = unpack_array(body, 13)
        types = [int, str, int, bytes, bytes, bytes, str, bytes, bytes, list, list, int, int]
        if [type(v) for v in row] != types or row[0] != 1:
            raise Malformed("malformed.statement", "not a version 1 instance statement")
        if len(row[3]) != 16 or any(len(row[i]) != 32 for i in (4, 5, 7, 8)) or not 0 < len(row[6]) <= 80:
            raise Malformed("malformed.statement", "a key or id has another length")
        if any(type(v) is not str or len(v) > 256 for v in row[9]) or len(row[9]) > 8:
            raise Malformed("malformed.statement", "endpoints are at most 8 texts")
        if row[10] not in (["envelope"], ["envelope", "grant"], ["grant"]):
            raise Malformed("malformed.statement", "purposes are envelope, grant or both")
        row[1] = parse_id(row[1])
        return cls(*row[1:])


def enrolment_transcript(
    domain: str, principal: str, nonce: bytes, key: bytes, curve_key: bytes, expires: int
) -> bytes:
    """What a new identity key signs to prove it is held (purpose POP)."""
    return bytes(pack([1, nonce, directory_id(domain), domain, principal, key, curve_key, ["statement"], expires]))


def directory_id(domain: str) -> PrincipalId:
    """The directory's own id in a trust domain."""
    return PrincipalId(f"spiffe://{domain}/service/directory")


def directory_origin(domain: str) -> str:
    """The origin of the directory's log: what its heads are signed for."""
    return f"agentbus.{domain}/directory"
