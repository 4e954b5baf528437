"""Evidence that a directory cannot talk itself out of, checked offline by whoever has the pinned root.

Three kinds: the *receipt* of a retirement, with its entries and their inclusion in the log; an *entry* with its
inclusion; and a *fork*: two heads of one size that the same directory signed, or a head and signed entries that it does
not cover.

What the root key said (entry 0 and those about online keys) goes with it, so that nothing else is needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from agentbus.crypto.keys import VerifyKey
from agentbus.crypto.merkle import Frontier, Tree, leaf_hash, root_from_path
from agentbus.crypto.note import Checkpoint, open_checkpoint
from agentbus.delegation.records import OnlineKey
from agentbus.delegation.statements import KEY_EVENT, KeyEvent, Revocation, decode_signed, directory_origin
from agentbus.directory.core import Directory
from agentbus.directory.receipt import Retirement, open_receipt, read_receipt
from agentbus.errors import AgentBusError, BadSignature, Malformed, Rejected
from agentbus.wire.codec import unpack_array
from agentbus.wire.ids import b64, unb64

CODES: Final = {
    "malformed.evidence": "This is no evidence file of agentbus, or it is damaged.",
    "reject.evidence": "The evidence does not show what it claims.",
}


class Roots:
    """What the root key said about the directory's online keys, from entries that each verify by themselves.

    Args:
        root: The pinned thumbprint of the root key.
        entries: Entry 0, and entries of kind ``online``; others are left out.

    Raises:
        Rejected: ``reject.evidence``. Malformed: an entry is none.
    """

    def __init__(self, root: bytes, entries: Iterable[bytes]) -> None:
        self.online: dict[bytes, OnlineKey] = {}
        self.domain = ""
        key: VerifyKey | None = None
        for data in entries:
            signed = decode_signed(data)
            if signed.tag != KEY_EVENT:
                continue
            event = KeyEvent.decode(signed.body)
            if event.seq == 0 and event.kind == "domain":
                key = VerifyKey(event.payload[0])
                self.domain = event.domain
            if event.kind not in ("domain", "online"):
                continue
            if key is None or key.id != root or event.domain != self.domain or signed.key_id != root:
                raise Rejected("reject.evidence", "its first entry is not of the trust domain whose root is pinned")
            _verified(partial(signed.verify, key), "an entry is not signed by the root key")
            if event.kind == "online":
                found = VerifyKey(event.payload[0])
                self.online[found.id] = OnlineKey(found, event.subject)
        if key is None:
            raise Malformed("malformed.evidence", "the entries of the root key are missing")
        self.root = key

    def head(self, note: bytes) -> Checkpoint:
        """A head that a head key of this directory signed, at any time."""
        for online in self.online.values():
            if online.role == "head":
                try:
                    return open_checkpoint(note, directory_origin(self.domain), online.key)
                except BadSignature:
                    continue
        raise Rejected("reject.evidence", "a head is signed by no head key that the root introduced")

    def of(self, key_id: bytes, role: str) -> VerifyKey:
        """The online key of this id and role."""
        online = self.online.get(key_id)
        if online is None or online.role != role:
            raise Rejected("reject.evidence", f"not signed by a key of role {role} that the root introduced")
        return online.key


def root_entries(entries: Iterable[bytes]) -> list[bytes]:
    """Those of a log's entries that :class:`Roots` needs."""
    found = []
    for data in entries:
        signed = decode_signed(data)
        if signed.tag == KEY_EVENT and KeyEvent.decode(signed.body).kind in ("domain", "online"):
            found.append(data)
    return found


