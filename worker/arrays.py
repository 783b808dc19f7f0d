"""The types that the numerics are written in.

One word for each, so that signatures read like the formulas they stand for.
"""

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
"""An array of numbers. Docstrings give its shape, as in (rows, features)."""

Rows: TypeAlias = npt.NDArray[np.intp]
"""Row numbers of a dataset, one-dimensional."""

Shape: TypeAlias = tuple[int, ...]
"""The shape of one row: what is left of an array's shape without its first axis."""


CACHE_LINE = 64
"""Bytes that a processor gets from memory at a time; and as many are in the largest of its registers."""


def aligned(shape: Shape, dtype: npt.DTypeLike) -> Array:
    """As np.empty, but beginning with a line of the cache, so that no register's load reaches into two of them."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def spread(weights: Array, shape: Shape) -> Array:
    """The weights of rows, (rows,), or of places, (rows, time), for each place of an array of `shape`: (places,)."""
    of_row: Array = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return np.broadcast_to(of_row, shape).reshape(-1)


def by_row(weights: Array) -> tuple[Array, Array]:
    """From the weights of places (rows, time), 0 where one is padded, those of rows (rows,), and what each place counts
    in a mean over time (rows, time) so that it is one over those that are not: time / how many they are.
    """
    given = weights > 0
    count = np.maximum(np.count_nonzero(given, axis=1), 1)
    share: Array = given * (weights.shape[1] / count).astype(weights.dtype)[:, np.newaxis]
    return np.maximum.reduce(weights, axis=1), share


def of_elements(weights: Array, elements: int) -> Array:
    """The weights of rows, (rows,), or of places, (rows, time), for each of a row's elements: (rows, elements)."""
    by_place = weights.reshape(len(weights), 1 if weights.ndim == 1 else weights.shape[1])
    return np.repeat(by_place, elements // by_place.shape[1], axis=1)
