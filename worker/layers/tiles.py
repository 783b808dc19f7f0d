"""A product in tiles, for layers whose factors lie in the processor's cache.

OpenBLAS copies both factors into an order of its own before it multiplies: of a product of 64 rows, a fourth of its
time. Products of up to a million multiplications its kernels for AVX-512 take as they are, and go through 64 columns
at a time. So larger ones are cut into such tiles there, by rows and columns alone: every number is the same sum.
Measured in docs/architecture.md.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from worker.arrays import Array, aligned
from worker.versions import kernels

MOST = 1_000_000
"""Multiplications in a product that is not copied first."""

SMALL_KERNELS = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
"""The processors, by OpenBLAS's names, for which it has kernels that don't copy."""

COLUMNS = 64
"""Of a tile, where they divide what there is; else it has all of them."""

LEAST_ROWS = 8
"""Of a tile: of fewer the kernels are slow."""

HIGH = 24
"""Rows of a tile in `over_rows`: there the kernels go through twelve at a time."""


@dataclass(frozen=True)
class Tiles:
    """What a matrix of some rows is multiplied with: `np.matmul(tiles.left(a), tiles.right, out=tiles.out(y))`."""

    right: Array
    """(..., 1, tiles across, inner, columns of a tile)."""
    down: int
    """Tiles below each other."""

    @staticmethod
    def of(right: Array, rows: int, most: int | None = None) -> "Tiles":
        """Cuts the product of (rows, inner) and each `right` (..., inner, columns), into tiles of `most`."""
        *others, inner, columns = right.shape
        down, across = _counts(rows, inner, columns, _most() if most is None else most)
        cut = right.reshape(*others, inner, across, columns // across).swapaxes(-3, -2)
        tiles = aligned(cut.shape, cut.dtype)
        tiles[...] = cut
        return Tiles(tiles[..., np.newaxis, :, :, :], down)

    def left(self, a: Array) -> Array:
        """Some (..., rows, inner), to be multiplied."""
        *others, rows, inner = a.shape
        return a.reshape(*others, self.down, 1, rows // self.down, inner)

    def out(self, y: Array) -> Array:
        """Room for some products (..., rows, columns), to be written into."""
        *others, rows, columns = y.shape
        across = self.right.shape[-3]
        return y.reshape(*others, self.down, rows // self.down, across, columns // across).swapaxes(-3, -2)


def over_rows(a: Array, b: Array, out: Array) -> None:
    """a^T b for a (..., rows, n) and b (..., rows, columns), into out (..., n, columns), in tiles."""
    *others, rows, n = a.shape
    columns = b.shape[-1]
    width = _width(columns)
    is_cut = rows * n * columns > _most() >= rows * HIGH * width
    if high := n - n % HIGH if is_cut else 0:
        left = np.moveaxis(a[..., :high].reshape(*others, rows, high // HIGH, 1, HIGH), -4, -1)
        right = b.reshape(*others, rows, 1, columns // width, width)
        room = out[..., :high, :].reshape(*others, high // HIGH, HIGH, columns // width, width)
        np.matmul(left, np.moveaxis(right, -4, -2), out=room.swapaxes(-3, -2))
    if high < n:
        np.matmul(a[..., high:].swapaxes(-1, -2), b, out=out[..., high:, :])


def _most() -> int:
    """The most multiplications in a tile; 0 where no kernels take tiles as they are."""
    return MOST if kernels() and kernels() <= SMALL_KERNELS else 0


def _width(columns: int) -> int:
    return COLUMNS if columns % COLUMNS == 0 else columns


@lru_cache(maxsize=1024)
def _counts(rows: int, inner: int, columns: int, most: int) -> tuple[int, int]:
    """How many tiles below and beside each other: as few as do; one where none do."""
    if not most or rows * inner * columns <= most:
        return 1, 1
    width = _width(columns)
    fitting = [n for n in range(1, rows // LEAST_ROWS + 1) if rows % n == 0 and rows // n * inner * width <= most]
    return (fitting[0], columns // width) if fitting else (1, 1)
