"""An identity's life after enrolment: rotation, suspension, taint, compromise, loss and retirement.

Rule 1: who may ask for it is in :mod:`agentbus.directory.rules`; here it is only written down, one group of entries for
each change, all or none.
Rule 2: nothing comes back: a key's state only gets worse, an epoch only grows, a name is never given twice.
"""

from __future__ import annotations

from typing import Any, Final

from agentbus.crypto.keys import thumbprint
from agentbus.delegation.records import USABLE, IdentityKey
from agentbus.delegation.revoking import is_operator
from agentbus.delegation.statements import Rotation, directory_id
from agentbus.directory.core import Directory
from agentbus.directory.receipt import Retirement
from agentbus.errors import DirectoryRefused, Malformed, Rejected
from agentbus.wire.ids import PrincipalId, unb64

CODES: Final = {
    "directory.itself": "The directory's own keys are the root key's business: see `agentbus directory rotate-online`.",
    "directory.last_operator": "Without an operator nobody could change anything; make another first.",
    "directory.rotation": "A rotation is signed by the key that is active now and by a new one, a minute ago at most.",
    "directory.no_key": "The principal has no key of this id that this could still be said of.",
    "directory.no_change": "The principal is in no state from which this leads anywhere.",
    "directory.since": "A compromise began at some instant until now, and is only ever found to have begun earlier.",
}


_ROTATION: Final = {  # beside itself, nothing in its entry can be invalid but the new key
    "reject.rotation": "directory.rotation",
    "reject.statement_invalid": "directory.key_seen",
}


def require_expendable(directory: Directory, who: str) -> None:
    """Return when the trust domain goes on without ``who``.

    Raises:
        DirectoryRefused: ``directory.itself``, ``directory.last_operator``.
    """
    if who == directory_id(directory.domain):
        raise DirectoryRefused("directory.itself", "nobody speaks for the directory but itself: it cannot be ended")
    people = directory.trust.principals
    if is_operator(people, who) and not any(is_operator(people, p) for p in people if p != who):
        raise DirectoryRefused("directory.last_operator", f"{people[who].id.short} is the last operator")


def rotate(directory: Directory, payload: list[Any], *, now: int) -> Rotation:
    """Let another key follow a principal's active key.

    Args:
        directory: Whose log it goes into.
        payload: Body, the old key's signature, the new key's (:meth:`Rotation.proven_by`).
        now: Instant, microseconds.

    Raises:
        DirectoryRefused: ``directory.rotation``, ``directory.key_seen``, ``directory.unknown``.
        InvalidKey: the new key is weak.
        Malformed: this is no rotation.
        Rejected: the directory's own entry is not good.
    """
    rotation = Rotation.decode(payload[0])
    record = directory.known(rotation.principal)
    if thumbprint(rotation.new) in directory.trust.instances:
        raise DirectoryRefused("directory.key_seen", "the new key is an instance's; make another")
    try:
        directory.write(now, [("rotate", record.id, payload)])
    except Rejected as error:
        code = _ROTATION.get(error.code)
        if code is None:  # nothing is wrong with the rotation
            raise
        raise DirectoryRefused(code, error.message) from error
    return rotation


def set_state(directory: Directory, who: PrincipalId, state: str, *, now: int) -> None:
    """Suspend or resume a principal.

    Raises:
        DirectoryRefused: ``directory.no_change``, ``directory.ended``, ``directory.unknown``.
    """
    record = directory.known(who)
    directory.require_alive(record)
    if state == "suspended":
        require_expendable(directory, who)
    wanted = {"suspended": "active", "active": "suspended"}.get(state)
    if record.state != wanted:
        raise DirectoryRefused("directory.no_change", f"{who.short} is {record.state}, so it cannot become {state}")
    directory.write(now, [("state", who, [state])])


def taint(directory: Directory, who: PrincipalId, *, now: int, key: bytes | None = None) -> list[bytes]:
    """Say that a principal's keys are not what they should be: they verify on, sign nothing new, and must be rotated.

    Returns:
        The ids of the keys that are tainted now.

    Raises:
        DirectoryRefused: ``directory.no_key``, ``directory.unknown``.
    """
    record = directory.known(who)
    _require_other(directory, who)
    chosen = [k for k in _keys(directory, record.keys, key) if k.state in ("active", "retiring")]
    if not chosen:
        raise DirectoryRefused("directory.no_key", f"{who.short} has no such key that is active or retiring")
    instant = directory.instant(now)
    directory.write(now, [("key-state", who, [k.key.id, "tainted", instant]) for k in chosen])
    return [k.key.id for k in chosen]