# ── making ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def receipt_of(directory: Directory, receipt: bytes, *, now: int) -> dict[str, Any]:
    """A retirement's receipt, with the entries that did it and their inclusion in the log that a new head signs."""
    told, _ = read_receipt(receipt)
    head = directory.head(now)
    rows = [
        {"index": at, "entry": b64(entry), "path": [b64(h) for h in directory.tree.inclusion(at)]}
        for at, entry in zip(range(told.first, told.size), directory.store.entries(told.first), strict=False)
    ]
    roots = root_entries(directory.store.entries())
    return {
        "v": 1, "kind": "retirement", "root": [b64(e) for e in roots], "receipt": b64(receipt),
        "head": head.decode(), "entries": rows,
    }  # fmt: skip


def entry_of(entries: Sequence[bytes], at: int, head: bytes) -> dict[str, Any]:
    """One entry of a log, with its inclusion in the tree that ``head`` signs; ``entries`` are as many as it counts."""
    tree = Tree([leaf_hash(entry) for entry in entries])
    row = {"index": at, "entry": b64(entries[at]), "path": [b64(h) for h in tree.inclusion(at)]}
    roots = root_entries(entries)
    return {"v": 1, "kind": "entry", "root": [b64(e) for e in roots], "head": head.decode(), "entries": [row]}


def fork_of_heads(roots: Sequence[bytes], one: bytes, other: bytes) -> dict[str, Any]:
    """Two heads of one size that differ."""
    return {"v": 1, "kind": "fork", "root": [b64(e) for e in roots], "heads": [one.decode(), other.decode()]}


def fork_of_log(roots: Sequence[bytes], head: bytes, entries: Iterable[bytes]) -> dict[str, Any]:
    """A head, and as many signed entries as it counts, which it does not cover."""
    return {
        "v": 1, "kind": "fork", "root": [b64(e) for e in roots], "heads": [head.decode()],
        "entries": [b64(e) for e in entries],
    }  # fmt: skip


# ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def check(text: str, root: bytes) -> dict[str, Any]:
    """What an evidence file proves.

    Args:
        text: The file's JSON.
        root: The pinned thumbprint of the root key.

    Returns:
        Plain values: the kind, the trust domain and what was shown.

    Raises:
        Malformed: ``malformed.evidence``. Rejected: ``reject.evidence``: it does not show what it claims.
    """
    try:
        data = json.loads(text)
        if data["v"] != 1 or data["kind"] not in _CHECKS:
            raise Malformed("malformed.evidence", "no kind of evidence that this version knows")
        roots = Roots(root, [unb64(e) for e in data["root"]])
        return {"kind": data["kind"], "domain": roots.domain, **_CHECKS[data["kind"]](data, roots)}
    except AgentBusError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Malformed("malformed.evidence", CODES["malformed.evidence"]) from error


def _check_retirement(data: Mapping[str, Any], roots: Roots) -> dict[str, Any]:
    raw = unb64(data["receipt"])
    receipt, key_id = read_receipt(raw)
    key = roots.of(key_id, "identity")
    _verified(partial(open_receipt, raw, key), "the receipt is not signed by the directory's identity key")
    head = roots.head(data["head"].encode())
    rows = [(row["index"], unb64(row["entry"]), [unb64(h, 32) for h in row["path"]]) for row in data["entries"]]
    if [index for index, _, _ in rows] != list(range(receipt.first, receipt.size)) or head.size < receipt.size:
        raise Rejected("reject.evidence", "the entries are not those that the receipt names")
    for index, entry, path in rows:
        if root_from_path(leaf_hash(entry), index, head.size, path) != head.root:
            raise Rejected("reject.evidence", f"entry {index} is not in the log that the head signs")
    _require_retired(receipt, [entry for _, entry, _ in rows])
    return {
        "principal": receipt.principal, "instant": receipt.instant, "reason": receipt.reason,
        "keys": [b64(k) for k in receipt.keys], "instances": [i.decode() for i in receipt.instances],
        "grants": [g.hex() for g in receipt.grants], "consents": receipt.consents, "tokens": len(receipt.tokens),
    }  # fmt: skip


