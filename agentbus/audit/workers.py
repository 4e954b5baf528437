"""Reading the parts of a log in several processes.

Rule 1: a worker is ``python -m agentbus.audit.worker`` and speaks over its own pipes: nothing of the caller's program
is imported or forked into it, whatever that program is.
Rule 2: parts are handed out in order to whoever is free and put together in order; few wait at any time.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any, Final

from agentbus.errors import LogError
from agentbus.log.part import Part
from agentbus.log.read import LogFolder
from agentbus.log.scanning import Unit

CODES: Final = {
    "evidence.worker": "A process that read a part of a log died; is there memory enough? Verify with fewer at once.",
}

WORTH: Final = 16 * 1024 * 1024
"""Bytes of entries from which on starting processes pays."""


class Workers:
    """Processes that read parts of logs; use it in a ``with``.

    Args:
        count: How many.
        events: The directory's log.
        root: The pinned root key's thumbprint.
    """

    def __init__(self, count: int, events: Sequence[bytes], root: bytes) -> None:
        self._job = pickle.dumps((list(events), root))
        self._processes = [_start() for _ in range(count)]
        self._free = deque(self._processes)
        self._pool = ThreadPoolExecutor(count)

    def __enter__(self) -> Workers:
        for process in self._processes:
            assert process.stdin is not None
            write_message(process.stdin, self._job)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def index(self, log: LogFolder) -> None:
        """Have the blobs and boxes of a log indexed, each segment by whoever is free; its entries are counted, too.

        Raises:
            LogError: ``evidence.worker``.
        """
        self._everybody("open", log)
        parts = log.to_index()
        pieces = [self._pool.submit(self._one, ("index", part)) for part in parts]
        log.outline()  # meanwhile
        log.adopt((part, piece.result()) for part, piece in zip(parts, pieces, strict=True))

    def read(self, log: LogFolder, units: Sequence[Unit], sizes: Sequence[int]) -> Iterator[Part]:
        """The parts of a log, in order.

        Args:
            log: Which; it has its index.
            units: The parts.
            sizes: At which roots are wanted.

        Raises:
            LogError: ``evidence.worker``.
        """
        self._everybody("open", log)
        for part, piece in zip(log.to_index(), log.pieces, strict=True):
            self._everybody("take", part, piece)
        self._everybody("begin", sizes)
        waiting: deque[Future[Part]] = deque()
        todo = deque(units)
        while todo or waiting:
            while todo and len(waiting) < 2 * len(self._processes):
                waiting.append(self._pool.submit(self._one, ("read", todo.popleft())))
            yield waiting.popleft().result()

    def _one(self, question: tuple[Any, ...]) -> Any:
        process = self._free.popleft()  # as many threads as processes: one is always free
        answer = _ask(process, pickle.dumps(question))
        self._free.append(process)
        return answer

    def _everybody(self, *question: Any) -> None:
        """Tell all of them; nobody is at work meanwhile."""
        data = pickle.dumps(question)
        for process in self._processes:
            _ask(process, data)


def _ask(process: subprocess.Popen[bytes], question: bytes) -> Any:
    assert process.stdin is not None and process.stdout is not None
    try:
        write_message(process.stdin, question)
        return pickle.loads(read_message(process.stdout))
    except (OSError, EOFError) as error:
        raise LogError("evidence.worker", CODES["evidence.worker"]) from error


def _start() -> subprocess.Popen[bytes]:
    # -P: the folder that somebody stands in may be the evidence itself, and nothing there is to be imported
    command = [sys.executable, "-P", "-m", "agentbus.audit.worker"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def write_message(pipe: IO[bytes], data: bytes) -> None:
    """One message: eight bytes of length, then it."""
    pipe.write(len(data).to_bytes(8, "big"))
    pipe.write(data)
    pipe.flush()


def read_message(pipe: IO[bytes]) -> bytes:
    """One message.

    Raises:
        EOFError: the other side has closed.
    """
    head = pipe.read(8)
    data = pipe.read(int.from_bytes(head, "big")) if len(head) == 8 else b""
    if len(head) != 8 or len(data) != int.from_bytes(head, "big"):
        raise EOFError
    return data


def processors() -> int:
    """How many processes may run at once here."""
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


Progress = Callable[[int, int], Any]
"""(entries read so far, entries in all) → anything."""
