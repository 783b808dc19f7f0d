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
