"""Line charts on logarithmic axes, as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, GAP = 300, 240, 56, 36, 44, 24
COLOURS = ("#1f77b4", "#d9631e", "#2a9d5c", "#8a5cc2")


@dataclass(frozen=True)
class Series:
    """A line: points of x and y, all above zero."""

    name: str
    points: Sequence[tuple[float, float]]


def figure(panels: Sequence[tuple[str, Sequence[Series]]]) -> str:
    """Panels side by side, on one scale of milliseconds."""
    values = [y for _, series in panels for line in series for _, y in line.points]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    width, height = len(panels) * (WIDTH + LEFT + GAP), HEIGHT + TOP + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (title, series) in enumerate(panels):
        left = number * (WIDTH + LEFT + GAP) + LEFT
        parts += _panel(title, series, left, (low, max(high, low + 1)))
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, series: Sequence[Series], left: int, decades: tuple[int, int]) -> list[str]:
    low, high = decades
    xs = sorted({x for line in series for x, _ in line.points})
    first, span = math.log10(xs[0]), math.log10(xs[-1] / xs[0]) or 1.0

    def across(x: float) -> float:
        return left + 8 + (WIDTH - 16) * (math.log10(x) - first) / span

    def down(y: float) -> float:
        return TOP + HEIGHT * (high - math.log10(y)) / (high - low)

    parts = [f'<text x="{left}" y="14" font-weight="bold">ms a step by {escape(title)}</text>']
    for decade in range(low, high + 1):
        y = down(10.0**decade)
        parts.append(f'<path d="M{left} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**decade:g}</text>')
    below = TOP + HEIGHT + 16
    parts += [f'<text x="{across(x):.1f}" y="{below}" text-anchor="middle">{_short(x)}</text>' for x in xs]
    for place, (line, colour) in enumerate(zip(series, COLOURS, strict=False)):
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="3" fill="{colour}"/>' for x, y in line.points]
        parts.append(f'<text x="{left + 140 * place}" y="32" fill="{colour}">{escape(line.name)}</text>')
    return parts


def _short(value: float) -> str:
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
