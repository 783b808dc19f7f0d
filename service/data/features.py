"""What becomes of columns of numbers and of categories: each kind learns from rows, and is then a fixed function.

What a kind has learned is data, which JSON keeps without loss. Errors name the column, and no field of a request.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from service.data.columns import Column
from worker.arrays import Array
from worker.errors import InvalidValue

MOST_CATEGORIES = 10_000
LONGEST = 100
"""How much of a text is repeated in errors."""

Blocks: TypeAlias = Iterator[Array]
"""The training rows of a column, some at a time."""


class NotPreparable(ValueError):
    """A column of which a feature can't be made; says why, and what would do."""


@dataclass(frozen=True)
class Standardise:
    """(x - mean) / standard deviation."""


@dataclass(frozen=True)
class Scale:
    """(x - offset) / scale."""

    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not np.isfinite(self.offset):
            raise InvalidValue("offset", f"is {self.offset:g}; must be a finite number")
        if not np.isfinite(self.scale) or self.scale == 0:
            raise InvalidValue("scale", f"is {self.scale:g}; must be a finite number other than 0")


@dataclass(frozen=True)
class OneHot:
    """A number for each category."""


@dataclass(frozen=True)
class AsIs:
    """The numbers as they are."""


@dataclass(frozen=True)
class FittedNumbers:
    """(x - offset) / scale, a pair of them for each of a row's numbers; missing ones are filled first."""

    column: str
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    fill: tuple[float, ...] | None = None
    integral: bool = False
    """Whether integers are left as they are."""

    takes_text = False

    @property
    def width(self) -> int:
        """How many numbers a row gives."""
        return len(self.offset)

    def apply(self, values: Array) -> Array:
        """(rows,) or (rows, width) to (rows, width). Raises NotPreparable."""
        numbers = as_numbers(self.column, values)
        if numbers.shape[1] != self.width:
            raise NotPreparable(f"{self.column!r} has {numbers.shape[1]} numbers a row; must have {self.width}")
        if self.integral and values.dtype.kind in "iu":
            return values.reshape(numbers.shape)
        if self.fill is not None:
            numbers = np.where(np.isnan(numbers), self.fill, numbers)
        if not np.isfinite(numbers).all():
            raise NotPreparable(
                f"{self.column!r} has elements that are NaN or infinite; "
                "`fill` or `fill_mean` says what takes the place of those that are missing (NaN)"
            )
        return (numbers - self.offset) / self.scale

    def undo(self, prepared: Array) -> Array:
        """The numbers that these were made of."""
        original: Array = prepared * self.scale + self.offset
        return original


@dataclass(frozen=True)
class FittedCategories:
    """1 in the place of the category, else 0."""

    column: str
    categories: tuple[int, ...] | tuple[str, ...]
    """In order."""
    integral = False

    @property
    def takes_text(self) -> bool:
        """Whether its column holds text."""
        return isinstance(self.categories[0], str)

    @property
    def width(self) -> int:
        """How many numbers a row gives."""
        return len(self.categories)

    def apply(self, values: Array) -> Array:
        """(rows,) to (rows, width). Raises NotPreparable."""
        found, known = places(self.column, values, self.categories)
        hot = np.zeros((len(found), self.width), np.float32)
        rows = np.flatnonzero(known)
        hot[rows, found[rows]] = 1
        return hot


def fit_numbers(
    kind: Standardise | Scale | AsIs, column: Column, blocks: Blocks, fill: float | None, fill_mean: bool
) -> FittedNumbers:
    """What a kind learns of the training rows. Raises NotPreparable."""
    if column.is_text:
        raise NotPreparable(f"{column.name!r} holds text; must hold numbers: one_hot and tokenise take text")
    if len(column.row_shape) > 1:
        raise NotPreparable(f"{column.name!r} has rows of shape {column.row_shape}; must be numbers or lists of them")
    if column.nonfinite_count and fill is None and not fill_mean:
        raise NotPreparable(
            f"{column.name!r} has {column.nonfinite_count:,} elements that are NaN or infinite; "
            "`fill` or `fill_mean` says what takes the place of those that are missing (NaN)"
        )
    (width,) = column.row_shape or (1,)
    learns = isinstance(kind, Standardise) or fill_mean
    count, mean, deviation = moments(column.name, blocks, width) if learns else (np.ones(width), *np.zeros((2, width)))
    if learns and not count.all() and (fill_mean or fill is None):
        raise NotPreparable(f"{column.name!r} has no number in any training row; leave the column out")
    if not np.isfinite([mean, deviation]).all():
        raise NotPreparable(f"{column.name!r} has numbers too large to take their deviation; use `scale`")
    filling = tuple(mean.tolist()) if fill_mean else None if fill is None else (fill,) * width
    match kind:
        case Standardise():
            offset, scale = tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())
        case Scale():
            offset, scale = (kind.offset,) * width, (kind.scale,) * width
        case _:
            offset, scale = (0.0,) * width, (1.0,) * width
    return FittedNumbers(column.name, offset, scale, filling, isinstance(kind, AsIs) and column.integral)


