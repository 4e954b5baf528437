"""Every exception agentbus raises, on one page, grouped by who has to act.

::

    AgentBusError                      code, retryable, details
    ├── ConfigError         ValueError         you: a URL, profile, option or environment variable
    ├── KeyFileError        ValueError         you: a key file is missing, readable by others or damaged
    ├── InvalidKey          ValueError         whoever made the key: it is weak or is no key
    ├── BadSignature                           whoever signed: the bytes or the key are not the ones signed
    ├── Malformed           ValueError         whoever sent it: these bytes are no frame, header or statement
    ├── Rejected            PermissionError    whoever sent it: a step of verification failed
    ├── Denied              PermissionError    whoever granted: verified, but not within what was granted
    ├── DirectoryRefused    PermissionError    the operator: the directory's rules forbid this change
    ├── AgentNotFound       LookupError        you: nobody of this name in the trust domain
    ├── AgentGone           ConnectionError    its operator: it is known and not running, or died meanwhile
    ├── HandlerMissing      LookupError        you: the agent runs and has no handler for this type
    ├── HandlerFailed                          the agent's author: the handler raised
    ├── RequestInvalid      ValueError         you: the body does not fit the message type
    ├── ReplyInvalid        ValueError         the agent's author: the reply does not fit its type
    ├── DeadlineExceeded    TimeoutError       nobody, or a longer timeout
    ├── Cancelled                              the caller cancelled
    ├── Backpressure        ConnectionError    wait: a bounded queue is full
    ├── Unavailable         ConnectionError    wait: the directory or the connection will come back
    ├── StreamBroken        ConnectionError    a stream ended without its end
    ├── LogError            OSError            the operator: the log's disk or its bytes
    ├── NotVerified         RuntimeError       you: call ``verify()`` first
    ├── ProgrammingError    TypeError          you: agentbus is used wrongly, found before anything is sent
    └── Problem                                an application's own error, carried to the caller

Each check has its own stable ``code`` (``reject.grant_widens``); the tables stand beside the checks, as ``CODES``, and
the reference page is generated from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class AgentBusError(Exception):
    """The root of every error raised here.

    Args:
        code: Stable, dotted, lower-case: what programs compare.
        message: One line for people: what, why, what to do. Never a secret, a body or a traceback.
        retryable: Whether the same call can succeed later without anybody changing anything.
        details: Facts for programs; plain JSON values only, because errors travel.
    """

    default_code: ClassVar[str] = "error"
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        code: str | None = None,
        message: str = "",
        *,
        retryable: bool | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.code: str = code or self.default_code
        self.message = message
        self.retryable = self.default_retryable if retryable is None else retryable
        self.details: dict[str, Any] = dict(details or {})
        self.about: Any = None  # the authenticated header this error is about, where verification got that far
        self.digest: bytes | None = None  # and that message's digest
        super().__init__(self.code, message)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class ConfigError(AgentBusError, ValueError):
    """The configuration cannot be used."""

    default_code = "config.invalid"


class KeyFileError(AgentBusError, ValueError):
    """A key file cannot be used."""

    default_code = "key.file"


class InvalidKey(AgentBusError, ValueError):
    """These bytes must never be used as a key."""

    default_code = "key.invalid"


class BadSignature(AgentBusError):
    """A signature does not verify."""

    default_code = "key.bad_signature"


class Malformed(AgentBusError, ValueError):
    """These bytes are not what they have to be; nothing in them was believed."""

    default_code = "malformed"


class Rejected(AgentBusError, PermissionError):
    """A step of verification failed. ``details["by"]`` tells who rejected, where it was a peer."""

    default_code = "reject"


class Denied(AgentBusError, PermissionError):
    """Verified, but not allowed. ``details`` names the failing link, scope or policy and what would allow it."""

    default_code = "denied"

    def __str__(self) -> str:
        allow = self.details.get("allow")
        return f"{super().__str__()}; would allow it: {allow}" if allow else super().__str__()


class DirectoryRefused(AgentBusError, PermissionError):
    """The directory's rules forbid this change."""

    default_code = "directory.refused"


class AgentNotFound(AgentBusError, LookupError):
    """Nobody of this name is in the trust domain."""

    default_code = "agent.not_found"


class AgentGone(AgentBusError, ConnectionError):
    """The agent is enrolled, and is not running or died before it answered."""

    default_code = "agent.gone"
    default_retryable = True


