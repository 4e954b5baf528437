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