def fit_categories(column: Column, blocks: Blocks) -> FittedCategories:
    """The categories of the training rows. Raises NotPreparable."""
    return FittedCategories(column.name, distinct(column, blocks))


def distinct(column: Column, blocks: Blocks) -> tuple[int, ...] | tuple[str, ...]:
    """The different integers or texts, in order; missing numbers are none. Raises NotPreparable."""
    if column.row_shape:
        raise NotPreparable(f"{column.name!r} has rows of shape {column.row_shape}; categories are one value a row")
    found: set[int] | set[str] = set()
    for block in blocks:
        values, known = as_categories(column.name, block)
        found = found | set(np.unique(values[known]).tolist())
        if len(found) > MOST_CATEGORIES:
            raise NotPreparable(
                f"{column.name!r} has more than {MOST_CATEGORIES:,} different values, which is the most"
            )
    if not found:
        raise NotPreparable(f"{column.name!r} has no value in any training row; leave the column out")
    ordered: Any = tuple(sorted(found))
    return ordered  # type: ignore[no-any-return]  # all integers, or all texts


def places(name: str, values: Array, categories: tuple[int, ...] | tuple[str, ...]) -> tuple[Array, Array]:
    """The index of each value among the categories, and whether it is there at all. Raises NotPreparable."""
    given, present = as_categories(name, values)
    known = np.array(categories)
    if (given.dtype.kind == "U" and known.dtype.kind != "U") or (given.dtype.kind != "U" and known.dtype.kind == "U"):
        wanted, got = ("text", "numbers") if known.dtype.kind == "U" else ("integers", "text")
        raise NotPreparable(f"{name!r} holds {got}; must hold {wanted}")
    order = np.argsort(known, kind="stable")
    found = np.minimum(np.searchsorted(known[order], given), len(known) - 1)
    index: Array = order[found]
    return index, present & (known[index] == given)


def as_categories(name: str, values: Array) -> tuple[Array, Array]:
    """Values as integers or texts, and which are there; numbers must be whole. Raises NotPreparable."""
    if values.ndim != 1:
        raise NotPreparable(f"{name!r} has rows of shape {values.shape[1:]}; categories are one value a row")
    if values.dtype.kind in "US":
        return values.astype(str, copy=False), np.ones(len(values), bool)
    if values.dtype.kind != "f":
        return values.astype(np.int64, copy=False), np.ones(len(values), bool)
    present = ~np.isnan(values)
    whole = np.where(present, values, 0)
    if not (np.abs(whole) <= 2.0**53).all() or (whole != np.rint(whole)).any():
        raise NotPreparable(f"{name!r} has numbers with a fraction; categories are integers or texts")
    return whole.astype(np.int64), present


def as_numbers(name: str, values: Array) -> Array:
    """(rows,) or (rows, width) to (rows, width), in float64. Raises NotPreparable."""
    if values.dtype.kind not in "iufb":
        raise NotPreparable(f"{name!r} holds text; must hold numbers")
    if values.ndim not in (1, 2):
        raise NotPreparable(f"{name!r} has rows of shape {values.shape[1:]}; must be numbers or lists of them")
    return values.astype(np.float64, copy=False).reshape((*values.shape, 1)[:2])


def moments(name: str, blocks: Blocks, width: int) -> tuple[Array, Array, Array]:
    """How many finite numbers there are, their mean and standard deviation, each (width,).

    Merged block by block (Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm, 1979).
    """
    count, mean, squares = np.zeros((3, width))
    for block in blocks:
        numbers = as_numbers(name, block)
        finite = np.isfinite(numbers)
        more = finite.sum(axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            mean_here = np.where(finite, numbers, 0).sum(axis=0) / np.maximum(more, 1)
            distance, both = mean_here - mean, np.maximum(count + more, 1)
            squares += np.square(np.where(finite, numbers - mean_here, 0)).sum(axis=0)
            squares += np.square(distance) * (count * more / both)
            mean += distance * (more / both)
        count += more
    return count, mean, np.sqrt(squares / np.maximum(count, 1))
