"""The demo's last part: what the logs say once everybody has left. Nothing here needs a process, a key or a network."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from agentbus.audit import Evidence
from agentbus.cli.demo import agents
from agentbus.log.messageproof import check_message_proof, prove_message
from agentbus.replay import ReplayReport, replay
from agentbus.wire.ids import unb64

HONEST: Final = ("planner", "librarian", "summarizer", "user-alice", "user-operator", "directory-node")
REPLAYED: Final = (agents.planner, agents.summarizer)

Step = Callable[[str, bool, str, float], None]
"""(name, whether it went as it should, code, when it began)."""


class Record:
    """What auditors do with the folder of a run.

    Args:
        data: Where every node logged.
        root: The pinned thumbprint.
        tell: Prints a line.
        step: Keeps what was tried.
    """

    def __init__(self, data: Path, root: str, tell: Callable[[str], None], step: Step) -> None:
        self._data, self._root, self._tell, self._step = data, root, tell, step
        self.verdicts: dict[str, Any] = {}
        self.replay: dict[str, Any] | None = None

    def examine(self) -> None:
        """Verify, reconcile, prove, replay; and see that a flipped byte is found."""
        self._verify()
        self._reconcile()
        self._prove()
        self._replay()
        self._tamper()

    def _evidence(self, *logs: Path) -> Evidence:
        return Evidence.open(*logs, directory=self._data / "directory", root=self._root)

    def _verify(self) -> None:
        began = time.monotonic()
        nodes = sorted(p for p in self._data.iterdir() if p.is_dir() and any(p.glob("*.seg")))
        report = self._evidence(*nodes).verify()
        self._tell(f"\n{len(nodes)} logs, verified offline against root key {self._root}:")
        for name in ("AUTHENTIC", "KEY-VALID", "AUTHORISED", "INTACT"):
            verdict = report[name]
            self.verdicts[name] = {"ok": verdict.ok, "checked": verdict.checked, "problems": list(verdict.problems)}
            self._tell(f"  {name:11} {'yes' if verdict.ok else 'NO'}  {verdict.checked} checked")
        good = all(v["ok"] is True for v in self.verdicts.values())
        self._step("logs verified offline", good, "ok" if good else "evidence.negative", began)

    def _reconcile(self) -> None:
        """The honest logs agree; mallory's leaves out what she sent, which the others hold under her signature."""
        began = time.monotonic()
        evidence = self._evidence(*(self._data / name for name in HONEST))
        evidence.verify()
        found = evidence.reconcile()
        logs = [*(self._data / name for name in HONEST), self._data / "attackers" / "mallory"]
        whole = self._evidence(*logs)
        whole.verify()
        blamed = {finding.party for finding in whole.reconcile().findings if finding.blame == "party"}
        self._tell(f"\nsenders' logs joined with receivers' logs: {found.joined} messages are in both")
        for finding in found.findings:
            self._tell(f"  {finding.what}, {finding.blame}: {finding.why}")
        self._tell(f"  left out of their sender's log: what {', '.join(sorted(blamed)) or 'NOBODY'} sent by hand")
        good = found.ok and found.joined > 0 and blamed == {"mallory"}
        self._step("logs reconciled", good, "ok" if good else "evidence.disagree", began)

    def _prove(self) -> None:
        began = time.monotonic()
        evidence = self._evidence(self._data / "planner")
        evidence.verify()
        asked = next(evidence.messages(action="Ask", accepted=True))
        key, log = unb64(self._root, 32), evidence.logs["planner"]
        proof = prove_message(log, asked.message_id, events=evidence.events, root=key, with_body=True).encode()
        report, shown = check_message_proof(proof, root=key)
        good = report.ok and shown.header == asked.header
        self._tell(f"\nalice's question to planner, proved to a third party: one file of {len(proof):,} bytes")
        self._step("a proof checked", good, "ok" if good else "evidence.negative", began)

    def _replay(self) -> None:
        """The agents' handlers once more, in this process, on the recorded inputs, with no network."""
        began = time.monotonic()
        self._tell("\nreplayed from their logs, with the recorded answers and no network:")
        reports: dict[str, ReplayReport] = {}
        for agent in REPLAYED:
            report = reports[agent.name] = replay(
                self._data / agent.name, agent, directory=self._data / "directory", root=self._root
            )
            counts = ", ".join(f"{count} {status}" for status, count in report.counts.items() if count)
            self._tell(f"  {agent.name:11} {len(report.results)} messages: {counts}")
        good = all(report.ok for report in reports.values())
        self.replay = _as_dict(good, reports)
        self._step("replayed byte for byte", good, "ok" if good else "replay.differs", began)

    def _tamper(self) -> None:
        began = time.monotonic()
        copy = self._data / "tampered"
        shutil.copytree(self._data / "planner", copy / "planner")
        segment = next(iter(sorted((copy / "planner").glob("0*.seg"))))
        data = bytearray(segment.read_bytes())
        data[len(data) // 2] ^= 0x01
        segment.write_bytes(data)
        report = self._evidence(copy / "planner").verify()
        red = [name for name in self.verdicts if report[name].ok is False]
        self._step("one flipped byte is found", bool(red), ",".join(red) or "not found", began)
        self._tell(f"\na copy of planner's log with one byte flipped: {', '.join(red) or 'NOTHING'} turns red")
        shutil.rmtree(copy)


def _as_dict(ok: bool, reports: dict[str, ReplayReport]) -> dict[str, Any]:
    told = {name: report.as_dict() for name, report in reports.items()}
    one = next(iter(told.values()))
    return {
        "ok": ok,
        "mode": one["mode"],
        "timing": one["timing"],
        "egress": one["egress"],
        "messages": sum(report["messages"] for report in told.values()),
        "counts": {status: sum(report["counts"][status] for report in told.values()) for status in one["counts"]},
        "agents": told,
    }
