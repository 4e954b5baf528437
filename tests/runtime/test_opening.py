"""Opening a bus: what stands in its way is named."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from agentbus.bus import opening
from agentbus.connect import BusUrl, log_folder
from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.errors import ConfigError
from agentbus.identity import Identity
from agentbus.logstore.nodelog import open_log
from agentbus.testing.draw import NOON
from agentbus.wire.ids import name_id


async def test_no_name_is_left_for_another_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(opening, "NAMES", 1)
    me = Identity(name_id("planner", "agents.local"), SigningKey(os.urandom(32)), CurveKey(os.urandom(32)))
    url = BusUrl.parse(f"agentbus://127.0.0.1:1#{'A' * 43}.{'A' * 43}")
    running = closing(open_log(log_folder("planner"), "agents.local", "planner", now=NOON))
    with running, pytest.raises(ConfigError) as caught:
        await opening.connect_bus(url, me, listen=None)
    assert caught.value.code == "config.node_names"
    assert "planner-1" in caught.value.message
