"""What is known of a column without reading it again."""

from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape

ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Column:
    """One typed array of a dataset; its first axis is the row."""

    name: str
    dtype: str
    row_shape: Shape
    min: float
    max: float
    nonfinite_count: int

    @property
    def integral(self) -> bool:
        """Whether it holds integers. Truth values are none: NumPy would take them as a mask."""
        return np.dtype(self.dtype).kind in "iu"


def describe(name: str, array: Array) -> Column:
    """A column's type, shape and statistics, read in blocks so that a large one costs no memory."""
    low, high, nonfinite = np.inf, -np.inf, 0
    for start in range(0, len(array), ROWS_AT_ONCE):
        block = array[start : start + ROWS_AT_ONCE]
        if block.dtype.kind == "f":
            finite = np.isfinite(block)
            nonfinite += int(block.size - np.count_nonzero(finite))
            block = block[finite]
        if block.size:
            low, high = min(low, float(block.min())), max(high, float(block.max()))
    if low > high:
        low = high = 0.0
    return Column(name, array.dtype.name, array.shape[1:], low, high, nonfinite)
