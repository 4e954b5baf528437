"""What several commands take, they read alike: points in time, and whom to believe."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agentbus.cli.pin import pinned_root, root_key
from agentbus.cli.when import instant
from agentbus.errors import ConfigError
from agentbus.wire.ids import b64


def test_an_instant_without_its_offset_is_refused_with_the_one_in_utc() -> None:
    """Whoever says since when a key was stolen, or from when on a log is looked at, must not be hours off."""
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert instant("2026-01-01T13:00+02:00", now) == instant("1h", now) == instant("60m", now)
    for text, means in (("2026-01-01", "2026-01-01T00:00:00Z"), ("2026-01-01T13:00", "2026-01-01T13:00:00Z")):
        with pytest.raises(ConfigError, match=means) as caught:
            instant(text, now)
        assert caught.value.code == "config.instant"
    for text in ("", "yesterday", "999999999d", "²d"):
        with pytest.raises(ConfigError) as caught:
            instant(text, now)
        assert caught.value.code == "config.instant"


def test_a_root_is_a_thumbprint_a_pin_or_a_bus_url_for_every_command() -> None:
    thumb = b64(bytes(range(32)))
    for given in (thumb, f"{thumb}.{thumb}", f"agentbus://host:1#{thumb}.{thumb}"):
        assert pinned_root(given) == thumb and root_key(given) == bytes(range(32))
    for given in ("", "agentbus://host:1", thumb[:-1]):
        with pytest.raises(ConfigError) as caught:
            pinned_root(given)
        assert caught.value.code == "config.no_root"
