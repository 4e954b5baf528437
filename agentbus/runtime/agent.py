"""An agent as users write it: a name, and handlers by message type. It holds no key and no socket."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, overload

from pydantic import BaseModel
from typing_extensions import TypeVar

from agentbus.delegation.decide import Rule
from agentbus.errors import ProgrammingError
from agentbus.runtime.message import Request, StreamRequest, answer_type, type_of
from agentbus.wire.ids import check_scope_name, name_id

if TYPE_CHECKING:
    from agentbus.runtime.caller import Caller

CODES: Final = {
    "usage.handler": "A handler is `async def handler(request: MyRequest, ctx: Context) -> MyReply`.",
    "usage.concurrency": "How many of a handler may run at once is a whole number, and at least 1.",
    "usage.handler_twice": "One agent has two handlers for one message type.",
}

S = TypeVar("S", default=Any)
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered handler."""

    function: Callable[..., Any]
    model: type[BaseModel]
    answer: Any  # the reply's or item's type; None for a plain message
    streams: bool
    rule: Rule
    concurrency: int
    idempotent: bool

    @property
    def action(self) -> str:
        """The message type it handles."""
        return type_of(self.model)


class Agent(Generic[S]):
    """A name and its handlers.

    Args:
        name: Its short name within the trust domain.
        description: For discovery; one line.
        lifespan: ``async with lifespan(bus) as state``: runs around serving; handlers see ``ctx.state``.
        erasure: Who may have the body of a message erased that this agent sent or received: itself and its ``owner``,
            or each of the two ``parties``, the other one too. Headers, chains and commitments always stay.
        replayable: Its handlers keep nothing between messages but what they take through their context, so that they
            can be replayed one at a time although they overlapped.
    """

    def __init__(
        self,
        name: str,
        *,
        description: str = "",
        lifespan: Callable[[Caller], AbstractAsyncContextManager[S]] | None = None,
        replayable: bool = False,
        erasure: Literal["owner", "parties"] = "owner",
    ) -> None:
        name_id(name, "any.domain")  # a name that is none is found where it is written
        self.name = name
        self.description = description
        self.lifespan = lifespan
        self.replayable = replayable
        self.erasure = erasure
        self.handlers: dict[str, Handler] = {}

    @overload
    def handler(self, function: F) -> F: ...
    @overload
    def handler(
        self,
        *,
        scopes: Sequence[str] = (),
        concurrency: int = 64,
        idempotent: bool = False,
        requires_user: bool = False,
    ) -> Callable[[F], F]: ...
    def handler(
        self,
        function: Any = None,
        *,
        scopes: Sequence[str] = (),
        concurrency: int = 64,
        idempotent: bool = False,
        requires_user: bool = False,
    ) -> Any:
        """Register a handler; the function is returned unchanged, and bound methods are fine.

        Its annotations say what it answers. A ``Request[Reply]`` is answered by ``async def handler(request: MyRequest,
        ctx: Context) -> Reply``; a ``StreamRequest[Item]`` by one that yields, with ``-> AsyncIterator[Item]``; any
        other model is taken by ``send`` only, with ``-> None``.

        Args:
            function: What ``@agent.handler`` without brackets is put on.
            scopes: What a caller's whole chain must grant. None: anyone whose chain names this agent as a target.
            concurrency: How many may run at once; others wait, within their deadlines.
            idempotent: That running it twice does no harm. It is meant for jobs, which do not exist yet, and changes
                nothing today: a handler runs once for each message.
            requires_user: Refuse chains that do not begin with a user.

        Returns:
            The function; with brackets, the decorator.

        Raises:
            ProgrammingError: ``usage.handler``, ``usage.handler_twice``, ``usage.no_reply_type``, ``usage.type``,
                ``usage.concurrency``, ``usage.scope``.
        """
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ProgrammingError("usage.concurrency", f"concurrency={concurrency!r}: a whole number, and at least 1")
        if isinstance(scopes, str):
            raise ProgrammingError("usage.scope", f"scopes are a list: scopes=[{scopes!r}]")
        rule = Rule(tuple(map(check_scope_name, scopes)), requires_user)
        outer = sys._getframe(1).f_locals

        def register(function: F) -> F:
            made = _inspect(function, rule, concurrency, idempotent, outer)
            if made.action in self.handlers:
                raise ProgrammingError("usage.handler_twice", f"{self.name} has two handlers for {made.action}")
            self.handlers[made.action] = made
            return function

        return register if function is None else register(function)

    def run(self) -> None:
        """Serve this agent until SIGTERM: URL, identity and addresses come from the environment and the profile.

        Raises:
            ConfigError: No bus is known, or a setting cannot be used. KeyFileError: The agent has no key file here.
            Unavailable: The directory cannot be reached. LogError: The log failed.
        """
        import_module("agentbus.bus.opening").run_agent(self)  # by name: the bus stands above this module

    def __repr__(self) -> str:
        return f"Agent({self.name!r}, {sorted(self.handlers)})"


