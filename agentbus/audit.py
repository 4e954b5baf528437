"""The public way to read what happened: open logs, verify them, then ask.

::

    evidence = Evidence.open("logs/planner", directory="logs/directory", root=thumbprint)
    report = evidence.verify()
    for message in evidence.messages(user="alice", accepted=True):
        print(message.time, message.sender, message.action)

Rule 1: nothing is shown before :meth:`Evidence.verify` ran; what is shown then is as good as its report says.
Rule 2: nothing is written, and no key of anybody is needed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Final

from agentbus.connect import find_url
from agentbus.crypto.merkle import leaf_hash
from agentbus.delegation.chain import Authority
from agentbus.errors import AgentBusError, ConfigError, LogError, NotVerified
from agentbus.log.entry import ACCEPTED, Received, Refused, Sent, decode_entry
from agentbus.log.entry import Message as LoggedMessage
from agentbus.log.history import History
from agentbus.log.read import LogFolder, Numbered, read_log
from agentbus.log.report import VERDICTS, Report, Verdict, merge
from agentbus.log.verify import Verification
from agentbus.wire.header import OPENING, Header, Kind, decode_header
from agentbus.wire.ids import PrincipalId, b64, name_id, parse_id, unb64
from agentbus.wire.limits import LIMITS

__all__ = ["VERDICTS", "Evidence", "Message", "Report", "Verdict"]

CODES: Final = {
    "evidence.not_verified": "Call verify() before reading messages.",
    "evidence.no_directory": "There is no directory.sqlite in the directory's folder.",
    "evidence.no_root": "No root key's thumbprint was given to verify against, and no profile pins one.",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One logged message."""

    log: str  # the log's folder name
    position: int
    instant: int  # microseconds, by the clock of the node that logged it
    direction: str  # sent or received
    code: str  # "ok", or what it was refused with; "sent" for what was sent
    header: Header
    digest: bytes
    authority: Authority | None  # None where its chain is not beside the log or cannot be read
    body: bytes | None  # None where it is absent

    @property
    def accepted(self) -> bool | None:
        """Whether the receiver accepted it; None for what was sent, since only the receiver's log knows."""
        return None if self.direction == "sent" else self.code == ACCEPTED

    @property
    def time(self) -> datetime:
        """When it was logged."""
        return datetime.fromtimestamp(self.instant / 1_000_000, UTC)

    @property
    def sender(self) -> PrincipalId:
        """Who sent it."""
        return parse_id(self.header.sender)

    @property
    def recipient(self) -> PrincipalId:
        """Whom it was for."""
        return parse_id(self.header.recipient)

    @property
    def user(self) -> PrincipalId | None:
        """On whose behalf, where that is a user."""
        return self.authority.user if self.authority else None

    @property
    def action(self) -> str:
        """The message type."""
        return self.header.action

    @property
    def kind(self) -> str:
        """What it is: ``request``, ``reply``, ``error``, ``send``, ``receipt``, ``stream``, ``item`` and so on."""
        return Kind(self.header.kind).name.lower()

    @property
    def asks(self) -> bool:
        """Whether it asks for something, rather than answers or steers."""
        return self.header.kind in OPENING

    @property
    def conversation(self) -> str:
        """The conversation, in hex."""
        return self.header.conversation.hex()

    @property
    def message_id(self) -> str:
        """The message id, in hex."""
        return self.header.message_id.hex()

    @property
    def path(self) -> tuple[PrincipalId, ...]:
        """The chain of principals, from the root's issuer to the holder; who grants to itself is named once."""
        links = self.authority.links if self.authority else ()
        names = (links[0].grant.issuer, *(link.grant.audience for link in links)) if links else ()
        return tuple(name for at, name in enumerate(names) if at == 0 or name != names[at - 1])

    def as_row(self) -> dict[str, Any]:
        """Flat and plain."""
        return {
            "log": self.log,
            "position": self.position,
            "time": self.time.isoformat(),
            "direction": self.direction,
            "accepted": self.accepted,
            "code": self.code,
            "kind": self.kind,
            "action": self.action,
            "sender": str(self.sender),
            "recipient": str(self.recipient),
            "user": str(self.user) if self.user else None,
            "path": " → ".join(who.short for who in self.path),
            "scopes": ", ".join(self.authority.scopes) if self.authority else None,
            "conversation": self.conversation,
            "message_id": self.message_id,
            "digest": b64(self.digest),
            "in_reply_to": b64(self.header.in_reply_to) if self.header.in_reply_to else None,
            "cause": b64(self.header.cause) if self.header.cause else None,
            "body_type": self.header.body_type,
            "body": self.body.decode("utf-8", "replace") if self.body is not None else None,
        }


