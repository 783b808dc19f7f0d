"""Line charts as SVG: an axis of steps, an axis of values, and a title on every point that the mouse is over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from xml.etree.ElementTree import Element

from chainrule.cli.curve import Points, Scale, finite, scale_of
from chainrule.cli.report.element import element, scrolling
from chainrule.cli.text import number

Item = TypeVar("Item")

WIDTH, HEIGHT = 760, 280
LEFT, RIGHT, TOP, BOTTOM = 64, 36, 14, 40
"""What is kept free around the curves."""
MOST_POINTS, MOST_DOTS = 2_000, 120
"""Of a curve that are drawn, and that can be pointed at."""
COLOURS = 6
"""How many curves the style sheet can tell apart."""


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step."""

    step: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Named curves over steps. Points that are not finite are left out."""

    title: str
    curves: Sequence[tuple[str, Points]]
    marks: Sequence[Mark] = ()

    def draw(self) -> Element | None:
        """A figure with its legend; None if there is nothing to draw."""
        curves = [(name, thinned(finite(points), MOST_POINTS)) for name, points in self.curves if finite(points)]
        if not curves:
            return None
        together = [point for _, points in curves for point in points]
        along = Scale(0.0, max(1.0, max(x for x, _ in together)))
        up = _roomy(scale_of([y for _, y in together]))
        size = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "class": "chart"}
        drawing = element("svg", size, element("title", {}, f"{self.title}: {_spoken(curves)}"))
        drawing.extend(_axes(along, up))
        drawing.extend(_mark(mark, along) for mark in self.marks if 0 <= mark.step <= along.high)
        for index, (name, points) in enumerate(curves):
            drawing.append(_curve(index, name, [(_x(along, x), _y(up, y), x, y) for x, y in points]))
        note = "; the axis is logarithmic" if up.logarithmic else ""
        dashes = "; vertical lines: what was found, or went wrong" if self.marks else ""
        caption = element("figcaption", {}, f"{self.title} by step{note}{dashes}")
        return element("figure", {}, caption, _legend([name for name, _ in curves]), scrolling(self.title, drawing))


def thinned(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def ticks(scale: Scale, most: int = 6) -> list[float]:
    """Round values within the scale: powers of ten and halves between if it is logarithmic, else 1, 2, 5 times one."""
    if scale.logarithmic:
        decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
        stride = math.ceil(len(decades) / most)
        found = [10.0**exponent for exponent in decades if exponent % stride == 0]
        return [value for value in found if scale.low <= value <= scale.high]
    span = scale.high - scale.low
    if not 0 < span < math.inf:
        return [scale.low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most)
    first = math.ceil(scale.low / step)
    return [index * step for index in range(first, first + most + 1) if index * step <= scale.high]


def _roomy(scale: Scale) -> Scale:
    """With a little more room than the values need, and some where all are the same."""
    if scale.logarithmic:
        return Scale(scale.low / 1.1, scale.high * 1.1, logarithmic=True)
    margin = (scale.high - scale.low) * 0.04 or abs(scale.low) * 0.1 or 1.0
    return Scale(scale.low - margin, scale.high + margin) if math.isfinite(margin) else scale


def _x(along: Scale, value: float) -> float:
    return LEFT + along(value) * (WIDTH - LEFT - RIGHT)


def _y(up: Scale, value: float) -> float:
    return HEIGHT - BOTTOM - up(value) * (HEIGHT - TOP - BOTTOM)


def _axes(along: Scale, up: Scale) -> list[Element]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    drawn = []
    for value in ticks(up):
        y = f"{_y(up, value):.1f}"
        drawn.append(element("line", {"x1": LEFT, "x2": right, "y1": y, "y2": y, "class": "rule"}))
        drawn.append(element("text", {"x": LEFT - 8, "y": y, "dy": "0.32em", "text-anchor": "end"}, number(value)))
    for value in ticks(along, 8):
        place = {"x": f"{_x(along, value):.1f}", "y": bottom + 18, "text-anchor": "middle"}
        drawn.append(element("text", place, f"{value:,.10g}"))
    drawn.append(element("line", {"x1": LEFT, "x2": right, "y1": bottom, "y2": bottom, "class": "axis"}))
    middle = {"x": (LEFT + right) / 2, "y": HEIGHT - 6, "text-anchor": "middle"}
    drawn.append(element("text", middle, "step"))
    return drawn


def _mark(mark: Mark, along: Scale) -> Element:
    x = f"{_x(along, mark.step):.1f}"
    line = {"x1": x, "x2": x, "y1": TOP, "y2": HEIGHT - BOTTOM, "class": "mark"}
    return element("line", line, element("title", {}, f"step {mark.step:,.0f}: {mark.text}"))


def _curve(index: int, name: str, places: Sequence[tuple[float, float, float, float]]) -> Element:
    """`places` are (x, y) on the page, and step and value."""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y, _, _ in places)
    dots = [
        element(
            "circle",
            {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": 3},
            element("title", {}, f"{name} {number(value)} at step {step:,.0f}"),
        )
        for x, y, step, value in thinned(places, MOST_DOTS)
    ]
    return element("g", {"class": f"curve c{index % COLOURS}"}, element("path", {"d": path}), *dots)


def _legend(names: Sequence[str]) -> Element:
    def swatch(index: int) -> Element:
        line = element("path", {"d": "M0 5L28 5"})
        group = element("g", {"class": f"curve c{index % COLOURS}"}, line)
        return element("svg", {"viewBox": "0 0 28 10", "class": "swatch", "aria-hidden": "true"}, group)

    return element("ul", {"class": "legend"}, *(element("li", {}, swatch(i), name) for i, name in enumerate(names)))


def _spoken(curves: Sequence[tuple[str, Points]]) -> str:
    return "; ".join(
        f"{name} from {number(points[0][1])} to {number(points[-1][1])} at step {points[-1][0]:,.0f}"
        for name, points in curves
    )
