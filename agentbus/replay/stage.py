"""The stage of a replay: a trust domain in memory with the recorded names and records, and keys made for this run.

Every recorded principal has an identity and an instance here. A recorded chain is issued again, link by link, with the
same names, scopes, targets, times and depth, under this run's keys: so the decision is made by the code that makes it
live, and nothing that is signed here means anything anywhere else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

from agentbus.crypto.keys import CurveKey, SigningKey
from agentbus.crypto.signing import Purpose, sign
from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import Grant, Link, decode_link, encode_chain, encode_link
from agentbus.delegation.records import Principal
from agentbus.delegation.statements import directory_id
from agentbus.delegation.trust import Trust
from agentbus.directory.core import Directory, OnlineKeys
from agentbus.directory.store import SqliteStore
from agentbus.errors import ProgrammingError
from agentbus.host import enrol_here
from agentbus.identity import Identity
from agentbus.runtime.clock import Clock
from agentbus.runtime.node import Node
from agentbus.runtime.voices import Voice
from agentbus.services.inside import Inside
from agentbus.wire.ids import PrincipalId

CODES: Final = {
    "replay.chain": "A link of a recorded chain is of a kind that a replay cannot issue again.",
}


class Stage:
    """Who is on the stage, and what they hold.

    Args:
        core: A directory in memory; see :meth:`make`.
        keys: Its online keys.
        clock: The run's.
    """

    def __init__(self, core: Directory, keys: OnlineKeys, clock: Clock) -> None:
        self.core, self._keys, self._clock = core, keys, clock
        self.source = Inside(core, clock)
        self.node: Node | None = None
        self._voices: dict[PrincipalId, Voice] = {}
        self._identities: dict[PrincipalId, Identity] = {}
        self._seen: tuple[Trust, frozenset[str]] | None = None
        self._chains: dict[tuple[bytes, ...], bytes] = {}

    @classmethod
    def make(cls, domain: str, clock: Clock) -> Stage:
        """An empty stage of this trust domain."""
        keys, root = OnlineKeys.make(os.urandom), SigningKey(os.urandom(32))
        return cls(Directory.create(SqliteStore(None), keys, root, domain=domain, now=clock.now()), keys, clock)

    @property
    def curve(self) -> CurveKey:
        """The CURVE key of the one node there is: the directory's."""
        return self._keys.curve

    async def voice(self, who: PrincipalId) -> Voice:
        """The instance that speaks for a principal, with a key that lasts for another message's life."""
        assert self.node is not None
        voice = self._voices.get(who)
        if voice is None:
            identity = self._identities.get(who)
            if identity is None:  # the directory itself, who is here from the start
                identity = Identity(who, self._keys.identity, self._keys.curve)
            voice = self._voices[who] = await self.node.enter(identity)
        elif self._clock.now() >= (voice.instance.not_before + voice.instance.not_after) // 2:
            await self.node.voices.renew(voice)
        return voice

    async def cast(self, names: Iterable[PrincipalId], recorded: Trust) -> None:
        """Let these principals be here with the records they had then."""
        wanted = frozenset(names)
        if self._seen is not None and self._seen[0] is recorded and wanted <= self._seen[1]:
            return
        held = self._seen[1] if self._seen is not None and self._seen[0] is recorded else frozenset()
        for who in sorted(wanted - held):
            record = recorded.principal(who)
            if record is not None and who != directory_id(self.core.domain):
                await self._enrol(PrincipalId(who), record)
        self._seen = (recorded, held | wanted)

    async def _enrol(self, who: PrincipalId, record: Principal) -> None:
        fields = {"ceiling": record.ceiling, "may_talk_to": record.may_talk_to, "rights": record.rights}
        now = self._clock.now()
        mine = self.core.trust.principal(who)
        if mine is None:
            identity = self._identities[who] = Identity(who, SigningKey(os.urandom(32)), CurveKey(os.urandom(32)))
            enrol_here(self.core, identity, now=now, **fields)
        elif any(getattr(mine, name) != value for name, value in fields.items()):
            self.core.amend(who, now=now, **fields)

    # ── chains ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def chain(self, recorded: Authority) -> Authority:
        """The same chain under this run's keys.

        Raises:
            ProgrammingError: ``replay.chain``.
        """
        issuers = [await self.voice(link.grant.issuer) for link in recorded.links[1:]]
        name = (recorded.data, *(voice.key.id for voice in issuers))
        known = self._chains.get(name)
        if known is None:
            links: list[Link] = []
            for at, link in enumerate(recorded.links):
                links.append(self._issue(link.grant, links, issuers[at - 1] if at else None))
            known = encode_chain(tuple(links))
            if len(self._chains) >= 4096:
                self._chains.clear()
            self._chains[name] = known
        return Authority.from_bytes(known)

    async def handover(self, recorded: bytes, after: Authority) -> bytes:
        """The same handover under this run's keys, on top of a chain of this run."""
        grant = decode_link(recorded).grant
        return encode_link(self._issue(grant, after.links, await self.voice(grant.issuer)))

    def _issue(self, grant: Grant, above: Sequence[Link], issuer: Voice | None) -> Link:
        parts: dict[str, Any] = {
            "issuer_epoch": 1, "audience_epoch": 1, "pinned_key": self._pinned(grant),
            "root": above[0].digest if above else None, "prev": above[-1].digest if above else None,
        }  # fmt: skip
        if issuer is not None:
            key = issuer.key
            parts["expires"] = min(grant.expires, issuer.instance.not_after, above[-1].grant.expires)
        elif grant.issuer == directory_id(self.core.domain) and grant.root_kind == "standing":
            key = self._keys.consent
        elif grant.issuer in self._identities and grant.root_kind == "user":
            key = self._identities[grant.issuer].key
        else:
            raise ProgrammingError("replay.chain", f"a root of kind {grant.root_kind} by {grant.issuer.short}")
        again = grant._replace(issuer_key=key.id, **parts)
        body = again.encode()
        return Link(again, body, sign(key, Purpose.GRANT, body))

    def _pinned(self, grant: Grant) -> bytes | None:
        if grant.pinned_key is None:
            return None
        identity = self._identities.get(grant.audience)
        return self._keys.identity.id if identity is None else identity.key.id
