"""Evidence: logs beside the directory's log and a pinned root key.

Rule 1: nothing is shown before :meth:`Evidence.verify` ran; what is shown then is as good as its report says.
Rule 2: nothing is written, and no key of anybody is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

from agentbus.audit.files import read_events, read_notes
from agentbus.audit.following import Followed
from agentbus.audit.message import Message, messages_of, refusals_of
from agentbus.audit.workers import WORTH, Progress, Workers, processors
from agentbus.connect import find_url
from agentbus.delegation.statements import Instance
from agentbus.errors import ConfigError, Malformed, NotVerified
from agentbus.log.cut import cut_where_they_agree
from agentbus.log.history import History, Statements
from agentbus.log.part import Part
from agentbus.log.read import LogFolder, look, read_log, require_log
from agentbus.log.reconcile import Reconciliation, joined, reconcile_logs
from agentbus.log.report import Report, Verdict, merge
from agentbus.log.scanning import Unit
from agentbus.log.sweep import statement_blobs
from agentbus.log.verify import Verification
from agentbus.log.witness import Notes
from agentbus.wire.ids import name_id, unb64

JOINED: Final = 1_000_000
"""Entries of all logs that are joined while they are verified; joining keeps half a kilobyte of each message."""
CODES: Final = {
    "evidence.not_verified": "Call verify() before reading messages.",
    "evidence.no_root": "No root key's thumbprint was given to verify against, and no profile pins one.",
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which messages are wanted; what is None is not asked about."""

    user: str | None = None
    agent: str | None = None
    conversation: str | None = None
    action: str | None = None
    accepted: bool | None = None
    since: int | None = None  # microseconds
    until: int | None = None

    def wants(self, message: Message) -> bool:
        """Whether everything that is given holds."""
        header = message.header
        return (
            (self.agent is None or self.agent in (header.sender, header.recipient))
            and (self.conversation is None or message.conversation.startswith(self.conversation))
            and (self.action is None or header.action == self.action)
            and (self.accepted is None or message.accepted is self.accepted)
            and (self.since is None or message.instant >= self.since)
            and (self.until is None or message.instant < self.until)
            and (self.user is None or message.user == self.user)
        )