def compromise(
    directory: Directory, who: PrincipalId, *, since: int, now: int, key: bytes | None = None
) -> list[bytes]:
    """Say since when a principal's keys are in other hands, and end its epoch: nothing of it counts from here on.

    Args:
        directory: Whose log it goes into.
        who: The principal.
        since: The instant from which nothing that the keys signed counts, microseconds; at most ``now``.
        now: Instant, microseconds.
        key: One key only, for who knows that its successor is nobody else's; None: every key of the present epoch that
            could have signed at ``since`` or later, for a thief could have rotated, too.

    Returns:
        The ids of the keys.

    Raises:
        DirectoryRefused: ``directory.since``, ``directory.no_key``, ``directory.unknown``.
    """
    record, instant = directory.known(who), directory.instant(now)
    _require_other(directory, who)
    if not 0 <= since <= instant:
        raise DirectoryRefused("directory.since", "a compromise began at an instant until now")
    keys = [k for k in _keys(directory, record.keys, key) if k.state != "revoked"]
    chosen = [k for k in keys if k.state != "compromised" and _ends(k) > since]
    if key is None:
        chosen = [k for k in chosen if k.epoch == record.epoch]
    if not chosen:  # it was said before, and is found to have begun earlier
        chosen = [k for k in keys if k.state == "compromised" and since < k.since]
    if not chosen:
        raise DirectoryRefused("directory.since", f"nothing of {who.short} could have been stolen that is not known")
    events: list[tuple[str, str, list[Any]]] = [("key-state", who, [k.key.id, "compromised", since]) for k in chosen]
    current = any(k.epoch == record.epoch and k.state in USABLE and k.until is None for k in chosen)
    if current and record.state not in ("retired", "revoked"):
        events.append(("epoch", who, [record.epoch + 1]))
    directory.write(now, events)
    directory.store.cancel_tokens(who, now)  # whoever had the key may have seen one
    return [k.key.id for k in chosen]


def _ends(key: IdentityKey) -> int:
    """From when on a key verifies nothing."""
    return min((s.since for s in key.history if s.state in ("retired", "compromised", "revoked")), default=1 << 62)


def lose_key(directory: Directory, who: PrincipalId, *, now: int) -> int:
    """End a principal's epoch because its key is lost: it enrols again, with new keys.

    Returns:
        The epoch that its next key will belong to.

    Raises:
        DirectoryRefused: ``directory.ended``, ``directory.unknown``.
    """
    record = directory.known(who)
    directory.require_alive(record)
    _require_other(directory, who)
    epoch = max(record.epoch, 1)
    if any(directory.trust.keys[k].epoch == epoch for k in record.keys):
        epoch += 1
        directory.write(now, [("epoch", who, [epoch])])
    directory.store.cancel_tokens(who, now)
    return epoch


def retire(directory: Directory, who: PrincipalId, *, now: int, reason: str = "") -> bytes:
    """End a principal for good, in good order.

    Returns:
        The signed receipt of everything that was ended: keys, instances whose statements still count, running or not,
        grants of the directory that it held or was the subject of (standing, or for an outside token), consents of it
        or for it, and enrolment tokens.

    Raises:
        DirectoryRefused: ``directory.ended``, ``directory.unknown``.
    """
    record = directory.known(who)
    directory.require_alive(record)
    require_expendable(directory, who)
    instant, first = directory.instant(now), directory.trust.size
    keys = [k for k in _keys(directory, record.keys, None) if k.state not in ("retired", "compromised", "revoked")]
    grants = directory.presence.grants.of(who, now)
    consents = [n for n, c in directory.trust.consents.items() if who in (c.user, c.holder) and c.expires > instant]
    events: list[tuple[str, str, list[Any]]] = [("key-state", who, [k.key.id, "retired", instant]) for k in keys]
    directory.write(now, [*events, ("state", who, ["retired"])])
    tokens = directory.store.cancel_tokens(who, now)
    receipt = Retirement(
        directory.domain, who, instant, reason[:256], first, directory.trust.size,
        sorted(k.key.id for k in keys),
        sorted({grant.instance for grant in grants if grant.instance and grant.holder == who}),
        sorted(grant.link for grant in grants), sorted(consents), sorted(tokens),
    )  # fmt: skip
    return receipt.signed_by(directory.keys.identity)


def _require_other(directory: Directory, who: str) -> None:
    if who == directory_id(directory.domain):
        raise DirectoryRefused(
            "directory.itself", "the directory's own keys change by `agentbus directory rotate-online`"
        )


def _keys(directory: Directory, ids: tuple[bytes, ...], only: bytes | None) -> list[IdentityKey]:
    return [directory.trust.keys[k] for k in ids if only is None or k == only]


def parse_key(text: str) -> bytes:
    """A key id from what people type: base64url, as ``show`` prints it.

    Raises:
        DirectoryRefused: ``directory.no_key``.
    """
    try:
        return unb64(text, 32)
    except Malformed as error:
        raise DirectoryRefused(
            "directory.no_key", f"{text[:80]!r} is no key id: 43 characters, as `agent show` lists them"
        ) from error
