"""Points in time as people type them, read alike by every command."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from agentbus.errors import ConfigError

CODES: Final = {
    "config.instant": "An instant is ISO 8601 with its offset (2026-01-01T12:00Z), or how long ago (90s, 15m, 2h, 3d).",
}
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """``90s``, ``5m``, ``2h`` or ``3d``.

    Args:
        text: What was typed.

    Returns:
        The same, at most 36,500 days.

    Raises:
        ConfigError: ``config.instant``.
    """
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text.strip())
    length = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
    if length is None or length > timedelta(days=36_500):
        raise ConfigError("config.instant", f"{text!r} is no duration such as 90s, 2h or 3d")
    return length


def instant(text: str, now: datetime) -> int:
    """Microseconds since 1970 of an ISO 8601 instant with its offset, or of so long before ``now``.

    One without an offset is refused: whoever says since when a key was stolen must not be hours off.

    Args:
        text: What was typed.
        now: With its offset.

    Returns:
        Microseconds since 1970-01-01 UTC.

    Raises:
        ConfigError: ``config.instant``.
    """
    if re.fullmatch(r"[0-9]+[smhd]", text.strip()):
        at = now - duration(text)
    else:
        try:
            at = datetime.fromisoformat(text.strip())
        except ValueError as error:
            raise ConfigError("config.instant", f"{text!r} is no instant; {CODES['config.instant']}") from error
        if at.tzinfo is None:
            utc = f"{at:%Y-%m-%dT%H:%M:%S}Z"
            raise ConfigError("config.instant", f"{text!r} does not say in which time zone; in UTC it is {utc}")
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
