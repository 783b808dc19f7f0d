"""Targets that are named: texts or any integers as classes, 0 to n - 1."""

from dataclasses import dataclass

import numpy as np

from service.data.columns import Column
from service.data.features import LONGEST, MOST_CATEGORIES, Blocks, NotPreparable, distinct, places
from worker.arrays import Array
from worker.errors import InvalidValue


@dataclass(frozen=True)
class ClassNames:
    """The names in the order of the classes; none to take those of the training rows, sorted."""

    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) > MOST_CATEGORIES:
            raise InvalidValue("names", f"has {len(self.names):,} names; must have at most {MOST_CATEGORIES:,}")
        if len(set(self.names)) < len(self.names):
            raise InvalidValue("names", "has a name twice; each class has a name of its own")


@dataclass(frozen=True)
class FittedClasses:
    """Which class has which name."""

    column: str
    categories: tuple[int, ...] | tuple[str, ...]

    def apply(self, values: Array) -> Array:
        """Names (rows,) to classes (rows,). Raises NotPreparable."""
        found, known = places(self.column, values, self.categories)
        if not known.all():
            value = str(values[int(np.argmin(known))])[:LONGEST]
            raise NotPreparable(
                f"{self.column!r} has the class {value!r}, which is none of those that can be learned "
                f"(of the training rows, or as named): {named(self.categories)}"
            )
        return found.astype(np.int64)


def fit_classes(kind: ClassNames, column: Column, blocks: Blocks) -> FittedClasses:
    """The classes of the training rows, in the order that was asked for. Raises NotPreparable."""
    found = distinct(column, blocks)
    if not kind.names:
        return FittedClasses(column.name, found)
    texts = {str(category): category for category in found}
    if missing := [name for name in kind.names if name not in texts]:
        raise NotPreparable(
            f"{column.name!r} has no training row of the class {missing[0][:LONGEST]!r}; its classes: {named(found)}"
        )
    return FittedClasses(column.name, tuple(texts[name] for name in kind.names))  # type: ignore[arg-type]


def named(categories: tuple[int, ...] | tuple[str, ...]) -> str:
    """Some classes in words."""
    return ", ".join(str(category)[:LONGEST] for category in categories[:20]) + (
        ", ..." if len(categories) > 20 else ""
    )
