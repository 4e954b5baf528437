"""Agents out of files that somebody is writing at this moment.

A file is imported in a thread of its own: one that asks something itself (``asyncio.run(main())`` at its end) works as
it does under ``python FILE``, and one that never ends stops nothing else. What it loaded is forgotten before it is
loaded again, so that a change in a module it imports counts, too.
"""

from __future__ import annotations

import asyncio
import importlib
import linecache
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentbus.cli.target import explain, foreign
from agentbus.errors import ConfigError
from agentbus.runtime.agent import Agent


@dataclass(frozen=True, slots=True)
class Target:
    """FILE or FILE:AGENT."""

    path: Path
    agent: str | None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read FILE[:AGENT].

        Raises:
            ConfigError: ``config.target``: there is no such file.
        """
        name, _, agent = text.partition(":")
        path = Path(name).resolve()
        if not path.is_file():
            raise ConfigError(
                "config.target", f"there is no file {name}; name one such as hello.py or hello.py:planner"
            )
        if path.suffix != ".py" or "." in path.stem:
            raise ConfigError(
                "config.target", f"{name} is no Python module: its name is letters, digits and _, then .py"
            )
        return cls(path, agent or None)

    @property
    def root(self) -> Path:
        """The folder that ``import`` starts from: above the packages that the file is in."""
        folder = self.path.parent
        while (folder / "__init__.py").exists():
            folder = folder.parent
        return folder

    @property
    def module(self) -> str:
        """The module's name, seen from :attr:`root`."""
        return ".".join(self.path.relative_to(self.root).with_suffix("").parts)


class Broken(Exception):
    """A file that cannot be served as it is. Its text is for the person who is writing it."""

    def __init__(self, text: str, files: Iterable[Path] = ()) -> None:
        super().__init__(text)
        self.files = frozenset(files)  # where the fault may be mended


async def load(targets: Sequence[Target]) -> list[Agent[Any]]:
    """The agents of all files, as the files are now.

    Raises:
        Broken: a file raises, or names no agent.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[Agent[Any]]] = loop.create_future()

    def settle(agents: list[Agent[Any]], error: Broken | None) -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(agents)

    def work() -> None:
        agents: list[Agent[Any]] = []
        error: Broken | None = None
        try:
            agents = _load_all(targets)
        except Broken as found:
            error = found
        except BaseException as found:
            text, files = explain(found)
            error = Broken(text, files)
        loop.call_soon_threadsafe(settle, agents, error)

    threading.Thread(target=work, name="load", daemon=True).start()
    return await done


def files_of(targets: Sequence[Target]) -> set[Path]:
    """The files themselves, and what they imported from their own folders."""
    loaded = (getattr(sys.modules[name], "__file__", "") for name in _loaded(targets))
    return {target.path for target in targets} | {Path(path) for path in loaded if path.endswith(".py")}


def _loaded(targets: Sequence[Target]) -> list[str]:
    """The modules that came from the files' own folders, and not from a library that happens to lie there."""
    roots = tuple(f"{target.root}/" for target in targets)
    paths = {name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
    return [name for name, path in paths.items() if path.startswith(roots) and not foreign(path)]


def _load_all(targets: Sequence[Target]) -> list[Agent[Any]]:
    for name in _loaded(targets):
        del sys.modules[name]
    importlib.invalidate_caches()
    linecache.checkcache()
    found: dict[int, Agent[Any]] = {}
    for target in targets:
        if str(target.root) not in sys.path:
            sys.path.insert(0, str(target.root))
        module = importlib.import_module(target.module)
        if Path(module.__file__ or "").resolve() != target.path:
            raise Broken(f"{target.path.name} hides behind the module {target.module}, which has that name; rename it")
        found |= {id(agent): agent for agent in _agents(target, vars(module))}
    return list(found.values())


def _agents(target: Target, names: dict[str, Any]) -> list[Agent[Any]]:
    agents = {name: value for name, value in names.items() if isinstance(value, Agent)}
    if target.agent is None and agents:
        return list(agents.values())
    if target.agent in agents:
        return [agents[target.agent]]
    wanted = f" called {target.agent!r}; it has {', '.join(agents) or 'none'}" if target.agent else ""
    raise Broken(f'{target.path.name} has no Agent{wanted}; write one such as: planner = Agent("planner")')
