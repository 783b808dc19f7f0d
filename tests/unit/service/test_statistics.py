"""What is known of a column: held against NumPy on the whole, for any cut into blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.data.columns import BYTES_AT_ONCE, MOST_DISTINCT, Statistics, describe
from worker.arrays import Array

NUMBERS = st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i8", "u8", "?", ">i4", ">f8"]).map(np.dtype)
columns = arrays.arrays(NUMBERS, arrays.array_shapes(max_dims=3, max_side=5))


@given(columns)
def test_statistics(array: Array) -> None:
    column = describe("x", array)
    finite = array[np.isfinite(array)]
    assert (column.dtype, column.row_shape) == (array.dtype.name, array.shape[1:])
    assert column.nonfinite_count == array.size - finite.size
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    assert (column.min, column.max) == (low, high)
    assert column.integral == (array.dtype.kind in "iu")
    assert column.distinct_count == len(np.unique(finite))
    wide = finite.astype(np.longdouble)
    mean, deviation = (float(wide.mean()), float(wide.std())) if finite.size else (0.0, 0.0)
    reach = max(-low, high)
    assert column.mean == pytest.approx(mean, rel=1e-9, abs=1e-12 * reach)
    assert column.standard_deviation == pytest.approx(deviation, rel=1e-6, abs=max(1e-12 * reach, 1e-150))


@given(arrays.arrays(np.float64, 30, elements=st.floats(-1e6, 1e6)), st.lists(st.integers(0, 30), max_size=4))
def test_any_cut_gives_the_same(array: Array, cuts: list[int]) -> None:
    whole, together = Statistics.of(array), Statistics()
    for part in np.split(array, sorted(cuts)):
        together += Statistics.of(part)
    assert (together.count, together.low, together.high) == (whole.count, whole.low, whole.high)
    assert (together.nonfinite, together.distinct) == (whole.nonfinite, whole.distinct)
    assert float(together.mean) == pytest.approx(float(whole.mean), rel=1e-12, abs=1e-9)
    assert float(together.squares) == pytest.approx(float(whole.squares), rel=1e-9, abs=1e-3)


def test_a_small_spread_far_from_zero() -> None:
    """Sums of squares would lose it: 1e9 squared has no digits left for it."""
    array = 1e9 + np.tile([0.0, 1.0], 300_000)
    assert describe("x", array).standard_deviation == pytest.approx(0.5, rel=1e-9)


def test_over_many_blocks() -> None:
    array = np.zeros(BYTES_AT_ONCE // 8 * 2 + 5)
    array[[0, BYTES_AT_ONCE // 8, -1, -2]] = np.nan, -2, 7, np.inf
    column = describe("x", array)
    assert (column.min, column.max, column.nonfinite_count, column.distinct_count) == (-2.0, 7.0, 2, 3)
    assert column.mean == pytest.approx(5 / (len(array) - 2))


@pytest.mark.parametrize("kind", ["i4", "f4", "u2"])
@pytest.mark.parametrize("count", [MOST_DISTINCT, MOST_DISTINCT + 1])
def test_distinct_elements_are_counted_up_to_a_limit(kind: str, count: int) -> None:
    array = np.tile(np.arange(count), 600).astype(kind)  # over several blocks
    assert describe("x", array).distinct_count == (count if count <= MOST_DISTINCT else None)


def test_the_largest_floats() -> None:
    array = np.array([1.7e308, -1.7e308, 1e308, 0])
    column = describe("x", array)
    assert column.mean == pytest.approx(0.25e308)
    assert column.standard_deviation == pytest.approx(float(array.astype(np.longdouble).std()))


@given(st.lists(st.text("a\u00e4z \U0001f642,\n", max_size=8), min_size=1, max_size=20))
def test_text(texts: list[str]) -> None:
    array = np.array(texts, f"<U{max(map(len, texts)) or 1}")
    column = describe("x", array)
    assert column.is_text
    assert not column.integral
    assert (column.longest_text, column.distinct_count) == (max(map(len, texts)), len(set(texts)))
    assert (column.min, column.max, column.mean, column.standard_deviation, column.nonfinite_count) == (0, 0, 0, 0, 0)


def test_nothing_finite() -> None:
    column = describe("x", np.full(3, np.nan))
    assert (column.min, column.max, column.mean, column.standard_deviation) == (0, 0, 0, 0)
    assert (column.nonfinite_count, column.distinct_count) == (3, 0)
