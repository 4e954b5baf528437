"""Messages as users write them: ``class Summarize(Request[Summary])`` names its reply, once.

The boundary refuses unknown fields: a field that a peer of another version does not know is never dropped in silence.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, PrivateAttr, TypeAdapter, ValidationError

from agentbus.errors import ProgrammingError, ReplyInvalid, RequestInvalid

CODES: Final = {
    "request.invalid": "The body does not fit the message type.",
    "reply.invalid": "The reply does not fit the type that the request names.",
    "usage.type": "A message type has 1 to 256 characters: the class's name, its `message_type`, or what Raw is given.",
    "usage.no_reply_type": "The class does not say what answers it: write Request[Reply] or StreamRequest[Item].",
}

R = TypeVar("R")
T = TypeVar("T")
TYPE_LENGTH: Final = 256  # characters, as the header has room for


class Strict(BaseModel):
    """What the bus's own services say: nothing in it is dropped in silence."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class Request(BaseModel, Generic[R]):
    """The base of a message that is answered by one ``R``."""

    model_config = ConfigDict(extra="forbid")
    message_type: ClassVar[str] = ""


class StreamRequest(BaseModel, Generic[T]):
    """The base of a message that is answered by a stream of ``T``."""

    model_config = ConfigDict(extra="forbid")
    message_type: ClassVar[str] = ""


class Raw(Request[dict[str, Any]]):
    """A message whose types are not at hand: ``Raw("Summarize", {"text": "…"})``, answered by a dict."""

    _type: str = PrivateAttr()
    _body: dict[str, Any] = PrivateAttr()

    def __init__(self, type: str, body: dict[str, Any]) -> None:
        super().__init__()
        self._type = type
        self._body = body


class RawStream(StreamRequest[dict[str, Any]]):
    """As :class:`Raw`, answered by a stream of dicts."""

    _type: str = PrivateAttr()
    _body: dict[str, Any] = PrivateAttr()

    def __init__(self, type: str, body: dict[str, Any]) -> None:
        super().__init__()
        self._type = type
        self._body = body


def type_of(message: BaseModel | type[BaseModel]) -> str:
    """The message type on the wire: ``message_type``, or the class's name.

    Raises:
        ProgrammingError: ``usage.type``.
    """
    if isinstance(message, Raw | RawStream):
        name = message._type
    else:
        cls = message if isinstance(message, type) else type(message)
        name = getattr(cls, "message_type", "") or cls.__name__
    if not isinstance(name, str) or not 0 < len(name) <= TYPE_LENGTH:
        raise ProgrammingError("usage.type", f"{name!r:.80} is no message type: 1 to {TYPE_LENGTH} characters")
    return name


def encode_body(message: BaseModel) -> bytes:
    """The JSON body of a message."""
    if isinstance(message, Raw | RawStream):
        return _any.dump_json(message._body)
    return message.__pydantic_serializer__.to_json(message)


@lru_cache(maxsize=1024)
def answer_type(cls: type[BaseModel]) -> Any:
    """What answers ``cls``: the argument of its Request or StreamRequest.

    Raises:
        ProgrammingError: ``usage.no_reply_type``.
    """
    for base in cls.__mro__:
        meta = getattr(base, "__pydantic_generic_metadata__", None)
        if meta and meta["origin"] in (Request, StreamRequest) and meta["args"]:
            return meta["args"][0]
    raise ProgrammingError("usage.no_reply_type", f"{cls.__name__}: {CODES['usage.no_reply_type']}")


def adapter(of: Any) -> TypeAdapter[Any]:
    """The validator and serialiser of a type; making one is slow, so each is made once."""
    return _adapter(of)


@lru_cache(maxsize=1024)
def _adapter(of: Any) -> TypeAdapter[Any]:
    return TypeAdapter(of)


_any: Final = TypeAdapter(Any)


def decode_request(model: type[BaseModel], body: bytes) -> BaseModel:
    """The request in a body.

    Raises:
        RequestInvalid: ``request.invalid``, with pydantic's list of errors and none of its inputs.
    """
    try:
        return cast(BaseModel, model.__pydantic_validator__.validate_json(body))
    except ValidationError as error:
        raise RequestInvalid("request.invalid", _first(error), details={"errors": _errors(error)}) from None


def decode_answer(of: Any, body: bytes) -> Any:
    """The reply or item in a body.

    Raises:
        ReplyInvalid: ``reply.invalid``.
    """
    try:
        return adapter(of).validate_json(body)
    except ValidationError as error:
        raise ReplyInvalid("reply.invalid", _first(error), details={"errors": _errors(error)}) from None


def encode_answer(of: Any, value: Any) -> bytes:
    """The body of a reply or item that a handler returned.

    Raises:
        ReplyInvalid: ``reply.invalid``: the handler returned something else than it declares.
    """
    try:
        checked = adapter(of).validate_python(value)
        return adapter(of).dump_json(checked)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        why = ": ".join([".".join(map(str, first["loc"])), first["type"]] if first["loc"] else [first["type"]])
        text = f"the handler returned {type(value).__name__}, and declares {getattr(of, '__name__', of)}"
        raise ReplyInvalid("reply.invalid", f"{text} ({why})") from error


def _errors(error: ValidationError) -> list[dict[str, Any]]:
    return [
        {"loc": list(map(str, e["loc"])), "type": e["type"], "msg": e["msg"]}
        for e in error.errors(include_url=False, include_input=False, include_context=False)[:16]
    ]


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
