"""The function that replays: verify the log, read the record, run it where nothing can leave, say what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, Literal, get_args

from agentbus.audit import read_events
from agentbus.errors import ConfigError, LogError, ProgrammingError
from agentbus.log.history import History
from agentbus.log.read import LogFolder, read_log
from agentbus.log.replay import read_record
from agentbus.log.verify import Verification
from agentbus.replay.compare import Comparator
from agentbus.replay.guard import Guard
from agentbus.replay.pace import PacedLoop, parse_timing
from agentbus.replay.report import ReplayReport
from agentbus.replay.run import Job, run
from agentbus.runtime.agent import Agent
from agentbus.runtime.redaction import BUILT_IN
from agentbus.wire.ids import name_id, unb64

CODES: Final = {
    "log.negative": "A log with a negative verdict is not replayed: what it says may not have happened.",
    "config.mode": "The modes of a replay are stub, live and shadow.",
    "replay.loop": "A replay runs an event loop of its own: call it from a thread that has none.",
}

Mode = Literal["stub", "live", "shadow"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)


def replay(
    log: str | PathLike[str],
    agent: Agent[Any],
    *,
    directory: str | PathLike[str],
    root: str | bytes,
    mode: Mode = "stub",
    timing: str = "instant",
    compare: Comparator | None = None,
    isolated: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayReport:
    """Replay the messages that an agent took, as a node's log has them.

    While it runs in stub or shadow mode, this *process* opens no socket and starts no process: see
    :mod:`agentbus.replay.guard`.

    Args:
        log: The folder of the log of the node that the agent ran on.
        agent: The agent, under the name it had.
        directory: The folder that holds ``directory.sqlite``.
        root: The root key's thumbprint, in base64url or raw.
        mode: ``stub``: the recorded results go in, and answers must be the same bytes. ``shadow``: the same for another
            version of the agent, which may take more or less of time, randomness and steps. ``live``: steps are called
            again; other agents still answer as recorded.
        timing: ``instant``, ``original`` or ``xN``.
        compare: In live and shadow mode, whether two bodies that are not the same bytes mean the same.
        isolated: Whether this process was cut off by :func:`agentbus.replay.guard.isolate`; for the report.
        progress: Called with how many messages are done, of how many.

    Raises:
        LogError: ``log.negative``: a verdict on the log is negative. ``log.missing``, ``evidence.no_directory``.
        ConfigError: ``config.mode``, ``config.timing``.
        ProgrammingError: ``replay.loop``.
    """
    if mode not in MODES:
        raise ConfigError("config.mode", f"{mode!r}: write stub, live or shadow")
    factor = parse_timing(timing)
    require_no_loop()
    raw = root if isinstance(root, bytes) else unb64(root.partition(".")[0], 32)
    folder, events = read_log(Path(log)), read_events(Path(directory))
    require_good(folder, History(events, raw))
    history = History(events, raw)
    who = name_id(agent.name, history.full.domain)
    messages = read_record(folder, who, apart=BUILT_IN)
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(messages))

    guard = Guard()
    job = Job(folder, history, agent, who, messages, mode, factor, compare, lru_cache(256)(folder.box), one_more, guard)
    virtual = mode != "live" and factor is None
    with (
        guard if mode != "live" else nullcontext(),
        asyncio.Runner(loop_factory=lambda: PacedLoop(None if virtual else factor or 1.0)) as runner,
    ):
        results = runner.run(run(job))
    egress = "open" if mode == "live" else "namespace" if isolated else "guard"
    return ReplayReport(who, fspath(log), mode, timing, egress, results)


def require_good(log: LogFolder, history: History) -> None:
    """Return when no verdict on a log is negative.

    Raises:
        LogError: ``log.negative``.
    """
    report = Verification(log, history).run()
    bad = [name for name, verdict in report.items() if verdict.ok is False]
    if bad:
        first = report[bad[0]].problems[0] if report[bad[0]].problems else ""
        raise LogError(
            "log.negative", f"{log.folder}: {', '.join(bad)} is negative ({first}); `agentbus log verify` says why"
        )


def require_no_loop() -> None:
    """Return where no event loop runs.

    Raises:
        ProgrammingError: ``replay.loop``.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ProgrammingError("replay.loop", CODES["replay.loop"])
