"""One way to turn values into bytes and back: msgpack arrays, in their shortest form.

Rule 1: what is signed is the bytes; a receiver verifies the bytes that came and never re-encodes to verify.
Rule 2: still, only canonical bytes are read: ``pack(unpack(x)) == x``. Two spellings of one statement would be two
digests of one fact. Maps, floats and extension types do not exist here.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from agentbus.errors import Malformed

CODES: Final = {
    "malformed.codec": "These bytes are not one msgpack value of arrays, integers, strings, bytes, booleans and nil.",
    "malformed.not_canonical": "This is not the one canonical encoding: integers and lengths in shortest form.",
}

DEPTH: Final = 16
"""How deep arrays may nest; a grant's scopes need five. Far below where any caller's stack would end."""
_PLAIN: Final = (int, str, bytes, bool, type(None))

pack: Final = msgpack.Packer(use_bin_type=True, autoreset=True).pack
"""Encode arrays, integers, strings, bytes, booleans and None; always in shortest form."""


def unpack(data: bytes) -> Any:
    """Decode one canonical value.

    Raises:
        Malformed: ``malformed.codec``, ``malformed.not_canonical``.
    """
    try:
        value = msgpack.unpackb(data, raw=False, use_list=True, strict_map_key=True, max_ext_len=0)
        again = pack(value)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise Malformed("malformed.codec", "not a msgpack value") from error
    if again != data:
        raise Malformed("malformed.not_canonical", "not in canonical form")
    _require_plain([value])
    return value


def unpack_array(data: bytes, length: int | None = None) -> list[Any]:
    """Decode one canonical array, of ``length`` items where given.

    Raises:
        Malformed: ``malformed.codec``, ``malformed.not_canonical``.
    """
    value = unpack(data)
    if type(value) is not list or (length is not None and len(value) != length):
        raise Malformed("malformed.codec", "not an array of the fixed length")
    return value


def _require_plain(value: list[Any], depth: int = 0) -> None:
    if depth > DEPTH:
        raise Malformed("malformed.codec", f"nested more than {DEPTH} deep")
    for item in value:
        kind = type(item)
        if kind is list:
            _require_plain(item, depth + 1)
        elif kind not in _PLAIN:
            raise Malformed("malformed.codec", f"a {kind.__name__} has no place in a statement")
