"""The instances that live in a node: who speaks here, under which key, and for how long.

An instance key is made in memory and lives at most an hour. Half-way through, the same instance takes a new key; peers
know both meanwhile, so no good message is refused. When that is, the clock on the wall says, and it is looked at every
second: timers stand still while a machine sleeps, and go on as before when its clock is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agentbus.crypto.keys import SigningKey
from agentbus.delegation.chain import Authority
from agentbus.delegation.statements import Instance
from agentbus.errors import AgentBusError
from agentbus.identity import Identity
from agentbus.protocol.engine import Engine, Local
from agentbus.protocol.events import Asked, Ended, Steered
from agentbus.runtime.clock import Clock
from agentbus.runtime.record import Recorder
from agentbus.runtime.renewal import is_followed
from agentbus.runtime.trust_cache import TrustSource
from agentbus.wire.limits import LIMITS, SECOND

INSTANCE_LIFE: Final = 3600 * SECOND
LOOK: Final = 1.0  # seconds between two looks at the clock on the wall
AGAIN: Final = 5 * SECOND  # until a renewal that failed is tried again


class Handlers(Protocol):
    """What handles the messages of one voice."""

    @property
    def erasure(self) -> str: ...

    def start(self, asked: Asked) -> None: ...
    def steered(self, event: Steered) -> None: ...
    def ended(self, event: Ended) -> None: ...
    def recheck(self) -> None: ...


@dataclass
class Voice:
    """One principal's instance in this node: who speaks."""

    identity: Identity
    key: SigningKey
    local: Local
    instance: Instance
    statement: bytes  # the same, as it was signed
    handlers: Handlers | None = None
    wanted: bool = False  # a new key, whatever the age of the one it has
    renewing: bool = False
    again: int = 0  # the monotonic instant until which a renewal that failed is not tried again

    @property
    def standing(self) -> Authority:
        """The standing grant the directory answered this instance with."""
        assert self.local.standing is not None
        return self.local.standing

    def is_due(self, now: int) -> bool:
        """Whether its key is in its second half; or has not begun, since the clock was set back."""
        begins, ends = self.instance.not_before, self.instance.not_after
        return now >= (begins + ends) // 2 or now < begins - LIMITS.skew


@dataclass(frozen=True)
class Place:
    """What the statement of every instance says of the node it lives in."""

    node: str
    log_key: bytes
    curve_key: bytes
    endpoints: Callable[[], Sequence[str]]


class Voices:
    """The instances of one node.

    Args:
        place: What their statements say of the node.
        before_switch: Called right before a key is replaced: what was laid out under the old one is signed with it.
        spawn: Starts a task that ends with the node.
    """

    def __init__(
        self,
        place: Place,
        *,
        source: TrustSource,
        engine: Engine,
        recorder: Recorder,
        clock: Clock,
        entropy: Callable[[int], bytes],
        before_switch: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        self._place = place
        self._source, self._engine, self._recorder = source, engine, recorder
        self._clock, self._entropy = clock, entropy
        self._before_switch, self._spawn = before_switch, spawn
        self._voices: dict[bytes, Voice] = {}

    def __iter__(self) -> Iterator[Voice]:
        return iter(list(self._voices.values()))

    def __len__(self) -> int:
        return len(self._voices)

    def get(self, instance_id: bytes) -> Voice | None:
        """The voice of this instance id."""
        return self._voices.get(instance_id)

    async def enter(self, identity: Identity) -> Voice:
        """Start an instance of ``identity``: make its key, publish its statement, take its standing grant."""
        key, instance, statement = self.introduce(identity, self._entropy(16))
        return self.seat(identity, key, instance, statement, await self._source.publish(statement))

    def seat(self, identity: Identity, key: SigningKey, instance: Instance, statement: bytes, chain: bytes) -> Voice:
        """Let an instance speak whose statement the directory answered with ``chain``."""
        standing = Authority.from_bytes(chain)
        local = Local(identity.id, instance.epoch, instance.instance_id, key.id, standing)
        voice = Voice(identity, key, local, instance, statement)
        self._voices[instance.instance_id] = voice
        self._recorder.log.put_blob(statement)  # it names the log's key: nobody could verify a checkpoint without it
        self._engine.add_local(local)
        return voice

    def leave(self, voice: Voice) -> None:
        """End an instance: the directory and its peers hear of it."""
        if self._lives(voice):
            self._source.leave([voice.local.instance_id])
            self._drop(voice)

    def leave_all(self) -> None:
        """End every instance."""
        self._source.leave(list(self._voices))
        for voice in self:
            self._drop(voice)

    def _drop(self, voice: Voice) -> None:
        self._voices.pop(voice.local.instance_id, None)
        self._engine.remove_local(voice.local.instance_id)

    def introduce(self, identity: Identity, instance_id: bytes) -> tuple[SigningKey, Instance, bytes]:
        """A new instance key, and the signed statement that introduces it."""
        now = self._clock.now()
        key = SigningKey(self._entropy(32))
        record = self._source.trust.principal(identity.id)
        epoch = record.epoch if record is not None else 1
        place = self._place
        instance = Instance(
            identity.id, epoch, instance_id, key.public.raw, identity.key.id, place.node, place.log_key,
            place.curve_key, list(place.endpoints()), ["envelope", "grant"], now, now + INSTANCE_LIFE,
        )  # fmt: skip
        return key, instance, instance.signed_by(identity.key, key).encode()

    # ── a new key for the same instance ──────────────────────────────────────────────────────────────────────────

    async def renew(self, voice: Voice) -> None:
        """Take a new key and a new standing grant now."""
        voice.wanted = voice.renewing = True
        voice.again = self._clock.mono() + AGAIN
        try:
            if is_followed(voice.identity, self._source.trust):
                voice.identity = await asyncio.to_thread(voice.identity.current, self._source.trust)
            key, instance, statement = self.introduce(voice.identity, voice.local.instance_id)
            chain = await self._source.publish(statement)
        except AgentBusError:
            return
        finally:
            voice.renewing = False
        if not self._lives(voice):  # it left meanwhile, and the directory has just heard the opposite
            self._source.leave([voice.local.instance_id])
            return
        self._before_switch()
        voice.wanted = False
        voice.key, voice.instance, voice.statement = key, instance, statement
        voice.local.key_id, voice.local.standing = key.id, Authority.from_bytes(chain)

    async def keep_current(self) -> None:
        """Renew whoever is due, for as long as the node lives."""
        while True:
            await asyncio.sleep(LOOK)
            self.renew_due()

    def renew_due(self) -> None:
        """Start a renewal for each whose key has to be followed by another now, or could not be when it was tried."""
        now, mono = self._clock.now(), self._clock.mono()
        for voice in self:
            if not voice.renewing and mono >= voice.again and (voice.wanted or voice.is_due(now)):
                self.renew_soon(voice)

    def trust_changed(self) -> None:
        """Who speaks here under an identity key that was followed by another takes a new instance key under that."""
        for voice in self:
            if not voice.renewing and is_followed(voice.identity, self._source.trust):
                self.renew_soon(voice)

    def renew_soon(self, voice: Voice) -> None:
        """The same, in a task of its own."""
        voice.renewing = True
        self._spawn(self.renew(voice))

    def announce(self) -> None:
        """The directory lost its memory of who is running when it stopped: say it again."""
        for voice in self:
            self._spawn(self._announce(voice))

    async def _announce(self, voice: Voice) -> None:
        try:
            await self._source.publish(voice.statement)
        except AgentBusError:
            self.renew_soon(voice)

    def _lives(self, voice: Voice) -> bool:
        return self._voices.get(voice.local.instance_id) is voice