class Evidence:
    """Logs beside the directory's log and a pinned root key. Make one with :meth:`open`."""

    def __init__(self, logs: Sequence[Path], directory: Path, root: bytes) -> None:
        self._paths = tuple(logs)
        self._directory, self._root = directory, root
        self._events: list[bytes] = []
        self._look_up()
        self._logs: dict[str, LogFolder] | None = None

    def _look_up(self) -> None:
        """The directory as it is now: read after a log, it holds all that the log's entries were judged under."""
        events = read_events(self._directory)
        if events != self._events:
            self._events, self._history = events, History(events, self._root)

    @classmethod
    def open(
        cls, *logs: str | PathLike[str], directory: str | PathLike[str], root: str | bytes | None = None
    ) -> Evidence:
        """Open logs for verifying.

        Args:
            logs: Folders of nodes' logs.
            directory: The folder that holds ``directory.sqlite``.
            root: The thumbprint of the root key, in base64url or raw, or a bus URL's pin; else the profile's.

        Raises:
            ConfigError: ``evidence.no_root``.
            LogError: ``evidence.no_directory``, ``log.missing``.
            Malformed: ``malformed.base64``.
        """
        if root is None:
            root = _pinned()
        try:
            raw = root if isinstance(root, bytes) else unb64(root.partition(".")[0], 32)
        except Malformed as error:
            text = f"{root[:80]!r} is no thumbprint: 43 characters, as in a bus URL between the # and the dot"
            raise Malformed(error.code, text) from error
        for log in logs:
            require_log(Path(log))
        return cls([Path(log) for log in logs], Path(directory), raw)

    # ── judging ──────────────────────────────────────────────────────────────────────────────────────────────────

    def verify(self, *, processes: int | None = None, progress: Progress | None = None) -> Report:
        """Judge all logs; the report has every verdict of :data:`VERDICTS`.

        Args:
            processes: How many may read at once; by default as many as there are cores, and one for a small log.
            progress: Told how many entries were read, and of how many.

        Raises:
            LogError: ``log.missing``, ``evidence.worker``.
        """
        beside = {self._name(path): read_notes(path) for path in self._paths}
        early = {path: look(path) for path in self._paths}
        logs = {self._name(path): read_log(path, early[path]) for path in self._paths}
        self._look_up()
        count = processes if processes is not None else processors()
        if count < 2 or (processes is None and sum(sum(log.extents) for log in logs.values()) < WORTH):
            return self._judge(logs, beside, None, progress)
        with Workers(count, self._events, self._root) as workers:
            for log in logs.values():
                workers.index(log)
            return self._judge(logs, beside, workers, progress)

    def _judge(
        self,
        logs: dict[str, LogFolder],
        beside: dict[str, list[bytes]],
        workers: Workers | None,
        progress: Progress | None,
    ) -> Report:
        cut_where_they_agree(logs, self._instances(logs))
        notes = self._notes(logs, beside)
        read = 0
        total = sum(log.size for log in logs.values())
        reports = {}
        judged: set[tuple[str, bytes]] = set()  # origins and keys of the logs that are here
        for name, log in logs.items():
            held = [one for one in notes.of(log.origin or "") if one.holder != name]

            def parts(units: Sequence[Unit], sizes: Sequence[int], log: LogFolder = log) -> Iterator[Part]:
                nonlocal read
                here = Verification(log, self._history).read_here
                for part in workers.read(log, units, sizes) if workers is not None else here(units, sizes):
                    read += part.entries
                    if progress is not None:
                        progress(read, total)
                    yield part

            verification = Verification(log, self._history, held, parts)
            reports[name] = verification.run()
            judged |= {(log.origin or "", key) for key in verification.keys}
        self._logs = logs
        merged = merge(reports) if reports else Report({})
        if len(logs) > 1 and total <= JOINED:
            merged = joined(merged, self.reconcile())
        return _with_forks(merged, notes.forks(but=judged))

    def _notes(self, logs: dict[str, LogFolder], beside: dict[str, list[bytes]]) -> Notes:
        """The checkpoints of any log that any of the logs keeps."""
        log_keys: dict[str, list[tuple[str, bytes]]] = {}
        for log in logs.values():
            for instance in Statements(statement_blobs(log), self._history):
                log_keys.setdefault(instance.node, []).append((instance.principal, instance.log_key))
        notes = Notes(log_keys)
        for name, log in logs.items():
            for position, note, instant in log.notes():
                notes.add(name, position, note, instant)
            for note in beside[name]:
                notes.add(name, None, note)
        return notes

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def messages(
        self,
        *,
        user: str | None = None,
        agent: str | None = None,
        conversation: str | None = None,
        action: str | None = None,
        accepted: bool | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Iterator[Message]:
        """The messages, log by log in the order they were logged; each filter that is given must hold.

        Args:
            user: On behalf of this user: ``alice``, ``user/alice`` or a full id.
            agent: Sent by or to this principal: a short name or a full id.
            conversation: In hex; its beginning will do.
            action: The message type.
            accepted: True or False: received, and accepted or not. None: sent ones too.
            since: Logged at this instant (microseconds) or later.
            until: Logged before this instant.

        Raises:
            NotVerified: :meth:`verify` did not run.
        """
        logs = self._verified()
        wanted = self.filter(
            user=user, agent=agent, conversation=conversation, action=action, accepted=accepted, since=since,
            until=until,
        )  # fmt: skip
        return (m for name, log in logs.items() for m in messages_of(name, log) if wanted.wants(m))

    def filter(self, *, user: str | None = None, agent: str | None = None, **more: Any) -> Filter:
        """A filter whose names are completed with this trust domain.

        Args:
            user: On behalf of this user: ``alice``, ``user/alice`` or a full id.
            agent: Sent by or to this principal: a short name or a full id.
            more: The other filters of :meth:`messages`.

        Returns:
            What :meth:`messages` filters by.

        Raises:
            Malformed: ``malformed.id``.
        """
        domain = self._history.full.domain
        who = name_id(agent, domain) if agent is not None else None
        on_behalf = name_id(user if "/" in user else f"user/{user}", domain) if user is not None else None
        return Filter(user=on_behalf, agent=who, **more)

    def follow(self, *, wait: Callable[[], None], **filters: Any) -> Iterator[tuple[Message, str]]:
        """What is logged after :meth:`verify` ran, as it is written, each message judged as it comes. It never ends.

        Args:
            wait: Called whenever nothing new is there; it sleeps as long as it likes, and may raise to stop.
            filters: Those of :meth:`messages`.

        Yields:
            A message, and what is wrong with it; empty where nothing is.

        Raises:
            NotVerified: :meth:`verify` did not run.
        """
        wanted = self.filter(**filters)
        followed = [Followed(name, log) for name, log in self._verified().items()]
        while True:
            grown = False
            for one in followed:
                if not one.look():
                    continue
                grown = True
                self._look_up()
                for message, problem in one.news(self._history):
                    if wanted.wants(message):
                        yield message, problem
            if not grown:
                wait()

    def reconcile(self) -> Reconciliation:
        """Join the logs: what one says was sent against what another says came.

        Raises:
            NotVerified: :meth:`verify` did not run.
        """
        logs = self._verified()
        return reconcile_logs(logs, self._instances(logs))

    def _instances(self, logs: Mapping[str, LogFolder]) -> Iterator[Instance]:
        found = (Statements(statement_blobs(log), self._history) for log in logs.values())
        return (statement for statements in found for statement in statements)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All messages, flat, for pandas and friends.

        Raises:
            NotVerified: :meth:`verify` did not run.
        """
        return (message.as_row() for message in self.messages())

    def refusals(self) -> Iterator[dict[str, Any]]:
        """What was refused before anybody's signature had verified: nobody is named, for nobody is known.

        Returns:
            Rows of log, position, time, connection, code and frame (SHA-256 of the frame, in hex).

        Raises:
            NotVerified: :meth:`verify` did not run.
        """
        return (row for name, log in self._verified().items() for row in refusals_of(name, log))

    @property
    def logs(self) -> dict[str, LogFolder]:
        """The logs by name.

        Raises:
            NotVerified: :meth:`verify` did not run.
        """
        return dict(self._verified())

    @property
    def domain(self) -> str:
        """The trust domain that the directory's log is about."""
        return self._history.full.domain

    @property
    def events(self) -> list[bytes]:
        """The directory log's encoded statements, in order."""
        return list(self._events)

    def _verified(self) -> dict[str, LogFolder]:
        if self._logs is None:
            raise NotVerified("evidence.not_verified", "call verify() first, and look at its report")
        return self._logs

    def _name(self, path: Path) -> str:
        """A log's name in reports: its folder's, or the whole path where two are called alike."""
        alike = [other for other in self._paths if other.name == path.name]
        return path.name if len(alike) == 1 else str(path)


def _pinned() -> bytes:
    try:
        return find_url().root
    except ConfigError as error:
        text = "pass root=, the part of the bus URL's pin before the dot, or run `agentbus init URL`"
        raise ConfigError("evidence.no_root", text) from error


def _with_forks(report: Report, forks: list[str]) -> Report:
    """A report that also names logs which nobody handed in and of which two histories are kept."""
    if not forks:
        return report
    verdict = report["NOT-FORKED"]
    found = Verdict(False, verdict.checked + len(forks), [*verdict.problems, *forks], verdict.reason)
    return Report({**report, "NOT-FORKED": found})
