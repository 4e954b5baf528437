"""A mapping that is cheap to copy and change: what did not change is shared between an old snapshot and the next.

A snapshot of the directory is a value, and the directory of ten thousand principals changes one record at a time. So a
mapping is a large part that is shared and a small one that is copied; when the small one has grown, both become one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_MISSING: Final[Any] = object()
_GONE: Final[Any] = object()
_NOTHING: Final[dict[Any, Any]] = {}
_SMALL: Final = 256  # changes that are copied each time before they are merged
_SHARE: Final = 64  # or this part of the whole, where that is more: a merge then costs a constant for each change


class Overlay(Mapping[K, V]):
    """An immutable mapping; :meth:`draft` gives a changeable copy that costs nothing until it is changed."""

    __slots__ = ("_base", "_changes", "_length")

    def __init__(self, items: Mapping[K, V] | None = None) -> None:
        self._base: dict[K, V] = dict(items) if items else {}
        self._changes: dict[K, V] = {}
        self._length = len(self._base)

    @classmethod
    def of(cls, items: Mapping[K, V]) -> Overlay[K, V]:
        """``items`` themselves where they are an overlay, else a copy of them."""
        return items if isinstance(items, Overlay) else cls(items)

    def draft(self) -> Draft[K, V]:
        """A copy to change."""
        return Draft(self)

    def get(self, key: K, default: D | None = None) -> V | D | None:  # type: ignore[override]
        """The value, or ``default``."""
        value = self._changes.get(key, _MISSING)
        if value is _MISSING:
            return self._base.get(key, default)
        return default if value is _GONE else value

    def __getitem__(self, key: K) -> V:
        value: Any = self._changes.get(key, _MISSING)
        if value is _MISSING:
            return self._base[key]
        found: V = _NOTHING[key] if value is _GONE else value  # the KeyError of a mapping
        return found

    def __contains__(self, key: object) -> bool:
        value: Any = self._changes.get(key, _MISSING)  # type: ignore[arg-type]
        return key in self._base if value is _MISSING else value is not _GONE

    def __iter__(self) -> Iterator[K]:
        changes = self._changes
        for key in self._base:
            if changes.get(key, _MISSING) is not _GONE:
                yield key
        for key, value in changes.items():
            if value is not _GONE and key not in self._base:
                yield key

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"Overlay({dict(self)!r})"


class Draft(MutableMapping[K, V]):
    """The changeable side of an :class:`Overlay`."""

    __slots__ = ("_base", "_changes", "_length", "_of")

    def __init__(self, of: Overlay[K, V]) -> None:
        self._of = of
        self._base = of._base
        self._changes: dict[K, V] | None = None  # copied with the first change
        self._length = of._length

    def freeze(self) -> Overlay[K, V]:
        """The overlay with the changes; the very one it came from where there are none."""
        if self._changes is None:
            return self._of
        made: Overlay[K, V] = Overlay()
        made._base, made._changes, made._length = self._base, self._changes, self._length
        if len(self._changes) > max(_SMALL, len(self._base) // _SHARE):
            made._base = {k: v for k, v in {**self._base, **self._changes}.items() if v is not _GONE}
            made._changes = {}
        self._of, self._changes = made, None  # a further change copies: what was frozen stays as it is
        self._base = made._base
        return made

    def __getitem__(self, key: K) -> V:
        value = self._peek(key)
        found: V = _NOTHING[key] if value is _MISSING else value
        return found

    def __setitem__(self, key: K, value: V) -> None:
        if self._peek(key) is _MISSING:
            self._length += 1
        self._writable()[key] = value

    def __delitem__(self, key: K) -> None:
        self[key]  # the KeyError of a mapping
        self._writable()[key] = _GONE
        self._length -= 1

    def __contains__(self, key: object) -> bool:
        return self._peek(key) is not _MISSING  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[K]:
        return iter([*self.freeze()])

    def __len__(self) -> int:
        return self._length

    def _peek(self, key: K) -> Any:
        changes: Mapping[K, V] = self._of._changes if self._changes is None else self._changes
        value = changes.get(key, _MISSING)
        return self._base.get(key, _MISSING) if value is _MISSING else _MISSING if value is _GONE else value

    def _writable(self) -> dict[K, V]:
        if self._changes is None:
            self._changes = dict(self._of._changes)
        return self._changes
