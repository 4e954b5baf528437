"""Messages as an auditor reads them out of a log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentbus.crypto.merkle import leaf_hash
from agentbus.delegation.chain import Authority
from agentbus.errors import AgentBusError
from agentbus.log.boxes import NO_BOX
from agentbus.log.entry import ACCEPTED, Refused, Sent
from agentbus.log.entry import Message as LoggedMessage
from agentbus.log.read import LogFolder
from agentbus.log.report import moment
from agentbus.log.scanning import Unit
from agentbus.protocol.sealing import commit_body
from agentbus.wire.header import OPENING, Header, Kind
from agentbus.wire.ids import PrincipalId, b64, parse_id


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
    erased: bool = False  # its body was erased on purpose

    @property
    def accepted(self) -> bool | None:
        """Whether the receiver accepted it; None for what was sent, since only the receiver's log knows."""
        return None if self.direction == "sent" else self.code == ACCEPTED

    @property
    def time(self) -> datetime:
        """When it was logged."""
        return moment(self.instant)

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


def messages_of(name: str, log: LogFolder, unit: Unit | None = None) -> Iterator[Message]:
    """The messages of a log, or of one part, in the order they were logged; what cannot be read is left out."""
    return (message_of(name, log, entry, header) for entry, header in log.messages(unit))


def refusals_of(name: str, log: LogFolder) -> Iterator[dict[str, Any]]:
    """Frames that were refused before anybody's signature had verified."""
    for entry in log.decoded():
        if isinstance(entry, Refused):
            yield {
                "log": name,
                "position": entry.position,
                "time": moment(entry.instant).isoformat(),
                "connection": b64(entry.connection) if entry.connection else None,
                "code": entry.code,
                "frame": entry.digest.hex(),
            }


def message_of(name: str, log: LogFolder, entry: LoggedMessage, header: Header) -> Message:
    """A message with its chain and body, as far as they are those that its sender signed.

    Of what was refused, a log names what came, or what its owner likes: nobody is to read that under a sender's name.
    """
    chain = log.blob(entry.chain)
    box = log.box(entry.body) if entry.body is not None else NO_BOX
    authority: Authority | None = None
    if chain is not None and entry.chain == header.chain_digest:
        try:
            authority = Authority.from_bytes(chain)
        except AgentBusError:
            authority = None
    body = box.data
    if body is not None and commit_body(body[:32], body[32:]) != header.body_commitment:
        body = None
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
        erased=box.erased,
    )
