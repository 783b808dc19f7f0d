"""The types that the numerics are written in.

One word for each, so that signatures read like the formulas they stand for.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
"""An array of numbers. Docstrings give its shape, as in (rows, features)."""

Rows: TypeAlias = npt.NDArray[np.intp]
"""Row numbers of a dataset, one-dimensional."""

Shape: TypeAlias = tuple[int, ...]
"""The shape of one row: what is left of an array's shape without its first axis."""


def spread(weights: Array, shape: Shape) -> Array:
    """The weights of rows, (rows,), for each place of an array of `shape` (rows, ...): (places,)."""
    of_row: Array = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return np.broadcast_to(of_row, shape).reshape(-1)
