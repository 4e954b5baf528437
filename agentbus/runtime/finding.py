"""Which running instance of an agent is asked: the next in turn, healthy ones first.

What the directory said last is enough, as a rule; only where it says "nobody" is it asked again.
"""

from __future__ import annotations

from typing import Final

from agentbus.crypto.keys import thumbprint
from agentbus.delegation.statements import Instance
from agentbus.delegation.trust import Trust
from agentbus.errors import AgentGone, AgentNotFound
from agentbus.runtime.clock import Clock
from agentbus.runtime.trust_cache import TrustSource
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import SECOND

CODES: Final = {
    "agent.not_found": "Nobody of this name is enrolled in the trust domain.",
    "agent.not_running": "The agent is enrolled and no instance of it runs now.",
    "agent.not_active": "The agent has not enrolled yet, or was suspended, retired or revoked.",
    "agent.dials_out_only": "The agent's node does not listen, so it can ask and cannot be asked.",
}

_STATES: Final = {
    "pending": "was created and has not enrolled yet: whoever has its token runs `agentbus agent enrol`",
    "suspended": "is suspended; its owner may resume it",
    "retired": "was retired",
    "revoked": "was revoked, for good",
}
SUSPECT: Final = 5 * SECOND  # for so long, other instances are preferred to one whose connection broke


class Finder:
    """A node's view of who runs.

    Args:
        source: What the directory says.
    """

    def __init__(self, source: TrustSource, clock: Clock) -> None:
        self._source, self._clock = source, clock
        self._suspects: dict[bytes, int] = {}  # instance id → monotonic instant until which others are preferred
        self._turn = 0
        self._trust: Trust | None = None
        self._looked: dict[str, tuple[int, list[tuple[bytes, Instance]]]] = {}  # of that snapshot, until an instant

    def running(self, who: PrincipalId) -> list[Instance]:
        """The instances of ``who`` that run, as far as is known here."""
        trust, now, departed = self._source.trust, self._clock.now(), self._source.departed
        if trust is not self._trust:
            self._trust, self._looked = trust, {}
        until, found = self._looked.get(who, (0, []))
        if now >= until:
            instances = trust.instances_of(who, now)
            found = [(thumbprint(one.key), one) for one in instances]
            self._looked[who] = min([one.not_after for one in instances], default=now), found
        return [one for key, one in found if key not in departed]

    def known(self, who: PrincipalId) -> Instance | None:
        """A running instance that can be asked, as far as is known here; None: the directory may know of one."""
        found = [one for one in self.running(who) if one.endpoints]
        if not found or self._source.trust.principal(who) is None:
            return None
        mono = self._clock.mono()
        healthy = [one for one in found if self._suspects.get(one.instance_id, 0) <= mono] or found
        self._turn += 1
        return healthy[self._turn % len(healthy)]

    async def find(self, who: PrincipalId) -> Instance:
        """A running instance that can be asked.

        Raises:
            AgentNotFound: ``agent.not_found``. AgentGone: ``agent.not_running``, ``agent.not_active``,
                ``agent.dials_out_only``.
        """
        if self._source.trust.principal(who) is None:
            await self._source.refresh()
            if self._source.trust.principal(who) is None:
                todo = "`agentbus agent list` shows who is; a local bus knows whom it serves"
                raise AgentNotFound("agent.not_found", f"nobody is called {who.short}; {todo}")
        found = self.known(who)
        if found is None:  # nothing of it is known here, or only what cannot be asked, as when this is one of its own
            await self._source.find(principals=[who])
            found = self.known(who)
        if found is not None:
            return found
        if self.running(who):
            text = f"{who.short} does not listen: it can ask, and not be asked; set AGENTBUS_LISTEN there"
            raise AgentGone("agent.dials_out_only", text)
        record = self._source.trust.principal(who)
        if record is not None and record.state != "active":
            why = _STATES.get(record.state, f"is {record.state}")
            raise AgentGone("agent.not_active", f"{who.short} {why}", retryable=False)
        text = f"{who.short} is enrolled, and no instance of it is known to run; its operator has to start it"
        raise AgentGone(
            "agent.not_running", f"{text}, unless it was resumed or cut off just now: then it is on its way"
        )

    def again(self, who: PrincipalId, instance_id: bytes) -> Instance | None:
        """The same instance, while it runs and can be dialled."""
        return next((one for one in self.running(who) if one.instance_id == instance_id and one.endpoints), None)

    def suspect(self, instance_id: bytes) -> None:
        """The connection to this instance broke: prefer others for a while."""
        mono = self._clock.mono()
        self._suspects[instance_id] = mono + SUSPECT
        if len(self._suspects) > 1024:
            self._suspects = {key: until for key, until in self._suspects.items() if until > mono}
