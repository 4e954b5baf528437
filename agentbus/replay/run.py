"""One replay, message by message: each is delivered once more, and what comes back is compared with the record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import decode_link, encode_chain
from agentbus.errors import AgentBusError
from agentbus.log.boxes import NO_BOX, Box
from agentbus.log.entry import Outcome
from agentbus.log.history import History
from agentbus.log.read import LogFolder
from agentbus.log.replay import Recorded, boxes
from agentbus.protocol.engine import WINDOW
from agentbus.protocol.events import Answered
from agentbus.protocol.exchange import Exchange
from agentbus.replay.compare import Comparator, Output, first_difference
from agentbus.replay.guard import Guard
from agentbus.replay.live import LivePlayer
from agentbus.replay.node import ReplayNode
from agentbus.replay.pace import RunClock
from agentbus.replay.player import Facts, Player
from agentbus.replay.report import Divergence, Result
from agentbus.replay.stage import Stage
from agentbus.runtime import problems
from agentbus.runtime.agent import Agent
from agentbus.runtime.redaction import BUILT_IN
from agentbus.runtime.serving import Service, policy_of
from agentbus.runtime.voices import Voice
from agentbus.wire.header import Kind
from agentbus.wire.ids import PrincipalId
from agentbus.wire.limits import LIMITS, SECOND


@dataclass(frozen=True)
class Job:
    """What is replayed.

    Attributes:
        messages: In the order in which they are started.
        factor: How many times as fast as it was; None: no time at all.
        progress: Called after each message.
        guard: Tells of what was to leave this process.
    """

    log: LogFolder
    history: History
    agent: Agent[Any]
    who: PrincipalId
    messages: Sequence[Recorded]
    mode: str
    factor: float | None
    compare: Comparator | None
    box: Callable[[bytes], Box]
    progress: Callable[[], None]
    guard: Guard


async def run(job: Job) -> list[Result]:
    """Replay everything on a stage of its own."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    clock = RunClock(job.messages[0].frame.instant if job.messages else 0, lambda: loop.time() - began)
    stage = Stage.make(job.history.full.domain, clock)
    node = ReplayNode(stage, clock)
    await node.open()
    try:
        results: list[Result] = []
        for _, messages in groupby(job.messages, key=lambda message: message.run):
            results += await _Start(job, stage, node, clock).play(list(messages))
        return results
    finally:
        await node.aclose()


class _Start:
    """One start of the agent: its lifespan is entered anew, as it was."""

    def __init__(self, job: Job, stage: Stage, node: ReplayNode, clock: RunClock) -> None:
        self._job, self._stage, self._node, self._clock = job, stage, node, clock

    async def play(self, messages: list[Recorded]) -> list[Result]:
        job, node = self._job, self._node
        await self._stage.cast([job.who], job.history.at(messages[0].directory_size) or job.history.full)
        self._service = Service(job.agent, node, await self._stage.voice(job.who))
        node.set_rules(policy_of([self._service]))
        await self._service.open()
        try:
            results = []
            for message in messages:
                results.append(await self._message(message))
                job.progress()
            return results
        finally:
            await self._service.aclose()

    async def _message(self, message: Recorded) -> Result:
        why = unreplayable(message, self._job)
        if why and not message.overlaps:
            return _result(message, "not replayable", reason=why)
        await self._keep_pace(message)
        try:
            player, outputs = await self._play(message)
        except AgentBusError as error:
            return _result(message, "not replayable", reason=f"it cannot be delivered again: {error}")
        if why:  # it ran, for what it may have left behind; what it answered proves nothing
            return _result(message, "not replayable", reason=why)
        return self._judge(message, player, outputs)

    async def _keep_pace(self, message: Recorded) -> None:
        if self._job.factor is not None:
            await asyncio.sleep(max(0, message.frame.instant - self._clock.now()) / SECOND)
        self._clock.reach(message.frame.instant)

    async def _play(self, message: Recorded) -> tuple[Player, list[Output]]:
        job, stage, node = self._job, self._stage, self._node
        header = message.frame.header
        facts, handover = self._facts(message)
        names = {header.sender, header.recipient, *_names(facts.handover or facts.authority)}
        await stage.cast(map(PrincipalId, names), job.history.at(message.directory_size) or job.history.full)
        voice = await stage.voice(PrincipalId(header.sender))
        mine = await stage.voice(job.who)
        chain = await stage.chain(facts.authority)
        handed = await stage.handover(handover, chain) if handover is not None else None
        digest = b""

        def interrupt() -> None:
            task = self._service.task_of(digest)
            if task is not None:
                task.cancel()

        # what a node does of itself is never done again, in live mode either: erasing was for its own log
        make = LivePlayer if job.mode == "live" and header.action not in BUILT_IN else Player
        live = job.mode == "live" and job.factor is None
        player = make(message, facts, self._content, strict=job.mode == "stub", interrupt=interrupt, asap=live)
        job.guard.refused = player.refused
        collected = _Collected(node, voice, chain)
        exchange = node.deliver(
            message.frame.kind, voice, mine.instance, collected, action=header.action,
            body=self._content(message.frame.body or b"")[32:], chain=chain,
            deadline=self._clock.now() + LIMITS.lifetime, handover=(lambda _: handed) if handed is not None else None,
            conversation=header.conversation,
        )  # fmt: skip
        digest, collected.exchange = exchange.digest, exchange
        node.players[digest] = player
        try:
            await collected.done.wait()
            while (task := self._service.task_of(digest)) is not None:
                await asyncio.wait([task])
                await asyncio.sleep(0)
        finally:
            player.close()
            del node.players[digest]
        return player, collected.outputs

    def _facts(self, message: Recorded) -> tuple[Facts, bytes | None]:
        """What the handler was shown, as it was: the log that says so was verified."""
        log = self._job.log
        authority = Authority.from_bytes(log.blob(message.chain) or b"")
        if message.handover is None:
            return Facts(message.frame.header, message.digest, authority, None), None
        handover = log.blob(message.handover) or b""
        handed = Authority.from_bytes(encode_chain((*authority.links, decode_link(handover))))
        return Facts(message.frame.header, message.digest, authority, handed), handover

    def _content(self, name: bytes) -> bytes:
        return self._job.box(name).data or b""

    def _judge(self, message: Recorded, player: Player, outputs: list[Output]) -> Result:
        if player.divergences:
            first = player.divergences[0]
            return _result(message, first.status, divergence=first)
        compare = self._job.compare if self._job.mode != "stub" else None
        found, equivalent = first_difference(
            list(_recorded(message, self._content)), list(_comparable(message, outputs)),
            action=message.frame.header.action, cut=_cut(message), same=compare,
        )  # fmt: skip
        failed = bool(outputs) and outputs[-1].kind is Kind.ERROR
        if player.left is not None and not (found and failed):  # what fails does not ask for the rest
            found = player.left
        if found is not None:
            return _result(message, found.status, divergence=found)
        return _result(message, "equivalent" if equivalent else "same")


