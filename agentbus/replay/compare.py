"""What a handler answered then and now: items, then how it ended, byte for byte or by a comparator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from agentbus.replay.report import Divergence
from agentbus.wire.header import Kind

Comparator = Callable[[bytes, bytes, str], bool]
"""(recorded body, body of the run, message type) → whether they mean the same."""

_SHOWN: Final = 160  # characters of a body that are shown, from a little before the first that differs
_BEFORE: Final = 24


class Output(NamedTuple):
    """A reply, an error, an item, the end of a stream, or that a plain message was handled."""

    kind: Kind
    body: bytes


def first_difference(
    recorded: Sequence[Output], got: Sequence[Output], *, action: str, cut: bool, same: Comparator | None
) -> tuple[Divergence | None, bool]:
    """The first output that differs, and whether any was merely equivalent.

    Args:
        cut: The handler was stopped then; where it would have gone on is not known.
        same: Decides about bodies that are not the same bytes.
    """
    equivalent = False
    for at in range(max(len(recorded), len(got))):
        then = recorded[at] if at < len(recorded) else None
        now = got[at] if at < len(got) else None
        if then is None and cut:
            break
        if then == now:
            continue
        if (
            then is not None
            and now is not None
            and then.kind == now.kind
            and same
            and same(then.body, now.body, action)
        ):
            equivalent = True
            continue
        return _divergence(at, then, now), equivalent
    return None, equivalent


def _divergence(at: int, then: Output | None, now: Output | None) -> Divergence:
    either = then or now
    assert either is not None
    what = f"item {at}" if either.kind is Kind.ITEM else _NAMES.get(either.kind, either.kind.name.lower())
    if then is None or now is None:
        return Divergence(what, _shown(then), _shown(now))
    if then.kind != now.kind:
        return Divergence(what, f"{_named(then)} {_shown(then)}", f"{_named(now)} {_shown(now)}")
    start = next((i for i, (a, b) in enumerate(zip(then.body, now.body, strict=False)) if a != b), None)
    from_ = max(0, (min(len(then.body), len(now.body)) if start is None else start) - _BEFORE)
    return Divergence(what, _shown(then, from_), _shown(now, from_))


def _named(output: Output) -> str:
    return _NAMES.get(output.kind, output.kind.name.lower())


def _shown(output: Output | None, start: int = 0) -> str | None:
    return None if output is None else excerpt(output.body, start) or _named(output)


def excerpt(body: bytes, start: int = 0) -> str:
    """A part of a body, as text."""
    part = body[start : start + _SHOWN].decode("utf-8", "replace")
    return f"{'…' if start else ''}{part}{'…' if start + _SHOWN < len(body) else ''}"


_NAMES: Final = {Kind.REPLY: "reply", Kind.ITEM: "item", Kind.END: "end of the stream", Kind.RECEIPT: "handled"}
