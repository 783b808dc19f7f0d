"""What is known of a column without reading it again.

Statistics are taken of blocks and merged, so that a column of any size costs no memory, and any cut into blocks gives
the same but for rounding.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from worker.arrays import Array, Shape

BYTES_AT_ONCE = 2 << 20
MOST_DISTINCT = 1_000
"""Up to so many different elements are counted."""

MOST_CLASSES = 10_000
"""From this many on numbers are hardly classes any more."""

SAFE, SCALE = 2.0**500, 2.0**600
"""Numbers up to SAFE can be squared and added without leaving the range of floats; others once divided by SCALE."""


@dataclass(frozen=True)
class Column:
    """One typed array of a dataset; its first axis is the row."""

    name: str
    dtype: str
    """As NumPy names it: "float32"; for text "<U" and how many characters there is room for."""
    row_shape: Shape
    min: float
    max: float
    nonfinite_count: int
    mean: float = 0.0
    standard_deviation: float = 0.0
    """Of the finite elements, all of them (not a sample's estimate)."""
    distinct_count: int | None = None
    """Of the finite elements or texts; None if there are more than MOST_DISTINCT."""
    longest_text: int = 0
    missing: tuple[int, ...] = ()
    """Of a column of up to MOST_DISTINCT integers from 0 on, or -1, and below MOST_CLASSES: those up to `max` that no
    row has."""
    sha256: str = field(default="", compare=False)
    """Of the file that it lies in, for whoever looks whether that is still whole; "" if nobody took it."""

    @property
    def integral(self) -> bool:
        """Whether it holds integers. Truth values are none: NumPy would take them as a mask."""
        return np.dtype(self.dtype).kind in "iu"

    @property
    def is_text(self) -> bool:
        """Whether it holds text, from which no network can learn as it is."""
        return np.dtype(self.dtype).kind == "U"

    def bytes(self, rows: int) -> int:
        """What so many rows take."""
        return rows * math.prod(self.row_shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Statistics:
    """Of some elements: enough to say the same of them together with others."""

    count: int = 0
    nonfinite: int = 0
    low: float = np.inf
    high: float = -np.inf
    mean: np.longdouble = field(default_factory=np.longdouble)
    squares: np.longdouble = field(default_factory=np.longdouble)
    """The sum of squared distances from the mean; in a wide type, whose range the square of any float is within."""
    distinct: frozenset[object] | None = frozenset()
    longest: int = 0

    @classmethod
    def of(cls, block: Array, count_distinct: bool = True) -> "Statistics":
        """Of one block, which is read as often as there are things to know of it."""
        if block.dtype.kind == "U":
            longest = int(np.strings.str_len(block).max(initial=0))
            return cls(block.size, distinct=_distinct(block) if count_distinct else None, longest=longest)
        nonfinite = 0
        if block.dtype.kind == "f":
            finite = np.isfinite(block)
            nonfinite = int(block.size - np.count_nonzero(finite))
            block = block[finite] if nonfinite else block
        if not block.size:
            return cls(nonfinite=nonfinite)
        values = block.astype(np.float64, copy=False)
        low, high = float(values.min()), float(values.max())
        scale = 1.0 if max(-low, high) < SAFE else SCALE
        scaled = values if scale == 1.0 else values / scale
        mean = scaled.mean()
        squares = np.longdouble(np.square(scaled - mean).sum()) * np.longdouble(scale) ** 2
        distinct = _distinct(block) if count_distinct else None
        return cls(block.size, nonfinite, low, high, np.longdouble(mean) * np.longdouble(scale), squares, distinct)

    def __add__(self, other: "Statistics") -> "Statistics":
        """Of both together (Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm, 1979)."""
        count = self.count + other.count
        mean, squares = self.mean, self.squares + other.squares
        if count:
            distance = other.mean - self.mean
            mean = self.mean + distance * (other.count / count)
            squares += distance * distance * (self.count * (other.count / count))
        return Statistics(
            count,
            self.nonfinite + other.nonfinite,
            min(self.low, other.low),
            max(self.high, other.high),
            mean,
            squares,
            _together(self.distinct, other.distinct),
            max(self.longest, other.longest),
        )


def describe(name: str, array: Array) -> Column:
    """A column's type, shape and statistics."""
    found = Statistics()
    for block in blocks(array):
        found += Statistics.of(block, found.distinct is not None)
    empty = found.low > found.high
    text = array.dtype.kind == "U"
    return Column(
        name,
        array.dtype.str if text else array.dtype.name,
        array.shape[1:],
        0.0 if empty else found.low,
        0.0 if empty else found.high,
        found.nonfinite,
        float(found.mean),
        float(np.sqrt(found.squares / max(found.count, 1))),
        None if found.distinct is None else len(found.distinct),
        found.longest,
        _missing(found) if array.dtype.kind in "iu" else (),
    )


def _missing(found: "Statistics") -> tuple[int, ...]:
    if found.distinct is None or not -1 <= found.low <= found.high < MOST_CLASSES:
        return ()
    return tuple(number for number in range(int(found.high)) if number not in found.distinct)


def blocks(array: Array) -> Iterator[Array]:
    """All elements in order, flat, so many at a time as fit into BYTES_AT_ONCE, in the machine's byte order."""
    flat = array.reshape(-1)
    count = max(BYTES_AT_ONCE // max(array.dtype.itemsize, 8), 1)
    for start in range(0, flat.size, count):
        block = flat[start : start + count]
        yield np.ascontiguousarray(block, array.dtype.newbyteorder("="))


def _distinct(block: Array) -> frozenset[object] | None:
    if block.dtype.kind in "iub" and block.dtype.itemsize == 1:  # counting is faster than sorting
        values = np.flatnonzero(np.bincount(block.view(np.uint8), minlength=256)).astype(np.uint8).view(block.dtype)
    else:
        # A look at a few first: where they differ, the rest need not be sorted.
        values = np.unique(block[: 4 * MOST_DISTINCT])
        if len(values) <= MOST_DISTINCT:
            values = np.unique(block)
    return frozenset(values.tolist()) if len(values) <= MOST_DISTINCT else None


def _together(one: frozenset[object] | None, other: frozenset[object] | None) -> frozenset[object] | None:
    if one is None or other is None:
        return None
    both = one | other
    return both if len(both) <= MOST_DISTINCT else None
