"""A trust domain on loopback for whoever is writing an agent: everybody is enrolled, and may ask everybody.

It is an ordinary directory and an ordinary node over ZeroMQ. Only who may do what is generous, and it is written where
no other directory's is: the trust domain ``dev.local`` in a folder of its own, which serves as AGENTBUS_HOME.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from agentbus.bus.base import Bus
from agentbus.connect import save_profile
from agentbus.home import key_path
from agentbus.host import DirectoryHost, make_operator
from agentbus.runtime.agent import Agent
from agentbus.wire.ids import everyone, name_id

DOMAIN: Final = "dev.local"
NODE: Final = "service/dev"
USER: Final = "user/alice"
DRAIN: Final = 2.0  # seconds that running handlers get when a file was saved: their author is waiting for the new ones


class Stage:
    """The directory, the users and the served agents.

    Args:
        folder: Keys, profile, directory and logs.
        port: The directory's; 0 for any free one.
        scopes: Allowed to everybody besides what the handlers declare.
    """

    def __init__(self, folder: Path, *, port: int, scopes: Iterable[str]) -> None:
        self.folder = folder
        self._more = frozenset(scopes)
        self._host = DirectoryHost(folder / "directory", listen=f"tcp://127.0.0.1:{port or '*'}", domain=DOMAIN)
        self._life, self._served = AsyncExitStack(), AsyncExitStack()
        self._bus: Bus

    async def open(self) -> str:
        """Start the directory and the node.

        Returns:
            The bus URL.

        Raises:
            ConfigError: ``config.in_use``, ``config.domain``: the folder is another directory's.
        """
        for name in [name for name in os.environ if name.startswith("AGENTBUS_")]:
            del os.environ[name]  # addresses and identities of another bus
        os.environ["AGENTBUS_HOME"] = str(self.folder)
        await self._host.open()
        self._life.push_async_callback(self._host.aclose)
        save_profile(self._host.url)
        make_operator(self._host.core, key_path("user/operator"), now=self._host.clock.now())
        self._admit(NODE, frozenset())
        self._admit(USER, self._more)
        self._bus = await self._life.enter_async_context(Bus.connect(identity=NODE, listen="tcp://127.0.0.1:*"))
        return str(self._host.url)

    async def serve(self, agents: list[Agent[Any]]) -> frozenset[str]:
        """Serve these agents instead of those before.

        Returns:
            What everybody is allowed now: all that the handlers declare.

        Raises:
            AgentBusError: an agent cannot be served; none is, then. Or what a lifespan raises.
        """
        await self.stop()
        scopes = self._more | {s for agent in agents for h in agent.handlers.values() for s in h.rule.scopes}
        for name in (USER, *(agent.name for agent in agents)):
            self._admit(name, scopes)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._bus._serve(agents, drain=DRAIN))
            self._served = stack.pop_all()
        return scopes

    def _admit(self, name: str, scopes: frozenset[str]) -> None:
        """Enrol ``name``, or let its record say what the files say now."""
        core, path = self._host.core, key_path(name)
        who = name_id(name, DOMAIN)
        held = {"rights" if who.kind == "user" else "ceiling": sorted(scopes)}
        record = core.trust.principal(who)
        if record is None:
            self._host.enrol(name, may_talk_to=[everyone(DOMAIN)], owner=name_id(USER, DOMAIN), **held).save(path)
        elif {str(s) for s in (record.rights if who.kind == "user" else record.ceiling) or ()} != scopes:
            core.amend(who, now=self._host.clock.now(), **held)

    async def stop(self) -> None:
        """Serve nothing."""
        await self._served.aclose()

    async def aclose(self) -> None:
        """End everything."""
        await self.stop()
        await self._life.aclose()
