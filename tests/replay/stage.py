"""A network that worked, and its log as an auditor gets it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agentbus import Agent
from agentbus.crypto.keys import SigningKey
from agentbus.log.read import read_log
from agentbus.replay import ReplayReport, replay
from agentbus.testing import Network


class Taped:
    """Folders of what a network logged."""

    def __init__(self, log: Path, directory: Path, root: bytes, key: SigningKey | None = None) -> None:
        self.log, self.directory, self.root, self._key = log, directory, root, key

    @property
    def key(self) -> SigningKey:
        """The log key."""
        assert self._key is not None
        return self._key

    def replay(self, agent: Agent[Any], **options: Any) -> ReplayReport:
        return replay(self.log, agent, directory=self.directory, root=self.root, **options)


def taped(work: Callable[[Network], Awaitable[None]], folder: Path) -> Taped:
    """Let ``work`` happen on a network, and keep what it logged in ``folder``."""

    async def main() -> Taped:
        async with Network.open() as net:
            await work(net)
            await net.settle()
            evidence = net.evidence("mallory")  # makes the folders; hers lies beside
            served = next(iter(net._identities), None)
            if served is not None:
                evidence = net.evidence(served)
            log, directory = evidence._paths[0], evidence._paths[0].parent / "directory"
            kept = folder / "log", folder / "directory"
            for source, target in zip((log, directory), kept, strict=True):
                shutil.copytree(source, target)
            read_log(kept[0])
            return Taped(*kept, net._core.trust.root, net._node.recorder.log._key)  # type: ignore[attr-defined]

    return asyncio.run(main())
