"""Bars as SVG: enough for a comparison, and no dependency."""

from __future__ import annotations

from html import escape


def bars(title: str, values: dict[str, float]) -> str:
    """Horizontal bars, longest for the greatest, each with its number."""
    greatest = max(values.values(), default=1.0)
    rows = []
    for number, (label, value) in enumerate(values.items()):
        top = 50 + 32 * number
        length = max(2.0, 420 * value / greatest)
        colour = "#2a6f97" if label.startswith("agentbus") else "#a9b4c2"
        rows.append(
            f'<text x="290" y="{top + 15}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="300" y="{top}" width="{length:.1f}" height="20" fill="{colour}"/>'
            f'<text x="{308 + length:.1f}" y="{top + 15}">{value:,.0f}</text>'
        )
    height = 60 + 32 * len(values)
    size = f'width="820" height="{height}" font-family="sans-serif" font-size="13"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
        f'<rect width="100%" height="100%" fill="white"/><text x="20" y="28" font-size="16">{escape(title)}</text>'
        f"{''.join(rows)}</svg>\n"
    )


def lines(title: str, series: dict[str, dict[int, float]]) -> str:
    """One line for each series: its sizes from left to right, its values as multiples of its first; flat is best."""
    ratios = {name: [value / next(iter(sizes.values())) for value in sizes.values()] for name, sizes in series.items()}
    greatest = max(2.0, *(max(values) for values in ratios.values()))
    colours = ("#2a6f97", "#c0392b", "#2e8b57", "#8e44ad", "#b8860b", "#34495e")
    parts = []
    for number, (name, values) in enumerate(ratios.items()):
        colour = colours[number % len(colours)]
        step = 460 / max(1, len(values) - 1)
        points = " ".join(f"{50 + step * i:.0f},{300 - 240 * value / greatest:.0f}" for i, value in enumerate(values))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
            f'<text x="530" y="{70 + 22 * number}" fill="{colour}">{escape(name)}</text>'
        )
    one = 300 - 240 / greatest
    size = 'width="900" height="330" font-family="sans-serif" font-size="13"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect width="100%" height="100%" fill="white"/>'
        f'<text x="20" y="28" font-size="16">{escape(title)}</text>'
        f'<line x1="50" x2="510" y1="{one:.0f}" y2="{one:.0f}" stroke="#ccc"/><text x="20" y="{one + 4:.0f}">1 ×</text>'
        f'<text x="14" y="64">{greatest:.1f} ×</text>{"".join(parts)}</svg>\n'
    )
