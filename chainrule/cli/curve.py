"""Curves in the cells of a terminal: in braille, which has eight dots a cell, or in asterisks where there is none.

An axis that spans more than two decades, all of it above 0, is logarithmic: a loss falls fast at first, and what
matters later would be a flat line.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from chainrule.cli.text import number

Points = Sequence[tuple[float, float]]

LOGARITHMIC_FROM = 100.0
"""The ratio of the greatest to the least value from which on the axis is logarithmic."""
GUTTER = 10
"""Cells beside the curves, for the numbers of the axis."""


@dataclass(frozen=True)
class Grid:
    """What a cell of a terminal is made of."""

    across: int
    down: int
    dots: Sequence[Sequence[int]]
    """The bit of each dot, row by row."""
    blank: int
    """The character without dots; the others follow it in the order of their bits."""

    def character(self, bits: int) -> str:
        """A cell with these dots."""
        return chr(self.blank + bits) if bits else " "


BRAILLE = Grid(2, 4, ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80)), 0x2800)
ASTERISKS = Grid(1, 1, ((ord("*") - ord(" "),),), ord(" "))


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` as places from 0 to 1."""

    low: float
    high: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies; 0.5 if all are the same."""
        low, high = self._on_axis(self.low), self._on_axis(self.high)
        span = high - low
        return (self._on_axis(value) - low) / span if 0 < span < math.inf else 0.5

    def at(self, place: float) -> float:
        """The value at a place: the inverse."""
        low, high = self._on_axis(self.low), self._on_axis(self.high)
        value = low + place * (high - low)
        return math.exp(value) if self.logarithmic else value

    def _on_axis(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value


def scale_of(values: Sequence[float]) -> Scale:
    """The scale that shows all of some finite values, of which there is one at least."""
    low, high = min(values), max(values)
    return Scale(low, high, logarithmic=low > 0 and high / low >= LOGARITHMIC_FROM)


def finite(points: Points) -> list[tuple[float, float]]:
    """The points that can be drawn."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def cells(curves: Sequence[Points], width: int, height: int, grid: Grid = BRAILLE) -> list[list[tuple[str, int]]]:
    """Rows of cells, the upper first: each a character, and the curve whose it is, the later one where they meet.

    -1 is nobody's. Points between which nothing is known are joined by lines. Without any point, no cell is drawn.
    """
    shown = [finite(curve) for curve in curves]
    together = [point for curve in shown for point in curve]
    bits, owner = [[0] * width for _ in range(height)], [[-1] * width for _ in range(height)]
    if together:
        along, up = Scale(min(x for x, _ in together), max(x for x, _ in together)), scale_of([y for _, y in together])
        last_column, last_row = width * grid.across - 1, height * grid.down - 1
        for index, curve in enumerate(shown):
            for column, row in _dots([(along(x) * last_column, (1 - up(y)) * last_row) for x, y in curve]):
                below, beside = divmod(row, grid.down), divmod(column, grid.across)
                bits[below[0]][beside[0]] |= grid.dots[below[1]][beside[1]]
                owner[below[0]][beside[0]] = index
    return [
        [(grid.character(mask), whose) for mask, whose in zip(row, owners, strict=True)]
        for row, owners in zip(bits, owner, strict=True)
    ]


def _dots(places: Sequence[tuple[float, float]]) -> set[tuple[int, int]]:
    """The dots of a line through places given in dots, (column, row)."""
    dots = {(round(column), round(row)) for column, row in places}
    for (left, from_row), (right, to_row) in pairwise(places):
        count = math.ceil(max(abs(right - left), abs(to_row - from_row)))
        for part in range(1, count):
            share = part / count
            dots.add((round(left + share * (right - left)), round(from_row + share * (to_row - from_row))))
    return dots


@dataclass(frozen=True)
class LossCurves:
    """Curves with their axes in `height` lines, as wide as there is room; a name and a style for each."""

    curves: Sequence[tuple[str, str, Points]]
    height: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws them; nothing if there is no point, or no room."""
        drawn = [(name, style, finite(points)) for name, style, points in self.curves if finite(points)]
        rows, width = self.height - 2, options.max_width - GUTTER
        if not drawn or rows < 2 or width < 10:
            return
        grid = ASTERISKS if options.ascii_only else BRAILLE
        together = [point for _, _, points in drawn for point in points]
        up = scale_of([y for _, y in together])
        mark, rule, corner = ("*", "|", "+") if options.ascii_only else ("━", "│", "┤")
        yield self._legend(drawn, mark, logarithmic=up.logarithmic)
        for index, row in enumerate(cells([points for _, _, points in drawn], width, rows, grid)):
            labelled = index in (0, rows // 2, rows - 1) if rows >= 5 else index in (0, rows - 1)
            label = number(up.at(1 - index / (rows - 1))) if labelled else ""
            line = Text(f"{label:>{GUTTER - 2}} {corner if labelled else rule}", "dim", no_wrap=True)
            for character, whose in row:
                line.append(character, drawn[whose][1] if whose >= 0 else "")
            yield line
        steps = [x for x, _ in together]
        first, last = f"{min(steps):,.0f}", f"{max(steps):,.0f}"
        ends = "" if first == last else f"{last:>{width - len(first)}}"
        yield Text(f"{'step':>{GUTTER - 2}}  {first}{ends}", "dim", no_wrap=True)

    @staticmethod
    def _legend(drawn: Sequence[tuple[str, str, Points]], mark: str, *, logarithmic: bool) -> Text:
        legend = Text("loss   ", "bold", no_wrap=True, overflow="ellipsis")
        for name, style, points in drawn:
            legend.append(f"{mark} ", style).append(f"{name} {number(points[-1][1])}   ", "not bold")
        return legend.append("logarithmic" if logarithmic else "", "dim not bold")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """As wide as there is room."""
        return Measurement(GUTTER + 10, options.max_width)
