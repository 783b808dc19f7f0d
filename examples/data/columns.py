"""What a dataset consists of, and two ways to make numbers of a table's columns that a network learns from easily."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

Columns: TypeAlias = Mapping[str, Array]
"""A dataset: arrays with the same number of rows, by name."""


def standardised(columns: Array) -> Array:
    """Every column with mean 0 and standard deviation 1."""
    scaled: Array = ((columns - columns.mean(axis=0)) / columns.std(axis=0)).astype(np.float32)
    return scaled


def one_hot(values: Sequence[str]) -> Array:
    """A column for every different value, in their order: 1 where a row has it, else 0."""
    names, numbers = np.unique(np.array(values), return_inverse=True)
    table: Array = np.eye(len(names), dtype=np.float32)[numbers]
    return table
