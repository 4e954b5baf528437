"""The directory as the trust source of a node in its own process: whole, fresh, and asked without a connection."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable

from agentbus.crypto.keys import thumbprint
from agentbus.delegation.statements import Instance, decode_signed
from agentbus.delegation.trust import Trust
from agentbus.directory import life
from agentbus.directory.core import Directory
from agentbus.runtime.clock import Clock
from agentbus.transport.base import Connection
from agentbus.wire.ids import PrincipalId


class Inside:
    """A :class:`~agentbus.runtime.trust_cache.TrustSource` that is the directory itself: it believes its own log.

    Args:
        core: The state machine.
        clock: Wall and monotonic time.
        entropy: Random bytes, for the ids of standing grants.
    """

    def __init__(self, core: Directory, clock: Clock, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self.core = core
        self.clock = clock
        self.entropy = entropy
        self.changed: list[Callable[[], None]] = []
        self.left: list[Callable[[Collection[bytes]], None]] = []
        self.returned: list[Callable[[], None]] = []
        self.departed: set[bytes] = set()

    @property
    def trust(self) -> Trust:
        return self.core.trust

    async def open(self) -> None:
        return None

    async def aclose(self) -> None:
        self.core.close()

    def age(self) -> int | None:
        return 0

    def hint(self) -> None:
        return None

    async def refresh(self) -> None:
        return None

    async def find(self, keys: Iterable[bytes] = (), principals: Iterable[str] = ()) -> None:
        return None

    async def rotate(self, who: PrincipalId, body: bytes, by_old: bytes, by_new: bytes) -> None:
        life.rotate(self.core, [body, by_old, by_new], now=self.clock.now())

    async def publish(self, statement: bytes) -> bytes:
        return self._publish_here(statement)

    def _publish_here(self, statement: bytes) -> bytes:
        chain = self.core.presence.publish(statement, now=self.clock.now(), link_id=self.entropy(16))
        self.departed.discard(thumbprint(Instance.decode(decode_signed(statement).body).key))
        return chain

    def leave(self, instance_ids: list[bytes]) -> None:
        ended = [i for i in self.core.trust.instances.values() if i.instance_id in instance_ids]
        for curve_key in {instance.curve_key for instance in ended}:
            self._tell_gone(self.core.presence.leave(curve_key, instance_ids))

    def _tell_gone(self, keys: list[bytes]) -> None:
        """These instances ended, as far as this process knows."""
        ended = {key for key in keys if key in self.trust.instances} - self.departed
        self.departed.update(keys)
        for tell in self.left if ended else ():
            tell({self.trust.instances[key].instance_id for key in ended})

    def owns(self, connection: Connection) -> bool:
        return False

    def received(self, frame: bytes) -> None:
        return None

    def cut(self, reason: str) -> None:
        return None
