"""The directory's signed receipt of what it ended when it retired somebody.

It is no entry of the log: it sums up entries, and what the log does not hold (instances, standing grants, enrolment
tokens). Anybody with the pinned root verifies it offline (:mod:`agentbus.directory.evidence`).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from agentbus.crypto.keys import SigningKey, VerifyKey
from agentbus.crypto.signing import Purpose, sign, verify
from agentbus.errors import Malformed
from agentbus.wire.codec import pack, unpack_array
from agentbus.wire.ids import PrincipalId, parse_id

CODES: Final = {
    "malformed.receipt": "This is no receipt of a directory, or it is damaged.",
}


class Retirement(NamedTuple):
    """What ended with a principal."""

    domain: str
    principal: PrincipalId
    instant: int
    reason: str
    first: int  # the entries of the log that did it: from here …
    size: int  # … to below here
    keys: list[bytes]  # ids of identity keys
    instances: list[bytes]  # handles
    grants: list[bytes]  # digests of grants that the directory signed
    consents: list[int]  # positions in the log of consents that it gave, or that were given for it
    tokens: list[bytes]  # CURVE keys of enrolment tokens

    def signed_by(self, key: SigningKey) -> bytes:
        """The receipt, signed by the directory's identity key."""
        body = bytes(pack([1, *self]))
        return bytes(pack([body, key.id, sign(key, Purpose.RETIREMENT, body)]))


def read_receipt(data: bytes) -> tuple[Retirement, bytes]:
    """A receipt and the id of the key that it says signed it; nothing was verified.

    Raises:
        Malformed: ``malformed.receipt``, and the codec's.
    """
    body, key_id, signature = unpack_array(data, 3)
    if any(type(part) is not bytes for part in (body, key_id, signature)):
        raise Malformed("malformed.receipt", "a receipt is a body, a key id and a signature")
    row = unpack_array(body, 12)
    if [type(v) for v in row] != [int, str, str, int, str, int, int, list, list, list, list, list] or row[0] != 1:
        raise Malformed("malformed.receipt", "not a version 1 receipt")
    lists: list[list[Any]] = row[7:]
    for items, kind in zip(lists, (bytes, bytes, bytes, int, bytes), strict=True):
        if any(type(item) is not kind for item in items):
            raise Malformed("malformed.receipt", "what was ended is named by bytes, a consent by its position")
    row[2] = parse_id(row[2])
    return Retirement(*row[1:]), key_id


def open_receipt(data: bytes, key: VerifyKey) -> Retirement:
    """A receipt that ``key`` signed.

    Raises:
        Malformed: ``malformed.receipt``.
        BadSignature: ``key.bad_signature``.
    """
    receipt, _ = read_receipt(data)
    body, _, signature = unpack_array(data, 3)
    verify(key, Purpose.RETIREMENT, body, signature)
    return receipt