_NOT_SAID: Final = object()


def _inspect(function: Callable[..., Any], rule: Rule, concurrency: int, idempotent: bool, outer: Any) -> Handler:
    name = getattr(function, "__qualname__", repr(function))
    plain = function.__func__ if isinstance(function, types.MethodType) else function
    try:
        hints = typing.get_type_hints(plain, localns=dict(outer))
    except NameError as error:
        raise ProgrammingError("usage.handler", f"{name}: {error}; annotations must be importable") from error
    parameters = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(parameters) != 2:
        raise _wrong(name, f"takes {len(parameters)} argument{'s' * (len(parameters) != 1)} and not two")
    model = hints.get(parameters[0].name)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        said = f"is {_named(model)}, which is no pydantic model" if model is not None else "has no annotation"
        raise _wrong(name, f"cannot be given a message: its {parameters[0].name!r} {said}")
    returns = hints.get("return", _NOT_SAID)
    streams = inspect.isasyncgenfunction(plain)
    if streams:
        return _stream(function, model, returns, name, rule, concurrency, idempotent)
    if not inspect.iscoroutinefunction(plain):
        raise _wrong(name, "is not async")
    answer = answer_type(model) if issubclass(model, Request) else None
    if issubclass(model, StreamRequest):
        raise ProgrammingError("usage.handler", f"{name}: {model.__name__} is answered by a stream: use `yield`")
    if returns is _NOT_SAID and answer is None:
        returns = type(None)
    if (answer or type(None)) != returns:
        wanted = f"answered by {_named(answer)}" if answer else "no Request: nothing answers it"
        todo = f"write `-> {_named(answer)}`" if answer else "write `-> None`"
        does = "does not say what it returns" if returns is _NOT_SAID else f"returns {_named(returns)}"
        raise ProgrammingError("usage.handler", f"{name} {does}; {model.__name__} is {wanted}: {todo}")
    return Handler(function, model, answer, False, rule, concurrency, idempotent)


def _stream(
    function: Callable[..., Any],
    model: type[BaseModel],
    returns: Any,
    name: str,
    rule: Rule,
    concurrency: int,
    again: bool,
) -> Handler:
    if not issubclass(model, StreamRequest):
        raise ProgrammingError("usage.handler", f"{name} yields, so {model.__name__} must be a StreamRequest")
    item = answer_type(model)
    arguments = typing.get_args(returns)  # of AsyncIterator[Item] or AsyncGenerator[Item, None]
    if not arguments or arguments[0] != item:
        does = "does not say what it yields" if returns is _NOT_SAID else f"says that it yields {_named(returns)}"
        todo = f"write `-> AsyncIterator[{_named(item)}]`"
        raise ProgrammingError(
            "usage.handler", f"{name} {does}; {model.__name__} is answered by items of {_named(item)}: {todo}"
        )
    return Handler(function, model, item, True, rule, concurrency, again)


def _wrong(name: str, what: str) -> ProgrammingError:
    return ProgrammingError("usage.handler", f"{name} {what}. {CODES['usage.handler']}")


def _named(of: Any) -> str:
    if of is type(None):
        return "nothing"
    return str(of) if typing.get_args(of) else getattr(of, "__name__", str(of))
