"""Several processes of one agent: each is an instance of its own, and whoever asks takes them in turn.

The parent serves nothing. It starts them, says when all can be asked, starts one again that dies, and stops them. They
are in sessions of their own, so that Ctrl-C reaches the parent alone, and end with it even where it is killed: each
holds the other end of a pipe.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from agentbus.cli.notify import mark_ready, notify
from agentbus.cli.output import announce
from agentbus.errors import ConfigError

CODES: Final = {
    "config.instances": "Instances need an address each: AGENTBUS_LISTEN ends in :*, AGENTBUS_ADVERTISE is not set.",
}

PAUSE: Final = (1.0, 30.0)  # seconds before a process that died is started again: doubled each time, at most
STEADY: Final = 60.0  # seconds after which a process has lived long enough for the pause to be short again
GRACE: Final = 20.0  # seconds between SIGTERM and SIGKILL: what runs is given ten


class Instances:
    """The processes of one ``agentbus run --instances N``.

    Args:
        arguments: MODULE:AGENT and --as NAME, as they were given.
        count: How many.
        ready_file: Written once all can be asked.

    Raises:
        ConfigError: ``config.instances``.
    """

    def __init__(self, arguments: Sequence[str], count: int, ready_file: Path | None, as_json: bool) -> None:
        listen, advertise = os.environ.get("AGENTBUS_LISTEN", ""), os.environ.get("AGENTBUS_ADVERTISE", "")
        if (listen and not listen.endswith(":*")) or advertise:
            fixed = "AGENTBUS_ADVERTISE" if advertise else "AGENTBUS_LISTEN"
            raise ConfigError("config.instances", f"{fixed} names one address, and {count} processes need one each")
        self._arguments, self._count, self._ready_file, self._as_json = arguments, count, ready_file, as_json
        self._env = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        self._running: dict[int, Process] = {}
        self._ready: set[int] = set()
        self._stop = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Until SIGTERM or SIGINT, or until one cannot be started at all.

        Returns:
            The exit status.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        keepers = [asyncio.create_task(self._keep(number)) for number in range(1, self._count + 1)]
        for keeper in keepers:
            keeper.add_done_callback(lambda _: self._stop.set())  # it ends by itself only where something is wrong
        try:
            await self._stop.wait()
            notify("STOPPING=1")
            broken = [error for keeper in keepers if keeper.done() and (error := keeper.exception()) is not None]
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            await asyncio.gather(*map(_end, self._running.values()))
            if self._ready_file is not None:
                self._ready_file.unlink(missing_ok=True)
        if broken:
            raise broken[0]
        return self._status

    async def _keep(self, number: int) -> None:
        """One instance, for as long as the program runs."""
        loop, pause = asyncio.get_running_loop(), PAUSE[0]
        while True:
            born = loop.time()
            try:
                process, who = await self._start(number)
            except OSError as error:  # no file descriptor, memory or process is to be had now
                status, what = 1, f"cannot be started: {error.strerror or error}"
                if number not in self._ready:
                    announce(f"instance {number} {what}", err=True)
            else:
                if who is not None:
                    self._now_ready(number, who)
                status = await process.wait()
                what = f"ended with status {status}"
            if number not in self._ready:  # what keeps one from starting keeps all: it has said why
                self._status = status or 1
                self._stop.set()
                return
            pause = PAUSE[0] if loop.time() - born > STEADY else pause
            announce(f"instance {number} {what}; it starts again in {pause:g} s", err=True)
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE[1])

    async def _start(self, number: int) -> tuple[Process, str | None]:
        """A process, and whom it serves; None where it ended before it could be asked."""
        command = [sys.executable, "-P", "-m", "agentbus.cli.main", "run", "--until-parent-ends"]
        reader = asyncio.StreamReader()
        reading, writing = os.pipe()
        with ExitStack() as ends:
            try:
                pipe = ends.enter_context(os.fdopen(reading, "rb"))
                transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                    lambda: asyncio.StreamReaderProtocol(reader), pipe
                )
                ends.callback(transport.close)
                process = self._running[number] = await asyncio.create_subprocess_exec(
                    *command, "--ready-file", f"/dev/fd/{writing}", *self._arguments, stdin=PIPE, stdout=DEVNULL,
                    pass_fds=(writing,), env=self._env, start_new_session=True,
                )  # fmt: skip
            finally:
                os.close(writing)
            line = (await reader.readline()).decode().strip()
        return process, line or None

    def _now_ready(self, number: int, who: str) -> None:
        before = len(self._ready)
        self._ready.add(number)
        if len(self._ready) != self._count or before == self._count:
            return
        if self._ready_file is not None:
            mark_ready(self._ready_file, f"{who}\n")
        notify("READY=1")
        if self._as_json:
            announce(json.dumps({"id": who, "instances": self._count, "ready": True}))
        else:
            announce(f"{who} is served by {self._count} processes; stop with Ctrl-C", err=True)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(GRACE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