class HandlerMissing(AgentBusError, LookupError):
    """The agent has no handler for this message type."""

    default_code = "handler.missing"


class HandlerFailed(AgentBusError):
    """The handler raised something that is not a :class:`Problem`. It carries no text: that could leak."""

    default_code = "handler.failed"


class RequestInvalid(AgentBusError, ValueError):
    """The body does not fit the message type or a frame; ``details["errors"]`` is pydantic's list, without inputs."""

    default_code = "request.invalid"


class ReplyInvalid(AgentBusError, ValueError):
    """The reply does not fit the type that the request names, or one frame."""

    default_code = "reply.invalid"


class DeadlineExceeded(AgentBusError, TimeoutError):
    """No answer within the time the caller gave."""

    default_code = "deadline.exceeded"
    default_retryable = True


class Cancelled(AgentBusError):
    """The caller cancelled the exchange."""

    default_code = "cancelled"


class Backpressure(AgentBusError, ConnectionError):
    """A bounded queue is full; nothing was sent."""

    default_code = "backpressure"
    default_retryable = True


class Unavailable(AgentBusError, ConnectionError):
    """Something needed to decide or to deliver is out of reach for now."""

    default_code = "unavailable"
    default_retryable = True


class StreamBroken(AgentBusError, ConnectionError):
    """A stream stopped without its end."""

    default_code = "stream.broken"
    default_retryable = True


class LogError(AgentBusError, OSError):
    """The log cannot be written or read safely."""

    default_code = "log.error"

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class NotVerified(AgentBusError, RuntimeError):
    """Evidence is read before it was verified."""

    default_code = "evidence.not_verified"


class ProgrammingError(AgentBusError, TypeError):
    """agentbus is used wrongly; found before anything was sent."""

    default_code = "usage"


class Problem(AgentBusError):
    """The base of an application's own errors: ``class OutOfStock(Problem): code = "shop.out_of_stock"``.

    It is sent as its code, message and details, and raised at the caller as the class *that* process has for the code;
    a class is never named on the wire.

    Args:
        message: One line for the caller.
        details: Facts for the caller's program; plain JSON values.
    """

    code: str = "problem"

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(type(self).code, message, details=details)

    @staticmethod
    def of(code: str, message: str, details: Mapping[str, Any]) -> Problem:
        """The problem this process knows under ``code``, else a plain :class:`Problem` that carries it."""
        todo: list[type[Problem]] = [Problem]
        while todo:
            cls = todo.pop()
            if cls.code == code and cls is not Problem:
                break
            todo.extend(cls.__subclasses__())
        else:
            cls = Problem
        found = cls.__new__(cls)  # not __init__: its arguments are the application's, and details are a peer's
        AgentBusError.__init__(found, code, message, details=details)
        return found


def subclasses(of: type[AgentBusError] = AgentBusError) -> dict[str, type[AgentBusError]]:
    """The classes on this page by name; an application's own problems are not among them."""
    return {c.__name__: c for c in of.__subclasses__() if c.__module__ == __name__}


_BY_CODE: dict[str, type[AgentBusError]] = {
    "agent": AgentGone,
    "deadline": DeadlineExceeded,
    "request": RequestInvalid,
    "reply": ReplyInvalid,
    "config": ConfigError,
    "key": KeyFileError,
    "log": LogError,
    "stream": StreamBroken,
    "usage": ProgrammingError,
    "malformed": Malformed,
    "reject": Rejected,
    "denied": Denied,
    "directory": DirectoryRefused,
    "unavailable": Unavailable,
    "backpressure": Backpressure,
    "cancelled": Cancelled,
    "agent.not_found": AgentNotFound,
    "agent.gone": AgentGone,
    "handler.missing": HandlerMissing,
    "handler.failed": HandlerFailed,
    "request.invalid": RequestInvalid,
    "reply.invalid": ReplyInvalid,
    "deadline.exceeded": DeadlineExceeded,
    "stream.broken": StreamBroken,
}


def from_code(code: str, message: str, *, retryable: bool, details: Mapping[str, Any]) -> AgentBusError:
    """The error that a peer sent as code and details, as the class this process has for the code."""
    cls = _BY_CODE.get(code) or _BY_CODE.get(code.partition(".")[0])
    if cls is None:
        return Problem.of(code, message, details)
    return cls(code, message, retryable=retryable, details=details)
