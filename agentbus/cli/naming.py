"""Arguments that name something by base64url of 32 bytes. One name in 64 begins with a dash, and is no option."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_NAME: Final = re.compile(r"-[A-Za-z0-9_-]{42}")
_MARK: Final = "\0"


def as_named(_: click.Context, __: click.Parameter, value: Any) -> Any:
    """The callback of such an argument."""
    return value.removeprefix(_MARK) if isinstance(value, str) else value


class Naming(click.Command):
    """A command that takes one: what has the form of a name and stands where no option's value does is an argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = [param for param in self.params if isinstance(param, click.Option) and not param.is_flag]
        valued = {name for option in options for name in option.opts}
        before = ["", *args]
        marked = [
            _MARK + arg if _NAME.fullmatch(arg) and last not in valued else arg
            for last, arg in zip(before, args, strict=False)
        ]
        return super().parse_args(ctx, marked)
