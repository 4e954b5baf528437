"""What holds after every run, read from the logs that the nodes wrote."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

from agentbus.audit import Evidence
from agentbus.crypto.merkle import Frontier, leaf_hash
from agentbus.delegation.chain import Authority
from agentbus.delegation.grant import decode_links
from agentbus.directory.store import SqliteStore
from agentbus.log.checkpoint import read_checkpoint
from agentbus.log.decoding import decode_entry
from agentbus.log.entry import ACCEPTED, Received, Sent
from agentbus.log.reconcile import Reconciliation, reconcile
from agentbus.log.sides import Side, homes_of
from agentbus.logstore.files import FileLog
from agentbus.wire.header import OPENING, Header, Kind, decode_header
from agentbus.wire.limits import LIMITS, SECOND

from .town import CEILINGS, MAX_AGE, NEEDS, RIGHTS, START, Town

WINDOW: Final = 2 * SECOND  # from a revocation to the next poll, and what was under way to the handler


class Run:
    """A finished run and what its logs say."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.entries = {name: [decode_entry(data) for data in log] for name, log in town.logs.items()}
        self.messages: dict[str, list[tuple[Sent | Received, Header]]] = {
            name: [(e, decode_header(e.header, LIMITS)) for e in entries if isinstance(e, Sent | Received)]
            for name, entries in self.entries.items()
        }

    def check(self) -> Reconciliation:
        """All of them."""
        self.acknowledged_is_in_both_logs_once()
        self.a_handler_runs_at_most_once()
        self.checkpoints_agree()
        self.nothing_revoked_is_accepted_for_long()
        self.nobody_exceeds_the_chain()
        self.nothing_stays_open()
        return self.nobody_honest_is_blamed()

    def acknowledged_is_in_both_logs_once(self) -> None:
        sent = Counter(leaf_hash(e.header) for all_ in self.messages.values() for e, _ in all_ if isinstance(e, Sent))
        taken = Counter(
            leaf_hash(e.header)
            for all_ in self.messages.values()
            for e, _ in all_
            if isinstance(e, Received) and e.code == ACCEPTED
        )
        answered = {
            h.in_reply_to
            for all_ in self.messages.values()
            for e, h in all_
            if isinstance(e, Received) and e.code == ACCEPTED and h.kind in (Kind.REPLY, Kind.RECEIPT)
        }
        answered |= {bytes.fromhex(digest) for digest in self.town.acknowledged}
        for digest in answered:
            assert digest is not None and sent[digest] == 1 and taken[digest] == 1, (sent[digest], taken[digest])

    def a_handler_runs_at_most_once(self) -> None:
        assert all(count == 1 for count in self.town.handled.values()), self.town.handled.most_common(1)

    def checkpoints_agree(self) -> None:
        """Whatever was published is a prefix of what is there: the same root at its size."""
        for name, log in self.town.logs.items():
            roots, frontier = {}, Frontier()
            for data in log:
                frontier.append(leaf_hash(data))
                roots[frontier.size] = frontier.root()
            for note in self.town.notes.get(name, []):
                said = read_checkpoint(note)
                assert said.size == 0 or roots.get(said.size) == said.root, (name, said.size)

    def nothing_revoked_is_accepted_for_long(self) -> None:
        """By true time: a clock that is off does not make a revocation later."""
        for name, messages in self.messages.items():
            skew = self.town.clocks[name].skew
            for entry, header in messages:
                if not isinstance(entry, Received) or entry.code != ACCEPTED or header.kind not in OPENING:
                    continue
                at = entry.instant - skew
                involved = self._involved(name, entry, header)
                for revoked_at, who in self.town.revoked:
                    assert who not in involved or at <= revoked_at + MAX_AGE + WINDOW, (name, header.action, who)

    def nobody_exceeds_the_chain(self) -> None:
        """Whatever a handler requires stands in every link, in every agent's ceiling and in the user's rights."""
        for name, messages in self.messages.items():
            for entry, header in messages:
                if isinstance(entry, Received) and entry.code == ACCEPTED and header.kind in OPENING:
                    authority = self._authority(name, entry)
                    for scope in NEEDS.get(header.action, ()):
                        for link in authority.links:
                            assert scope in map(str, link.grant.scopes)
                            if link.grant.audience.kind == "agent":
                                assert scope in CEILINGS[link.grant.audience.name]
                        assert authority.user is None or scope in RIGHTS

    def nothing_stays_open(self) -> None:
        """Once everything has expired, nothing is kept of it."""
        for name, node in self.town.nodes.items():
            if node._closed:
                continue  # it crashed, and was revoked before it could come back
            assert len(node._engine.exchanges) == 0, name
            assert not node._waiters, name
            for bus in self.town.buses.values():
                assert all(not service._running for service in bus._services)

    def nobody_honest_is_blamed(self) -> Reconciliation:
        """Sequences have no gap, and where the logs disagree the network is to blame, or a crash, and nobody else."""
        sides = []
        for name, entries in self.entries.items():
            side = Side(name, name.replace("/", "-"))
            for entry in entries:
                side.add(entry)
            sides.append(side)
        found = reconcile(sides, homes_of(sides, []))
        assert not [finding for finding in found.findings if finding.blame == "party"], found.findings
        return found

    def _authority(self, name: str, entry: Received) -> Authority:
        return Authority(decode_links(self.town.logs[name].blob(entry.chain) or b""), b"")

    def _involved(self, name: str, entry: Received, header: Header) -> set[str]:
        links = self._authority(name, entry).links
        return {header.sender} | {link.grant.issuer for link in links} | {link.grant.audience for link in links}


def audit(town: Town, folder: Path) -> None:
    """The logs as files, judged by an auditor: all green, and red once a byte is changed."""
    now = START
    for name, log in town.logs.items():
        files = FileLog.open(folder / name.replace("/", "-"), key=town.keys[name], origin=log.origin, now=now)
        for blob in log._blobs.values():
            files.put_blob(blob)
        for box, key in log._keys.items():
            files.adopt_box(log._boxes[box], key)
        files.append(list(log))
        files.close()
    store = SqliteStore(folder / "directory-events")
    store.append(0, list(town.core.store.entries(0)))
    store.close()
    logs = sorted(path for path in folder.iterdir() if any(path.glob("*.seg")))
    of = Evidence.open(*logs, directory=folder / "directory-events", root=town.root)
    report = of.verify(processes=1)
    assert report.ok, {name: verdict.problems[:2] for name, verdict in report.items() if verdict.ok is False}
    segment = logs[0] / "00000000.seg"
    data = bytearray(segment.read_bytes())
    data[town.chance.randrange(len(data))] ^= 1 << town.chance.randrange(8)
    segment.write_bytes(data)
    assert not Evidence.open(*logs, directory=folder / "directory-events", root=town.root).verify(processes=1).ok