class _Collected:
    """Waits for everything that answers one message."""

    def __init__(self, node: ReplayNode, voice: Voice, chain: Authority) -> None:
        self._node, self._voice, self._chain = node, voice, chain
        self.exchange: Exchange | None = None
        self.outputs: list[Output] = []
        self.done = asyncio.Event()
        self._items = 0

    def answered(self, event: Answered) -> None:
        kind = Kind(event.message.header.kind)
        if kind in (Kind.REPLY, Kind.ERROR, Kind.END, Kind.ITEM) or event.message.header.action == "handled":
            self.outputs.append(Output(kind, event.message.body))
        if kind is Kind.ITEM:
            self._items += 1
            if self._items % (WINDOW // 2) == 0:
                self._give_credit(event.exchange)
        elif event.final:
            self.done.set()

    def failed(self, error: AgentBusError) -> None:
        self.done.set()  # nothing more comes: where an answer was recorded, it is missing

    def _give_credit(self, exchange: Exchange) -> None:
        if not exchange.done:
            exchange.allowed = self._items + WINDOW
            self._node.answer(
                Kind.CREDIT, self._voice, exchange, action="credit", body=b"", stream_index=exchange.allowed,
                chain=self._chain,
            )  # fmt: skip


def unreplayable(message: Recorded, job: Job) -> str:
    """Why a message cannot be replayed, or an empty text."""
    if message.overlaps and not job.agent.replayable:
        return "its handler overlapped another, and the agent does not say that it is replayable"
    for what, position, name in boxes(message):
        found = NO_BOX if name is None else job.box(name)
        if found.data is None:
            return f"entry {position}: {what} {'was erased' if found.erased else 'is absent'}"
    if message.end is None:
        return "the process ended before its handler did"
    if message.interrupted and job.mode == "live":
        return "its handler was stopped from outside"
    return ""


def _cut(message: Recorded) -> bool:
    """Whether more may come now than came then: nobody heard the rest, or there was none."""
    return (message.ended is not None and message.frame.kind is not Kind.SEND) or message.interrupted


def _recorded(message: Recorded, content: Callable[[bytes], bytes]) -> Iterator[Output]:
    for answer in message.answers:
        if not (message.interrupted and answer.kind is Kind.ERROR):  # whoever stopped it said so, not the handler
            yield Output(answer.kind, content(answer.body or b"")[32:])
    ended = message.ended
    if ended is not None and message.frame.kind is Kind.SEND:  # its sender did not wait for how it ended
        if ended.outcome == Outcome.RESULT:
            yield Output(Kind.RECEIPT, b"")
        elif ended.outcome == Outcome.ERROR:
            yield Output(Kind.ERROR, ended.name.encode())


def _comparable(message: Recorded, outputs: list[Output]) -> Iterator[Output]:
    """What came now, with as much of an error as is known of the recorded one."""
    only_codes = message.ended is not None and message.frame.kind is Kind.SEND
    for output in outputs:
        if only_codes and output.kind is Kind.ERROR:
            output = Output(Kind.ERROR, problems.decode(output.body, "").code.encode())
        yield output


def _names(authority: Authority) -> Iterator[str]:
    for link in authority.links:
        yield link.grant.issuer
        yield link.grant.audience


def _result(message: Recorded, status: Any, *, divergence: Divergence | None = None, reason: str = "") -> Result:
    frame = message.frame
    sender = PrincipalId(frame.header.sender).short
    return Result(
        frame.position, frame.instant, message.digest, frame.header.action, sender, status, divergence, reason
    )
