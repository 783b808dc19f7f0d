"""Curves: what is drawn of points that are known, and of those that can't be drawn."""

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from chainrule.cli.curve import ASTERISKS, BRAILLE, Grid, LossCurves, Points, cells, scale_of
from chainrule.cli.story import Curve

NAN, INFINITE = math.nan, math.inf


def drawing(*curves: Points, width: int = 3, height: int = 3) -> list[str]:
    return ["".join(character for character, _ in row) for row in cells(curves, width, height, ASTERISKS)]


def test_points_lie_where_their_values_are() -> None:
    assert drawing([(0, 0), (1, 1), (2, 2)]) == ["  *", " * ", "*  "]
    assert drawing([(0, 2), (2, 0)]) == ["*  ", " * ", "  *"]
    assert drawing([(0, 1), (2, 1)]) == ["   ", "***", "   "]


def test_a_jump_is_a_line_without_gaps() -> None:
    assert all("*" in row for row in drawing([(0, 0), (2, 4)], height=9))


def test_braille_has_two_dots_across_and_four_down() -> None:
    (row,) = cells([[(0, 0), (1, 3)]], 1, 1, BRAILLE)
    dots = ord(row[0][0]) - 0x2800
    assert dots & 0x40  # lower left
    assert dots & 0x08  # upper right
    assert not dots & (0x80 | 0x01)


def test_one_point_is_a_dot_in_the_middle() -> None:
    assert drawing([(7, 0.5)]) == ["   ", " * ", "   "]


@pytest.mark.parametrize("points", [[], [(1, NAN)], [(1, INFINITE), (NAN, 2)]])
def test_nothing_is_drawn_of_nothing(points: list[tuple[float, float]]) -> None:
    assert drawing(points) == ["   "] * 3


def test_what_is_not_finite_is_left_out() -> None:
    assert drawing([(0, 0), (0.5, NAN), (1, INFINITE), (2, 2)]) == drawing([(0, 0), (2, 2)])


def test_where_curves_meet_the_later_one_is_seen() -> None:
    rows = cells([[(0, 0), (2, 2)], [(0, 2), (2, 0)]], 3, 3, ASTERISKS)
    assert [[whose for _, whose in row] for row in rows] == [[1, -1, 0], [-1, 1, -1], [0, -1, 1]]


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [((1.0, 100.0), True), ((1.0, 99.0), False), ((0.0, 1e6), False), ((-1.0, 1e6), False), ((5e-324, 1e308), True)],
)
def test_an_axis_of_more_than_two_decades_is_logarithmic(values: tuple[float, ...], logarithmic: bool) -> None:
    scale = scale_of(values)
    assert scale.logarithmic == logarithmic
    assert (scale(min(values)), scale(max(values))) == (0.0, 1.0)


def test_a_logarithmic_axis_gives_every_decade_the_same_room() -> None:
    scale = scale_of([0.001, 1.0])
    assert [round(scale(value), 9) for value in (0.001, 0.01, 0.1, 1)] == [0, round(1 / 3, 9), round(2 / 3, 9), 1]
    assert scale.at(1 / 3) == pytest.approx(0.01)


@given(
    st.lists(st.lists(st.tuples(st.floats(), st.floats()), max_size=6), max_size=3),
    st.integers(1, 40),
    st.integers(1, 8),
    st.sampled_from([BRAILLE, ASTERISKS]),
)
def test_a_drawing_has_its_size_whatever_the_points(
    curves: list[list[tuple[float, float]]], width: int, height: int, grid: Grid
) -> None:
    rows = cells(curves, width, height, grid)
    assert [len(row) for row in rows] == [width] * height


def printed(curves: LossCurves, width: int = 60, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, width=width, legacy_windows=False).print(curves)
    file.seek(0)
    return file.read().splitlines()


def test_axes_say_what_the_values_are() -> None:
    lines = printed(LossCurves([("training", "cyan", [(1, 2.0), (500, 0.001)])], 8))
    assert len(lines) == 8
    assert lines[0] == "loss   ━ training 0.001   logarithmic"
    assert lines[1].split()[0] == "2"
    assert lines[-2].split()[0] == "0.001"
    assert lines[-1].split() == ["step", "1", "500"]


def test_a_terminal_without_braille_gets_asterisks() -> None:
    lines = printed(LossCurves([("training", "", [(1, 2.0), (500, 1.0)])], 8), encoding="ascii")
    assert "*" in lines[1]
    assert "".join(lines).isascii()


@pytest.mark.parametrize(("width", "height"), [(15, 8), (60, 3), (60, 0)])
def test_without_room_there_is_no_curve(width: int, height: int) -> None:
    assert printed(LossCurves([("training", "", [(1, 2.0), (500, 1.0)])], height), width) == []


def test_a_curve_keeps_few_points_and_its_shape() -> None:
    curve = Curve()
    for step in range(1, 100_001):
        curve.add(step, 1 / step)
    points = curve.points
    assert Curve.MOST / 2 - 1 <= len(points) <= Curve.MOST
    steps = [step for step, _ in points]
    assert steps == sorted(set(steps))
    assert all(1 / step <= value <= 2 / step for step, value in points[1:])


def test_what_was_taken_back_is_drawn_anew() -> None:
    curve = Curve()
    for step, value in ((1, 1.0), (2, 2.0), (3, NAN), (4, 9.0), (3, 3.0)):
        curve.add(step, value)
    assert curve.points == [(1, 1.0), (2, 2.0), (3, 3.0)]
