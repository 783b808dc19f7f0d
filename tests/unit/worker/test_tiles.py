"""Products in tiles: the same sums as in one, however they are cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.layers.tiles import LEAST, MOST, Tiles, multiply

SIDES = st.integers(0, 96)


@given(SIDES, st.integers(1, 40), st.integers(1, 96), st.integers(1, 100_000), st.integers(1, 4))
def test_a_product_in_tiles_is_the_product(rows: int, inner: int, columns: int, most: int, gates: int) -> None:
    rng = np.random.default_rng(0)
    left = rng.standard_normal((3, rows, inner))
    right = rng.standard_normal((gates, inner, columns))
    tiles, found = Tiles.of(right, rows, most), np.empty((3, gates, rows, columns))
    for a, y in zip(tiles.left(left), tiles.out(found), strict=True):
        np.matmul(a, tiles.right, out=y)
    np.testing.assert_allclose(found, left[:, np.newaxis] @ right, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "down", "across"),
    [
        ((64, 193, 128), 1, 2),
        ((64, 512, 128), 2, 4),
        ((64, 512, 64), 2, 2),
        ((61, 512, 131), 1, 1),  # neither can be cut
        ((64, 100_000, 128), 1, 1),  # tiles would be too narrow
        ((64, 16, 64), 1, 1),
    ],
)
def test_tiles_are_as_few_and_as_square_as_they_can_be(shape: tuple[int, int, int], down: int, across: int) -> None:
    rows, inner, columns = shape
    tiles = Tiles.of(np.zeros((inner, columns), np.float32), rows, MOST)
    assert (tiles.down, tiles.right.shape[-3]) == (down, across)
    if down * across > 1:
        assert rows // down * inner * (columns // across) <= MOST
        assert rows // down >= LEAST[0]
        assert columns // across >= LEAST[1]


def test_rows_of_several_places_are_multiplied_as_they_are() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 3, 7)), rng.standard_normal((7, 4))
    np.testing.assert_allclose(multiply(a, b), a @ b, atol=1e-12)
    assert multiply(a[:, :0], b).shape == (5, 0, 4)
