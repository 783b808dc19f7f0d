"""Products in tiles: the same sums as in one, however they are cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.arrays import Array
from worker.layers import Context, Conv1d, Conv2d, Conv2dTranspose, Draw, Gru, Layer, Lstm, SimpleRnn, lstm, tiles
from worker.layers.tiles import COLUMNS, HIGH, LEAST_ROWS, MOST, Tiles, over_rows

SIDES = st.integers(0, 96)


@given(SIDES, st.integers(1, 40), st.integers(1, 96), st.integers(1, 100_000), st.integers(1, 4))
def test_a_product_in_tiles_is_the_product(rows: int, inner: int, columns: int, most: int, gates: int) -> None:
    rng = np.random.default_rng(0)
    left = rng.standard_normal((3, rows, inner))
    right = rng.standard_normal((gates, inner, columns))
    cut, found = Tiles.of(right, rows, most), np.empty((3, gates, rows, columns))
    for a, y in zip(cut.left(left), cut.out(found), strict=True):
        np.matmul(a, cut.right, out=y)
    np.testing.assert_allclose(found, left[:, np.newaxis] @ right, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "down", "across"),
    [
        ((64, 193, 128), 1, 2),
        ((64, 512, 128), 4, 2),
        ((64, 512, 64), 4, 1),
        ((64, 165, 100), 2, 1),  # of columns that 64 doesn't divide a tile has all
        ((61, 512, 128), 1, 1),  # the rows can't be cut
        ((64, 100_000, 128), 1, 1),  # tiles would be too low
        ((64, 16, 64), 1, 1),
    ],
)
def test_tiles_are_64_columns_wide_and_as_high_as_they_can_be(
    shape: tuple[int, int, int], down: int, across: int
) -> None:
    rows, inner, columns = shape
    cut = Tiles.of(np.zeros((inner, columns), np.float32), rows, MOST)
    assert (cut.down, cut.right.shape[-3]) == (down, across)
    if down * across > 1:
        assert rows // down * inner * (columns // across) <= MOST
        assert rows // down >= LEAST_ROWS


@pytest.mark.parametrize("most", [0, 70_000, MOST])
@pytest.mark.parametrize("columns", [COLUMNS, 3 * COLUMNS, 48])
@pytest.mark.parametrize("n", [1, HIGH - 1, 4 * HIGH, 193])
@pytest.mark.parametrize("rows", [0, 45, 320, 4_000])
def test_a_product_over_rows_is_the_product(
    rows: int, n: int, columns: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "_most", lambda: most)
    rng = np.random.default_rng(0)
    a, b, found = rng.standard_normal((2, rows, n)), rng.standard_normal((2, rows, columns)), np.empty((2, n, columns))
    over_rows(a, b, found)
    np.testing.assert_allclose(found, a.swapaxes(1, 2) @ b, atol=1e-11)
    turned = np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2)
    over_rows(turned, b, found)
    np.testing.assert_allclose(found, a.swapaxes(1, 2) @ b, atol=1e-11)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv1d(8, kernel_size=(5,), groups=2), (40, 12)),
        (Conv2d(6, kernel_size=(3,)), (11, 9, 5)),
        (Conv2d(64, kernel_size=(2,)), (8, 8, 1)),
        (Conv2dTranspose(6, kernel_size=(3,), stride=(2,)), (7, 5, 8)),
    ],
    ids=["sequences in groups", "images", "many filters", "transposed"],
)
def test_convolutions_give_the_same_in_tiles(
    layer: Layer, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((9, *shape)), rng.standard_normal((9, *layer.output_shape(shape)))
    params = {key: rng.standard_normal(each.shape) for key, each in layer.parameters(shape).items()}

    def passed(most: int) -> list[Array]:
        monkeypatch.setattr(tiles, "_most", lambda: most)
        grads = {key: np.empty_like(value) for key, value in params.items()}
        y, backward = layer.forward(params, x, Context(draw=Draw(0, 0, 0)))
        return [y, backward(dy, grads), *grads.values()]

    whole = passed(0)
    for most in (3_000, 30_000, 100_000):
        for one, other in zip(whole, passed(most), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-11)


@pytest.mark.parametrize("layer", [Lstm(64), Gru(64), SimpleRnn(64)], ids=lambda layer: type(layer).__name__)
def test_recurrent_layers_give_the_same_in_tiles_and_in_pieces_of_time(
    layer: Lstm | Gru | SimpleRnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((32, 23, 5)), rng.standard_normal((32, 64))
    mask = np.arange(23) < rng.integers(1, 24, (32, 1))
    params = {key: 0.1 * rng.standard_normal(each.shape) for key, each in layer.parameters((23, 5)).items()}

    def passed(most: int, at_a_time: int) -> list[Array]:
        monkeypatch.setattr(tiles, "_most", lambda: most)
        monkeypatch.setattr(lstm, "AT_A_TIME", at_a_time)
        grads = {key: np.empty_like(value) for key, value in params.items()}
        y, backward = layer.forward(params, x, Context(draw=Draw(0, 0, 0), mask=mask))
        return [y, backward(dy, grads), *grads.values()]

    whole = passed(0, 23)
    for most, at_a_time in ((70_000, 23), (0, 10), (70_000, 4)):
        for one, other in zip(whole, passed(most, at_a_time), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)