def _check_entry(data: Mapping[str, Any], roots: Roots) -> dict[str, Any]:
    head, (row,) = roots.head(data["head"].encode()), data["entries"]
    entry, path = unb64(row["entry"]), [unb64(h, 32) for h in row["path"]]
    if root_from_path(leaf_hash(entry), row["index"], head.size, path) != head.root:
        raise Rejected("reject.evidence", f"entry {row['index']} is not in the log that the head signs")
    signed = decode_signed(entry)
    key = roots.root if signed.key_id == roots.root.id else roots.of(signed.key_id, "identity")
    _verified(partial(signed.verify, key), "the entry is not signed by the directory")
    said: KeyEvent | Revocation
    said = KeyEvent.decode(signed.body) if signed.tag == KEY_EVENT else Revocation.decode(signed.body)
    if said.seq != row["index"] or said.domain != roots.domain:
        raise Rejected("reject.evidence", "the entry was signed for another place")
    subject = said.subject if isinstance(said, KeyEvent) else said.id.hex()
    kind = said.kind if isinstance(said, KeyEvent) else f"revocation of a {said.kind}"
    return {"entry": said.seq, "instant": said.instant, "what": kind, "subject": subject, "size": head.size}


def _require_retired(receipt: Retirement, entries: Sequence[bytes]) -> None:
    """The entries say of the principal and of each key what the receipt sums up."""
    events = [KeyEvent.decode(decode_signed(entry).body) for entry in entries]
    ended = [event.payload[0] for event in events if event.kind == "key-state" and event.payload[1] == "retired"]
    states = [event.payload for event in events if event.kind == "state"]
    if any(e.subject != receipt.principal or e.domain != receipt.domain for e in events):
        raise Rejected("reject.evidence", "an entry is about somebody else")
    if states != [["retired"]] or sorted(ended) != receipt.keys or len(events) != len(ended) + 1:
        raise Rejected("reject.evidence", "the entries end something else than the receipt names")


def _check_fork(data: Mapping[str, Any], roots: Roots) -> dict[str, Any]:
    notes = [note.encode() for note in data["heads"]]
    heads = [roots.head(note) for note in notes]
    first = heads[0]
    if "entries" in data:
        root = _root_of(data["entries"], roots, first.size)
        if len(heads) != 1 or root == first.root:
            raise Rejected("reject.evidence", "the head covers these very entries")
        return {"size": first.size, "roots": [b64(first.root), b64(root)]}
    if len(heads) != 2 or first.size != heads[1].size:
        raise Rejected("reject.evidence", "two heads of different sizes may both be true")
    numbers = [head.extensions[-1:] for head in heads]
    if first.root == heads[1].root and numbers[0] == numbers[1]:
        raise Rejected("reject.evidence", "the two heads say the same")
    return {"size": first.size, "roots": [b64(head.root) for head in heads]}


def _root_of(entries: Sequence[str], roots: Roots, size: int) -> bytes:
    """The root over ``size`` entries, each signed by the directory (or its root) for its own place in the log."""
    if len(entries) != size:
        raise Rejected("reject.evidence", f"{len(entries)} entries beside a head of {size}")
    frontier = Frontier()
    for at, text in enumerate(entries):
        data = unb64(text)
        signed = decode_signed(data)
        if unpack_array(signed.body)[1] != at:
            raise Rejected("reject.evidence", f"entry {at} was signed for another place")
        key = roots.root if signed.key_id == roots.root.id else roots.of(signed.key_id, "identity")
        _verified(partial(signed.verify, key), f"entry {at} is not signed by the directory")
        frontier.append(leaf_hash(data))
    return frontier.root()


def _verified(verify: Callable[[], Any], otherwise: str) -> None:
    try:
        verify()
    except BadSignature as error:
        raise Rejected("reject.evidence", otherwise) from error


_CHECKS: Final[Mapping[str, Callable[[Mapping[str, Any], Roots], dict[str, Any]]]] = {
    "retirement": _check_retirement,
    "entry": _check_entry,
    "fork": _check_fork,
}
