"""Three drawings in SVG: who asked whom, what happened when, and one conversation as a sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from agentbus.audit.page.story import ANSWERS, Conversation, Told, edges
from agentbus.log.report import moment

ROW = 26
_MAX_DOTS = 4000


def clock(instant: int, *, date: bool = False) -> str:
    """An instant for people, UTC."""
    found = moment(instant)
    return found.strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S.%f")[: 19 if date else 12]


def span(microseconds: int) -> str:
    """A duration for people."""
    if microseconds < 1000:
        return f"{microseconds} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.1f} ms"
    seconds = microseconds / 1_000_000
    return (
        f"{seconds:.1f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def graph(stories: Sequence[Conversation]) -> str:
    """Who asked whom: users on the left, whoever is asked by them to the right, and so on."""
    count = edges(stories)
    if not count:
        return ""
    names = sorted({name for sender, recipient, _ in count for name in (sender, recipient)})
    column = _columns(names, [(sender, recipient) for sender, recipient, _ in count])
    columns: dict[int, list[str]] = {}
    for name in names:
        columns.setdefault(column[name], []).append(name)
    width, height = 250 * len(columns) + 20, 84 * max(map(len, columns.values())) + 40
    at = {
        name: (110 + 250 * n, height / (len(group) + 1) * (row + 1))
        for n, (_, group) in enumerate(sorted(columns.items()))
        for row, name in enumerate(group)
    }
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Who asked whom" class="graph">', _ARROWS]
    for (sender, recipient, refused), times in sorted(count.items()):
        parts.append(_edge(at[sender], at[recipient], times, refused=refused))
    for name in names:
        x, y = at[name]
        kind = "user" if name.startswith("user/") else "service" if name.startswith("service/") else "agent"
        parts.append(f'<g class="node {kind}"><rect x="{x - 78}" y="{y - 18:.0f}" width="156" height="36" rx="18"/>')
        parts.append(f'<text x="{x}" y="{y + 5:.0f}">{escape(_short(name, 20))}</text></g>')
    return "".join([*parts, "</svg>"])


_ARROWS = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" class="head"/></marker><marker id="barred" viewBox="0 0 8 8" refX="7" refY="4"'
    ' markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" class="bad"/></marker></defs>'
)


def _columns(names: Sequence[str], asked: Sequence[tuple[str, str]]) -> dict[str, int]:
    """How far from those whom nobody asks; users come first."""
    column = {name: 0 for name in names if name.startswith("user/") or all(to != name for _, to in asked)}
    column = column or {names[0]: 0}
    frontier = list(column)
    while frontier:
        name = frontier.pop(0)
        for sender, recipient in sorted(asked):
            if sender == name and recipient not in column:
                column[recipient] = column[name] + 1
                frontier.append(recipient)
    return {name: column.get(name, 0) for name in names}


def _edge(a: tuple[float, float], b: tuple[float, float], times: int, *, refused: bool) -> str:
    (x1, y1), (x2, y2) = a, b
    style = "edge bad" if refused else "edge"
    width = 1.2 + math.log10(times) if times > 1 else 1.2
    bend = 26 if refused else -14
    if x1 == x2:
        side = 78 if not refused else -78
        path = f"M{x1 + side} {y1:.0f} C{x1 + side * 1.9} {y1:.0f} {x2 + side * 1.9} {y2:.0f} {x2 + side} {y2:.0f}"
        middle = (x1 + side * 1.7, (y1 + y2) / 2)
    else:
        right = 1 if x2 > x1 else -1
        start, end = x1 + 78 * right, x2 - 80 * right
        half = (start + end) / 2
        path = f"M{start} {y1:.0f} C{half} {y1 + bend:.0f} {half} {y2 + bend:.0f} {end} {y2:.0f}"
        middle = (half, (y1 + y2) / 2 + bend * 0.75)
    mark = "barred" if refused else "arrow"
    label = f"{times} refused" if refused else f"{times}"
    return (
        f'<path d="{path}" class="{style}" stroke-width="{width:.1f}" marker-end="url(#{mark})"/>'
        f'<text x="{middle[0]:.0f}" y="{middle[1]:.0f}" class="{style} count">{label}</text>'
    )


def timeline(stories: Sequence[Conversation]) -> str:
    """What happened when: a row for each principal, a dot for each message it sent."""
    told = [one for story in stories for one in story.told]
    if not told:
        return ""
    start, end = min(one.instant for one in told), max(one.instant for one in told)
    names = sorted({one.message.sender.short for one in told}, key=lambda n: (not n.startswith("user/"), n))
    width, left = 1100, 170
    height = ROW * len(names) + 44
    scale = (width - left - 20) / max(1, end - start)
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="What happened when" class="timeline">']
    for tick in range(6):
        x = left + (width - left - 20) * tick / 5
        at = start + (end - start) * tick // 5
        parts.append(f'<line x1="{x:.0f}" y1="8" x2="{x:.0f}" y2="{height - 24}" class="grid"/>')
        anchor = "end" if tick == 5 else "middle" if tick else "start"
        parts.append(f'<text x="{x:.0f}" y="{height - 8}" class="tick" text-anchor="{anchor}">{clock(at)}</text>')
    for row, name in enumerate(names):
        y = 22 + ROW * row
        parts.append(f'<text x="{left - 14}" y="{y + 4}" class="who">{escape(_short(name, 22))}</text>')
        parts.append(f'<line x1="{left}" y1="{y}" x2="{width - 20}" y2="{y}" class="row"/>')
    shown = told if len(told) <= _MAX_DOTS else told[:: -(-len(told) // _MAX_DOTS)]
    for one in sorted(shown, key=lambda one: one.refused is not None):
        x, y = left + (one.instant - start) * scale, 22 + ROW * names.index(one.message.sender.short)
        text = f"{clock(one.instant)} {one.message.kind} {one.message.action} to {one.message.recipient.short}"
        text += f": {one.refused}" if one.refused else ""
        answer = " answer" if one.message.kind in ANSWERS else ""
        size = 5 if one.message.asks or one.refused else 3
        parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="{size}" class="dot {one.state}{answer}">')
        parts.append(f"<title>{escape(text)}</title></circle>")
    return "".join([*parts, "</svg>"])


def sequence(story: Conversation, limit: int = 60) -> str:
    """One conversation: a line of life for each who takes part, an arrow for each message."""
    people, told = story.people, [one for one in story.told if one.message.kind != "credit"][:limit]
    step, top = 190, 44
    width, height = step * len(people), top + 30 * len(told) + 16
    x = {name: step * at + step / 2 for at, name in enumerate(people)}
    parts = [f'<svg viewBox="0 0 {width:.0f} {height}" class="sequence" style="max-width:{width:.0f}px" role="img"'
             f' aria-label="The conversation as a sequence">', _ARROWS]  # fmt: skip
    for name in people:
        parts.append(f'<line x1="{x[name]}" y1="30" x2="{x[name]}" y2="{height - 6}" class="life"/>')
        parts.append(f'<text x="{x[name]}" y="20" class="name">{escape(_short(name, 22))}</text>')
    for row, one in enumerate(told):
        parts.append(_arrow(one, x, top + 30 * row + 14))
    return "".join([*parts, "</svg>"])


def _arrow(one: Told, x: dict[str, float], y: int) -> str:
    a, b = x[one.message.sender.short], x[one.message.recipient.short]
    style = "bad" if one.refused else "answer" if one.message.kind in ANSWERS else "ask"
    label = one.message.action if one.message.asks else f"{one.message.kind}"
    label = f"{label} ✗ {one.refused}" if one.refused else label
    mark = "barred" if one.refused else "arrow"
    if a == b:
        path = f"M{a} {y - 6} C{a + 50} {y - 6} {a + 50} {y + 8} {a + 3} {y + 8}"
        text = f'<text x="{a + 46}" y="{y}" class="label start">{escape(label)}</text>'
        return f'<path d="{path}" class="{style}" marker-end="url(#{mark})"/>{text}'
    end = b - 3 if b > a else b + 3
    return (
        f'<line x1="{a}" y1="{y}" x2="{end}" y2="{y}" class="{style}" marker-end="url(#{mark})"/>'
        f'<text x="{(a + b) / 2}" y="{y - 5}" class="label {style}">{escape(_short(label, 40))}</text>'
    )


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
