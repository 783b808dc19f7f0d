"""What a dataset consists of, and how columns with texts among them are sent."""

import csv
import io
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

Columns: TypeAlias = Mapping[str, Array]
"""A dataset: arrays with the same number of rows, by name."""


def has_text(columns: Columns) -> bool:
    """Whether any column holds texts."""
    return any(column.dtype.kind == "U" for column in columns.values())


def as_csv(columns: Columns) -> bytes:
    """A table of columns with one value a row, as users have such tables."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    return text.getvalue().encode()
