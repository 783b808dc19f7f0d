"""How a dataset's columns become what a network learns from, and later takes.

    Preparation         what is asked for
    fit                 learns what it takes, of the training rows alone
    FittedPreparation   what was learned: data, which JSON keeps without loss
    prepare             a fixed function from columns to rows of numbers

Fitting and preparing go through rows in blocks of a fixed size, in order: the result follows from the data alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from service.data.classes import ClassNames, FittedClasses, fit_classes
from service.data.columns import Column
from service.data.datasets import Dataset
from service.data.features import (
    AsIs,
    FittedCategories,
    FittedNumbers,
    NotPreparable,
    OneHot,
    Scale,
    Standardise,
    fit_categories,
    fit_numbers,
)
from service.data.windows import Windows
from service.data.words import FittedWords, Tokenise, fit_words
from service.errors import Violations
from worker.arrays import Array, Rows, Shape

REST = "*"
ROWS_AT_ONCE = 4_096
LARGEST_WIDTH = 100_000

Kind: TypeAlias = Standardise | Scale | OneHot | AsIs | Tokenise
FittedInput: TypeAlias = FittedNumbers | FittedCategories | FittedWords
FittedTarget: TypeAlias = FittedClasses | FittedNumbers

KINDS: Mapping[str, type[Any]] = {
    "standardise": Standardise,
    "scale": Scale,
    "one_hot": OneHot,
    "as_is": AsIs,
    "tokenise": Tokenise,
}
TARGET_KINDS: Mapping[str, type[Any]] = {"classes": ClassNames, "standardise": Standardise}
FITTED: Mapping[str, type[Any]] = {
    "numbers": FittedNumbers,
    "categories": FittedCategories,
    "words": FittedWords,
    "classes": FittedClasses,
}
"""What was learned, by its name in JSON."""


@dataclass(frozen=True)
class Feature:
    """Some columns and what becomes of each."""

    columns: tuple[str, ...]
    kind: Kind
    fill: float | None = None
    fill_mean: bool = False


@dataclass(frozen=True)
class Preparation:
    """What is asked for; no feature leaves the input as it is, no target the target."""

    features: tuple[Feature, ...] = ()
    target: ClassNames | Standardise | None = None
    windows: Windows | None = None


@dataclass(frozen=True)
class FittedPreparation:
    """What inputs and targets are made by; empty or None where they are left as they are."""

    inputs: tuple[FittedInput, ...] = ()
    target: FittedTarget | None = None
    windows: Windows | None = None

    @property
    def width(self) -> int:
        """How many numbers are made of a row."""
        return sum(part.width for part in self.inputs)

    @property
    def row_shape(self) -> Shape:
        """Of an input."""
        return (self.windows.length, self.width) if self.windows else (self.width,)

    @property
    def integral(self) -> bool:
        """Whether inputs are integers."""
        return all(part.integral for part in self.inputs)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty if they have none."""
        return tuple(map(str, self.target.categories)) if isinstance(self.target, FittedClasses) else ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that an input is made of, each once."""
        return tuple(dict.fromkeys(part.column for part in self.inputs))

    def to_json(self) -> str:
        """As models and prepared datasets carry it."""
        target = _described(self.target) if self.target else None
        windows = asdict(self.windows) if self.windows else None
        inputs = [_described(part) for part in self.inputs]
        return json.dumps({"inputs": inputs, "target": target, "windows": windows})

    @classmethod
    def from_json(cls, text: str) -> "FittedPreparation":
        """The inverse."""
        values: dict[str, Any] = json.loads(text)
        target = _restored(values["target"]) if values["target"] else None
        windows = Windows(**values["windows"]) if values.get("windows") else None
        return cls(tuple(map(_restored, values["inputs"])), target, windows)


def prepare(fitted: FittedPreparation, columns: Mapping[str, Array], dtype: Any = np.float32) -> Array:
    """Rows for a network (rows, width), made of columns by name, each (rows, ...).

    Of `dtype`, unless they are integers. Raises InvalidArgument, naming each column that is missing or doesn't fit.
    """
    violations = Violations()
    lengths = {len(columns[name]) for name in fitted.columns if name in columns}
    for name in fitted.columns:
        if name not in columns:
            violations.add(f"columns.{name[:100]}", "is missing; the model's input is made of it")
    if len(lengths) > 1:
        violations.add("columns", f"have {', '.join(map(str, sorted(lengths)))} rows; must all have as many")
    violations.raise_any()
    parts = []
    for part in fitted.inputs:
        try:
            parts.append(part.apply(columns[part.column]))
        except NotPreparable as error:
            violations.add(f"columns.{part.column[:100]}", str(error))
    violations.raise_any()
    return _beside(parts, np.result_type(*parts) if fitted.integral else dtype)


@dataclass(frozen=True)
class Table:
    """Columns by name, that are prepared when a slice of the rows is asked for.

    (rows, ...) each; (windows, length, ...) where inputs are windows, which then count as rows.
    """

    fitted: FittedPreparation
    columns: Mapping[str, Array]

    def __len__(self) -> int:
        return max(map(len, self.columns.values()), default=0)

    def __getitem__(self, rows: slice) -> Array:
        """Raises InvalidArgument."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        if self.fitted.windows is None:
            return prepare(self.fitted, columns, np.float64)
        flat = {name: column.reshape(-1, *column.shape[2:]) for name, column in columns.items()}
        return prepare(self.fitted, flat, np.float64).reshape(-1, *self.fitted.row_shape)


