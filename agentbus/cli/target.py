"""MODULE:AGENT: what a person wrote, found and imported; what is wrong with it, as its author needs to see it."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentbus.errors import ConfigError

if TYPE_CHECKING:
    from traceback import TracebackException

    from agentbus.runtime.agent import Agent

CODES: Final = {
    "config.target": "MODULE:AGENT names a module that can be imported here and an Agent in it; FILE:AGENT a file.",
}

_OURS: Final = f"{Path(__file__).resolve().parents[1]}/"  # the package, whose frames tell a user nothing


def load_agent(target: str) -> Agent[Any]:
    """The Agent that MODULE:AGENT names; modules of the working folder count.

    Raises:
        ConfigError: ``config.target``.
    """
    from agentbus.runtime.agent import Agent

    name, colon, attribute = target.partition(":")
    if not colon or not name or name.endswith(".py"):
        raise ConfigError("config.target", f"{target!r} is no MODULE:AGENT such as hello:planner")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    found = getattr(_import(name), attribute, None)
    if not isinstance(found, Agent):
        names = [key for key, value in vars(sys.modules[name]).items() if isinstance(value, Agent)]
        has = f"it has {', '.join(names)}" if names else 'write one such as: planner = Agent("planner")'
        raise ConfigError("config.target", f"{name} has no Agent {attribute!r}; {has}")
    return found


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            where = f"no module {name} in {Path.cwd()} or installed; go to its folder, or install it"
            raise ConfigError("config.target", where) from error
        raise ConfigError("config.target", f"{name} needs the module {error.name}, which is not installed") from error
    except Exception as error:
        place = _place(error)
        what = f"{place + ': ' if place else ''}{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError("config.target", f"{name} cannot be imported: {what}; mend it and run it again") from error


def _place(error: BaseException) -> str:
    """Where its author has to look."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}"
    from traceback import TracebackException

    frames = [frame for frame in TracebackException.from_exception(error).stack if not foreign(frame.filename)]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


def explain(error: BaseException) -> tuple[str, frozenset[Path]]:
    """The traceback as its author would see it, without frames of the import system's or of ours.

    Returns:
        The text, and the files in which the fault may be mended.
    """
    from traceback import StackSummary, TracebackException

    shown = TracebackException.from_exception(error)
    files = {Path(error.filename)} if isinstance(error, SyntaxError) and error.filename else set()
    part: TracebackException | None = shown
    while part is not None:
        theirs = [frame for frame in part.stack if not _ours(frame.filename)]
        files |= {Path(frame.filename) for frame in theirs if not foreign(frame.filename)}
        part.stack = StackSummary.from_list(theirs)
        part = part.__cause__ or part.__context__
    return "".join(shown.format()).rstrip(), frozenset(files)


def foreign(filename: str) -> bool:
    """Whether somebody else than the user wrote this file."""
    return _ours(filename) or filename.startswith(("<", *_libraries())) or "/site-packages/" in filename


def _ours(filename: str) -> bool:
    """Whether a frame belongs to what loads the user's file."""
    import threading

    return filename.startswith(("<frozen", _OURS)) or filename in (threading.__file__, importlib.__file__)


@cache
def _libraries() -> tuple[str, ...]:
    import sysconfig

    return tuple(f"{path}/" for path in sysconfig.get_paths().values())
