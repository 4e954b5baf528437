"""What the logs say, put together for reading: each message once, by conversation, in the order of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from agentbus.audit.message import Message

ANSWERS = frozenset({"reply", "error", "receipt", "item", "end", "progress", "credit", "cancel"})


@dataclass
class Told:
    """One message, as one or both of its parties logged it."""

    message: Message
    sent: int | None = None  # microseconds, by its sender's clock
    received: int | None = None
    codes: list[str] = field(default_factory=list)  # of those who judged it
    logs: list[str] = field(default_factory=list)
    depth: int = 0

    @property
    def instant(self) -> int:
        """When it was first logged."""
        return min(one for one in (self.sent, self.received) if one is not None)

    @property
    def refused(self) -> str | None:
        """The code it was refused with, if somebody refused it."""
        return next((code for code in self.codes if code != "ok"), None)

    @property
    def state(self) -> str:
        """``ok``, ``refused``, or ``open``: nobody's log that is here says what became of it."""
        return "refused" if self.refused else "ok" if self.codes else "open"


@dataclass
class Conversation:
    """Everything that one question caused."""

    id: str
    told: list[Told]

    @property
    def start(self) -> int:
        """When it began."""
        return self.told[0].instant

    @property
    def end(self) -> int:
        """When it was last heard of."""
        return max(max(one.instant, one.received or 0) for one in self.told)

    @property
    def user(self) -> str:
        """On whose behalf it began; empty where an agent speaks for itself."""
        found = next((one.message.user for one in self.told if one.message.user and not one.refused), None)
        return found.short if found else ""

    @property
    def people(self) -> list[str]:
        """Who takes part, in the order of their first words."""
        names: dict[str, None] = {}
        for one in self.told:
            names.setdefault(one.message.sender.short)
            names.setdefault(one.message.recipient.short)
        return list(names)

    @property
    def refused(self) -> int:
        """How many messages were refused."""
        return sum(one.refused is not None for one in self.told)


def tell(messages: Iterable[Message]) -> list[Conversation]:
    """Put messages together: what two logs say of one becomes one, and what one question caused becomes one story."""
    found: dict[bytes, Told] = {}
    for message in messages:
        one = found.setdefault(message.digest, Told(message))
        one.logs.append(message.log)
        if message.direction == "sent":
            one.sent = message.instant
        else:
            one.received = message.instant
            one.codes.append(message.code)
        if one.message.body is None and message.body is not None:
            one.message = message
    stories: dict[str, list[Told]] = {}
    for one in found.values():
        stories.setdefault(one.message.conversation, []).append(one)
        one.depth = _depth(one, found)
    made = [Conversation(name, sorted(told, key=_order)) for name, told in stories.items()]
    return sorted(made, key=lambda story: story.start)


def _order(one: Told) -> tuple[int, int]:
    return one.instant, one.message.header.kind


def _depth(one: Told, found: dict[bytes, Told]) -> int:
    """How many questions lie above this message."""
    depth, seen = 0, set()
    at: Told | None = one
    while at is not None and at.message.digest not in seen and depth < 20:
        seen.add(at.message.digest)
        header = at.message.header
        if header.in_reply_to is not None:
            at = found.get(header.in_reply_to)
            continue
        at = found.get(header.cause) if header.cause is not None else None
        depth += at is not None
    return depth


def edges(stories: Iterable[Conversation]) -> Counter[tuple[str, str, bool]]:
    """How often who asked whom, and whether it was refused."""
    count: Counter[tuple[str, str, bool]] = Counter()
    for story in stories:
        for one in story.told:
            if one.message.asks:
                count[one.message.sender.short, one.message.recipient.short, one.refused is not None] += 1
    return count