class Evidence:
    """Logs beside the directory's log and a pinned root key. Make one with :meth:`open`."""

    def __init__(self, logs: Sequence[Path], events: Sequence[bytes], root: bytes) -> None:
        self._paths = tuple(logs)
        self._history = History(events, root)
        self._logs: dict[str, LogFolder] | None = None

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
        raw = root if isinstance(root, bytes) else unb64(root.partition(".")[0], 32)
        for log in logs:
            read_log(Path(log))
        return cls([Path(log) for log in logs], read_events(Path(directory)), raw)

    def verify(self) -> Report:
        """Judge all logs; the report has every verdict of :data:`VERDICTS`."""
        logs = {self._name(path): read_log(path) for path in self._paths}
        reports = {name: Verification(log, self._history).run() for name, log in logs.items()}
        self._logs = logs
        return merge(reports) if reports else Report({})

    def messages(
        self,
        *,
        user: str | None = None,
        agent: str | None = None,
        conversation: str | None = None,
        action: str | None = None,
        accepted: bool | None = None,
    ) -> Iterator[Message]:
        """The messages, log by log in the order they were logged; each filter that is given must hold.

        Args:
            user: On behalf of this user: ``alice``, ``user/alice`` or a full id.
            agent: Sent by or to this principal: a short name or a full id.
            conversation: In hex.
            action: The message type.
            accepted: True or False: received, and accepted or not. None: sent ones too.

        Raises:
            NotVerified: :meth:`verify` did not run.
        """
        if self._logs is None:
            raise NotVerified("evidence.not_verified", "call verify() first, and look at its report")
        domain = self._history.full.domain
        who = name_id(agent, domain) if agent is not None else None
        on_behalf = name_id(user if "/" in user else f"user/{user}", domain) if user is not None else None
        return self._select(self._logs, on_behalf, who, conversation, action, accepted)

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
        if self._logs is None:
            raise NotVerified("evidence.not_verified", "call verify() first, and look at its report")
        return (row for name, log in self._logs.items() for row in _refusals_of(name, log))

    def _select(
        self,
        logs: dict[str, LogFolder],
        user: str | None,
        agent: str | None,
        conversation: str | None,
        action: str | None,
        accepted: bool | None,
    ) -> Iterator[Message]:
        for name, log in logs.items():
            for message in _messages_of(name, log):
                header = message.header
                if (
                    (agent is None or agent in (header.sender, header.recipient))
                    and (conversation is None or message.conversation == conversation)
                    and (action is None or header.action == action)
                    and (accepted is None or message.accepted is accepted)
                    and (user is None or message.user == user)
                ):
                    yield message

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


def read_events(folder: Path) -> list[bytes]:
    """The directory log's statements in order, from ``directory.sqlite``, opened read-only.

    Raises:
        LogError: ``evidence.no_directory``.
    """
    path = folder / "directory.sqlite"
    error: sqlite3.Error | None = None
    for mode in ("mode=ro", "immutable=1"):  # a copy on read-only media cannot make the files that WAL needs
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as db:
                return [bytes(row[0]) for row in db.execute("SELECT statement FROM entries ORDER BY seq")]
        except sqlite3.Error as found:
            error = found
    raise LogError("evidence.no_directory", f"{path}: {error}; name the folder of the directory's data") from error


def _messages_of(name: str, log: LogFolder) -> Iterator[Message]:
    for item in log.entries():
        if not isinstance(item, Numbered):
            continue
        try:
            entry = decode_entry(item.data)
            if not isinstance(entry, Sent | Received):
                continue
            header = decode_header(entry.header, LIMITS)
        except AgentBusError:
            continue  # the report names it
        yield _message(name, log, entry, header)


def _refusals_of(name: str, log: LogFolder) -> Iterator[dict[str, Any]]:
    for item in log.entries():
        try:
            entry = decode_entry(item.data) if isinstance(item, Numbered) else None
        except AgentBusError:
            continue  # the report names it
        if isinstance(entry, Refused):
            yield {
                "log": name,
                "position": entry.position,
                "time": datetime.fromtimestamp(entry.instant / 1_000_000, UTC).isoformat(),
                "connection": b64(entry.connection) if entry.connection else None,
                "code": entry.code,
                "frame": entry.digest.hex(),
            }


def _message(name: str, log: LogFolder, entry: LoggedMessage, header: Header) -> Message:
    chain = log.blob(entry.chain)
    body = log.box(entry.body).data if entry.body is not None else None
    authority: Authority | None = None
    if chain is not None:
        try:
            authority = Authority.from_bytes(chain)
        except AgentBusError:
            authority = None
    return Message(
        log=name,
        position=entry.position,
        instant=entry.instant,
        direction="sent" if isinstance(entry, Sent) else "received",
        code="sent" if isinstance(entry, Sent) else entry.code,
        header=header,
        digest=leaf_hash(entry.header),
        authority=authority,
        body=body[32:] if body is not None else None,
    )
