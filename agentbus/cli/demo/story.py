"""The demo's story: a question answered on somebody's behalf, six attacks refused, the logs examined.

Everything is real: processes, sockets, keys, a directory. Public names only.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agentbus import AgentBusError, Bus, Identity, Raw
from agentbus.audit import Evidence, Message
from agentbus.cli.demo.agents import CORPUS, Read, Search
from agentbus.cli.demo.processes import Processes
from agentbus.cli.demo.record import Record
from agentbus.testing.raw import RawPeer, sender_is

DOMAIN: Final = "agents.local"
SCOPES: Final = ["docs:read", "docs:search", "text:summarize"]
AGENTS: Final = ("librarian", "summarizer", "planner")
MODULE: Final = "agentbus.cli.demo.agents"


@dataclass
class Step:
    """One thing that was tried, and whether it went as it should."""

    name: str
    ok: bool
    code: str
    ms: float


@dataclass
class Story:
    """One run.

    Args:
        data: Where every node logs.
        question: What alice asks.
        corpus: A folder, or None for the texts of Python's own documentation.
        tell: Prints a line.
    """

    data: Path
    question: str
    corpus: Path | None
    tell: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)
    answer: str = ""
    citations: list[str] = field(default_factory=list)
    verdicts: dict[str, Any] = field(default_factory=dict)
    replay: dict[str, Any] | None = None
    root: str = ""
    _pending: dict[str, tuple[int, str]] = field(default_factory=dict)  # frame digest → (step, expected code)

    @property
    def ok(self) -> bool:
        """Whether every step did what it should."""
        return bool(self.steps) and all(step.ok for step in self.steps)

    async def run(self) -> None:
        """The whole story, and no process left behind."""
        home = self.data / "home"
        extra = {CORPUS: str(self.corpus)} if self.corpus else {}
        os.environ.update(AGENTBUS_HOME=str(home), AGENTBUS_DATA=str(self.data))  # this process's own keys and logs
        self.processes = Processes(self.data, home, extra)
        try:
            await self._set_up()
            await self._question()
            await self._attacks()
            await self._revocation()
            await self.operator.aclose()
        finally:
            await self.processes.stop()
        await asyncio.to_thread(self._examine)

    async def _by_hand(self, name: str) -> RawPeer:
        """Somebody whose log leaves out what it sends; so it lies apart from the honest ones."""
        os.environ["AGENTBUS_DATA"] = str(self.data / "attackers")
        try:
            return await RawPeer.connect(Identity.load(name), url=self.url)
        finally:
            os.environ["AGENTBUS_DATA"] = str(self.data)

    # ── the people ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _set_up(self) -> None:
        began = time.monotonic()
        self.url = await self.processes.up()
        self.root = self.url.partition("#")[2].partition(".")[0]
        self.operator = await Bus.connect(self.url, identity="user/operator", listen="")
        await asyncio.gather(
            *(self._enrol(name, ceiling=SCOPES, may_talk_to=["*"]) for name in AGENTS),
            self._enrol("mallory", ceiling=["docs:search"], may_talk_to=["*"]),
            self._enrol("user/alice", rights=SCOPES, may_talk_to=["*"]),
        )
        await asyncio.gather(*(self.processes.serve(f"{MODULE}:{name}", name) for name in AGENTS))
        self.mallory = await self._by_hand("mallory")
        self._step("set up", True, "ok", began)
        self.tell(f"directory, {', '.join(AGENTS)}: four processes, enrolled, over ZeroMQ with CURVE")

    async def _enrol(self, name: str, **record: Any) -> None:
        token = await self.operator.request("service/directory", Raw("CreatePrincipal", {"name": name, **record}))
        await Identity.enrol(name, token=token["token"], url=self.url)

    # ── the question ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _question(self) -> None:
        began = time.monotonic()
        self.tell(f"\nalice asks: {self.question}\n")
        body = {"question": self.question}
        ask = ["request", "planner", "Ask", json.dumps(body), "--as", "user/alice", "--stream", "--depth", "2"]
        for scope in SCOPES:
            ask += ["--delegate", scope]
        for agent in AGENTS:
            ask += ["--target", agent]
        pieces = []
        async for piece in self.processes.lines(*ask):
            pieces.append(piece)
            self.tell(f"  {piece['text']} [{piece['citation']}]")
        self.answer = " ".join(piece["text"] for piece in pieces)
        self.citations = list(dict.fromkeys(piece["citation"] for piece in pieces))
        self._step("question answered", bool(pieces), "ok" if pieces else "empty", began)

        self._draw()

    def _draw(self) -> None:
        """The chain behind the deepest request, and who asked whom in this conversation."""
        evidence = self._evidence(*(self.data / name for name in AGENTS))
        evidence.verify()
        asked = [m for m in evidence.messages(user="alice", accepted=True) if m.header.in_reply_to is None]
        chains = [m.authority for m in asked if m.authority is not None]
        if not chains:
            self._step("chain drawn", False, "no accepted request in the logs", time.monotonic())
            return
        self.tell("\nthe chain behind the deepest request:")
        for line in max(chains, key=lambda authority: len(authority.links)).tree().splitlines():
            self.tell(f"  {line}")
        self.tell("the conversation:")
        first = min(m.instant for m in asked)
        reads = [m for m in asked if m.action == "Read"]
        for m in sorted((m for m in asked if m.action != "Read"), key=lambda m: m.instant):
            self._line(m, first, "")
        for m in reads[:1]:
            self._line(m, first, f" and {len(reads) - 1} more like it" if len(reads) > 1 else "")

    def _line(self, m: Message, first: int, more: str) -> None:
        at = (m.instant - first) / 1000
        self.tell(f"  {at:7.1f} ms  {m.sender.short:12} → {m.recipient.short:11} {m.action}{more}")

    # ── the attacks ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _attacks(self) -> None:
        self.tell("\nmallory, enrolled and gone bad, tries:")
        mallory = self.mallory
        search = Search(question="closures")
        planner = f"spiffe://{DOMAIN}/agent/planner"

        async def flipped() -> str | None:
            sealed = await mallory.seal("librarian", search)
            frame = bytearray(sealed.frame)
            frame[-1] ^= 1
            return await mallory.deliver(sealed, frame=bytes(frame))

        async def replayed() -> str | None:
            sealed = await mallory.seal("librarian", search)
            first = await mallory.deliver(sealed, wait=5)
            if first != "ok":
                return f"first: {first}"
            await mallory.deliver(sealed, wait=0.2)
            return self._unanswered("librarian", sealed.frame)

        async def as_planner() -> str | None:
            sealed = await mallory.seal("librarian", search, edit=sender_is(planner))
            await mallory.deliver(sealed, wait=0.2)
            return self._unanswered("librarian", sealed.frame)

        async def not_granted() -> str | None:
            return await mallory.deliver(await mallory.seal("librarian", Read(passage=self.citations[0])), wait=5)

        async def widened() -> str | None:
            link = mallory.widened(mallory.bus.authority, "librarian", ["docs:read", "docs:search"])
            return await mallory.deliver(await mallory.seal("librarian", search, handover=link), wait=5)

        await self._attack("a frame with one bit flipped", flipped, "reject.body")
        await self._attack("a replayed frame", replayed, "reject.replayed")
        await self._attack("signing as planner", as_planner, "reject.sender_key")
        await self._attack("a scope that was not granted", not_granted, "denied.scope")
        await self._attack("a widened grant", widened, "reject.grant_widens")

    async def _attack(self, name: str, work: Callable[[], Awaitable[str | None]], expected: str) -> None:
        began = time.monotonic()
        code = await work()
        self._step(name, code == expected, code or "accepted or unanswered", began)
        self.tell(f"  {'refused ' if code == expected else 'NOT REFUSED'} {name}: {code}")

    def _unanswered(self, agent: str, frame: bytes) -> str:
        """Before a signature has verified nobody is answered: what ``agent`` made of it stands in its log."""
        digest = hashlib.sha256(frame).hexdigest()
        evidence = self._evidence(self.data / agent)
        evidence.verify()
        codes = [row["code"] for row in evidence.refusals() if row["frame"] == digest]
        return str(codes[0]) if codes else f"not in {agent}'s log"

    def _evidence(self, *logs: Path) -> Evidence:
        return Evidence.open(*logs, directory=self.data / "directory", root=self.root)

    async def _revocation(self) -> None:
        began = time.monotonic()
        self.tell("\nplanner is revoked while it works:")
        twin = await RawPeer.connect(Identity.load("planner"), url=self.url)
        refused: dict[str, tuple[float, str]] = {}  # who → when, and the code it gave
        started, knew = asyncio.Event(), twin.heard  # what it hears later, a thief would not say that he did

        async def alice() -> None:
            watch = ["request", "planner", "Watch", "{}", "--as", "user/alice", "--stream", "--json"]
            with suppress(AgentBusError):  # the command fails, as it should; its last line says why
                async for line in self.processes.lines(*watch):
                    started.set()
                    if "error" in line:
                        refused["user/alice"] = (time.monotonic(), line["error"]["code"])

        async def probe(agent: str) -> None:
            while agent not in refused:
                sealed = await twin.seal(agent, Raw("Nothing", {}), recorded=True, knows=knew)
                sent = time.monotonic()
                code = await twin.deliver(sealed, wait=0.25)
                if code != "handler.missing":  # until then planner is heard, and merely asks for what nobody handles
                    refused[agent] = (sent, code or self._unanswered(agent, sealed.frame))
                await asyncio.sleep(0.002)

        watching = asyncio.create_task(alice())
        async with asyncio.timeout(10):
            await started.wait()
        probes = [asyncio.create_task(probe(agent)) for agent in ("librarian", "summarizer")]
        await asyncio.sleep(0.1)
        before = not refused
        revoked = time.monotonic()
        await self.operator.revoke("planner", reason="demo")
        async with asyncio.timeout(10):
            await asyncio.gather(watching, *probes)
        await asyncio.gather(self.mallory.aclose(), twin.aclose())
        ms = max(at - revoked for at, _ in refused.values()) * 1000
        codes = sorted({code for _, code in refused.values()})
        good = before and len(refused) == 3 and codes == ["reject.revoked"]
        self._step("planner revoked in the middle", good, ", ".join(codes), began)
        who = ", ".join(sorted(refused))
        self.tell(f"  {who} all refused it ({', '.join(codes)}), {ms:.0f} ms after the operator asked")

    # ── the record ───────────────────────────────────────────────────────────────────────────────────────────────

    def _examine(self) -> None:
        record = Record(self.data, self.root, self.tell, self._step)
        record.examine()
        self.verdicts, self.replay = record.verdicts, record.replay

    def _step(self, name: str, ok: bool, code: str, began: float) -> None:
        self.steps.append(Step(name, ok, code, round((time.monotonic() - began) * 1000, 1)))
