"""A log that is followed while it is written: each look reads what is new, and each message is judged as it comes.

Rule 1: what was read stays read, counted and indexed: a look costs what was written since the last one.
Rule 2: another log in the same place is shown from its beginning, and so is one that is shorter than it was.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentbus.audit.message import Message, message_of
from agentbus.crypto.merkle import leaf_hash
from agentbus.log.history import History, Statements
from agentbus.log.judge import Judge
from agentbus.log.read import LogFolder
from agentbus.log.scanning import extents_of
from agentbus.log.sweep import statement_blobs


class Followed:
    """One log, and how far it was shown.

    Args:
        name: In reports.
        log: As it was verified.
    """

    def __init__(self, name: str, log: LogFolder) -> None:
        self._name, self.log = name, log
        self._shown = log.size
        self._looked: list[int] = []
        self._statements: tuple[History, Statements, int] | None = None  # under which, and of how many blobs

    def look(self) -> bool:
        """Whether there is more than was shown."""
        now = extents_of(self.log.folder)
        if not now or now == self._looked:
            return False
        before, self._looked, self.log = self.log, now, self.log.grown()
        if self.log.born != before.born or self.log.size < self._shown:
            self._shown, self._statements = 0, None
        return self.log.size > self._shown

    def news(self, history: History) -> Iterator[tuple[Message, str]]:
        """The messages that were not shown yet, each with what is wrong with it.

        Args:
            history: The directory, read after :meth:`look`.
        """
        judge = Judge(self.log, history, self._known(history))
        for entry, header in self.log.messages(start=self._shown):
            judge.begin()
            judge.message(entry, header, leaf_hash(entry.header))
            problems = [text for tally in judge.take().values() for text in tally.verdict().problems]
            yield message_of(self._name, self.log, entry, header), "; ".join(problems)
        self._shown = self.log.size

    def _known(self, history: History) -> Statements:
        """The instance statements beside the log, each looked at once under one history."""
        known = self._statements
        if known is None or known[0] is not history:
            known = (history, Statements((), history), 0)
        statements, read = known[1], known[2]
        statements.add(statement_blobs(self.log, read))
        self._statements = (history, statements, len(self.log.statements))
        return statements