def fit(
    asked: Preparation,
    dataset: Dataset,
    column_of: Callable[[int], Array],
    rows: Rows,
    names: tuple[str, str],
    path: str,
) -> FittedPreparation:
    """Learns from the rows `rows` of a dataset.

    `column_of` gives a column by its number; `names` are those of the target and of the weight, "" for none. Raises
    InvalidArgument, naming every field below `path` that doesn't fit the dataset.
    """
    violations = Violations()

    def blocks(column: Column) -> Iterator[Array]:
        array = column_of(dataset.column(column.name) or 0)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield array[rows[start : start + ROWS_AT_ONCE]]

    inputs: list[FittedInput] = []
    for index, feature in enumerate(asked.features):
        field = f"{path}.features[{index}].columns"
        for column in _named(asked, feature, dataset, names, field, violations):
            try:
                inputs.append(_fit(feature, column, blocks(column)))
            except NotPreparable as error:
                violations.add(field, str(error))
    if (width := sum(part.width for part in inputs)) > LARGEST_WIDTH:
        violations.add(f"{path}.features", f"give {width:,} numbers a row; must give at most {LARGEST_WIDTH:,}")
    target: FittedTarget | None = None
    number = dataset.column(names[0])
    if asked.target is not None and number is None:
        known = ", ".join(repr(column.name) for column in dataset.columns[:20])
        problem = f"is {names[0][:100]!r}, which {dataset.name} doesn't have; its columns: {known}"
        violations.add(f"{path}.target_column", problem)
    elif asked.target is not None and number is not None:
        try:
            target = _fit_target(asked.target, dataset.columns[number], blocks(dataset.columns[number]))
        except NotPreparable as error:
            violations.add(f"{path}.target", str(error))
    violations.raise_any()
    return FittedPreparation(tuple(inputs), target, asked.windows)


def _fit(feature: Feature, column: Column, blocks: Iterator[Array]) -> FittedInput:
    match feature.kind:
        case OneHot():
            return fit_categories(column, blocks)
        case Tokenise():
            return fit_words(feature.kind, column, blocks)
        case kind:
            return fit_numbers(kind, column, blocks, feature.fill, feature.fill_mean)


def _fit_target(kind: ClassNames | Standardise, column: Column, blocks: Iterator[Array]) -> FittedTarget:
    if isinstance(kind, ClassNames):
        return fit_classes(kind, column, blocks)
    return fit_numbers(kind, column, blocks, None, False)


def _named(
    asked: Preparation, feature: Feature, dataset: Dataset, names: tuple[str, str], field: str, violations: Violations
) -> list[Column]:
    """The columns of a feature; those that aren't there, or are the target, are noted."""
    taken = {*names, *(name for each in asked.features for name in each.columns)}
    found = []
    for name in feature.columns:
        number = dataset.column(name)
        if name == REST:
            rest = [column for column in dataset.columns if column.name not in taken]
            if not rest:
                violations.add(field, f"{REST!r} stands for no column, since all are named elsewhere")
            found += rest
        elif number is None:
            known = ", ".join(repr(column.name) for column in dataset.columns[:20])
            violations.add(field, f"has {name[:100]!r}, which {dataset.name} doesn't have; its columns: {known}")
        elif name in names and not asked.windows:  # whose rows come before the target
            violations.add(field, f"has {name!r}, which is the target or the weight; an input must not tell it")
        else:
            found.append(dataset.columns[number])
    return found


def _beside(parts: list[Array], dtype: Any) -> Array:
    """Side by side, in one type."""
    with np.errstate(over="ignore"):
        joined: Array = np.concatenate([part.astype(dtype, copy=False) for part in parts], axis=1)
    return joined


def _described(part: FittedInput | FittedTarget) -> dict[str, Any]:
    return {"kind": next(name for name, cls in FITTED.items() if type(part) is cls), **asdict(part)}


def _restored(values: dict[str, Any]) -> Any:
    cls = FITTED[values["kind"]]
    return cls(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name != "kind"}
    )
