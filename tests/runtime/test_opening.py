"""Opening a bus: what stands in its way is named."""

from __future__ import annotations

import os
import threading
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from agentbus import Agent, Bus
from agentbus.bus import opening
from agentbus.connect import BusUrl, log_folder
from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.errors import ConfigError
from agentbus.home import key_path
from agentbus.host import DirectoryHost
from agentbus.identity import Identity
from agentbus.keyfile import SALT, KeyFile, Keys, Lock
from agentbus.logstore.nodelog import open_log
from agentbus.testing.draw import NOON
from agentbus.wire.ids import name_id


async def test_no_name_is_left_for_another_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path))
    monkeypatch.setenv("AGENTBUS_DATA", str(tmp_path))
    monkeypatch.setattr(opening, "NAMES", 1)
    me = Identity(name_id("planner", "agents.local"), SigningKey(os.urandom(32)), CurveKey(os.urandom(32)))
    url = BusUrl.parse(f"agentbus://127.0.0.1:1#{'A' * 43}.{'A' * 43}")
    running = closing(open_log(log_folder("planner"), "agents.local", "planner", now=NOON))
    with running, pytest.raises(ConfigError) as caught:
        await opening.connect_bus(url, me, listen=None)
    assert caught.value.code == "config.node_names"
    assert "planner-1" in caught.value.message


async def test_a_passphrase_is_worked_on_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a second on purpose: nobody else in the process waits for it."""
    monkeypatch.setenv("AGENTBUS_HOME", str(tmp_path))
    monkeypatch.setenv("AGENTBUS_DATA", str(tmp_path))
    (tmp_path / "passphrase").write_text("open sesame\n")
    monkeypatch.setenv("AGENTBUS_KEY_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    where, derive = [], Lock.of

    def noted(passphrase: str, salt: bytes) -> Lock:
        where.append(threading.current_thread())
        return derive(passphrase, salt)

    async with AsyncExitStack() as stack:
        host = DirectoryHost(tmp_path / "directory", listen="tcp://127.0.0.1:*", domain="agents.example")
        await host.open()
        stack.push_async_callback(host.aclose)
        for name in ("speaker", "served"):
            made = host.enrol(name, may_talk_to=["spiffe://agents.example/group/all"])
            lock = Lock.of("open sesame", os.urandom(SALT))
            KeyFile(key_path(name), lock).create(Keys(made.id, made.key, made.curve))
        monkeypatch.setattr(Lock, "of", noted)
        bus = await stack.enter_async_context(Bus.connect(str(host.url), identity="speaker"))
        await stack.enter_async_context(bus.serve(Agent("served")))
        assert len(where) == 2
        assert threading.main_thread() not in where
