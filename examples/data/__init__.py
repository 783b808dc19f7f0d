"""The data that the examples learn from: where each dataset comes from, and what it looks like.

What scikit-learn has comes from its installation, Fashion-MNIST from a Debian package, and all else from published
packages, of which one checked file each is fetched into build/ when it is first needed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from examples.data import digits, images, series, tables, text
from examples.data.columns import Columns

STORE = Path(__file__).parents[2] / "build" / "examples"
"""Where fetched files are kept."""


@dataclass(frozen=True)
class Column:
    """What a column looks like: its type, the shape of a row, and what integers are below, or which texts there are."""

    dtype: str
    shape: tuple[int, ...] = ()
    below: int = 0
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """How a dataset is made."""

    make: Callable[[Path], Columns]
    """Makes its columns, with a folder for what has to be fetched. Raises Missing."""
    columns: Mapping[str, Column] = field(default_factory=dict)
    """What they look like, for those that do not come with scikit-learn."""
    is_series: bool = False
    """Whether its rows are in the order of time."""

    def stand_in(self, rows: int) -> Columns:
        """Columns that look like the real ones, of numbers without a meaning: to try a job without fetching data."""
        rng = np.random.default_rng(0)
        return {name: _meaningless(rng, column, rows) for name, column in self.columns.items()}


def every(columns: Columns, rows: int) -> Columns:
    """About so many of the rows, evenly spread: of every class some, as long as they are not sorted by a period."""
    total = len(next(iter(columns.values())))
    picked = np.arange(min(rows, total)) * total // min(rows, total)
    return {name: column[picked] for name, column in columns.items()}


def _meaningless(rng: np.random.Generator, column: Column, rows: int) -> Any:
    shape = (rows, *column.shape)
    if column.texts:
        return rng.choice(np.array(column.texts), shape)
    if column.below:
        return rng.integers(column.below, size=shape).astype(column.dtype)
    return rng.standard_normal(shape).astype(column.dtype)


def text_column(*texts: str) -> Column:
    """A column that has any of these texts."""
    return Column(f"<U{max(map(len, texts))}", (), 0, texts)


YES_NO = text_column("Yes", "No")
HALF_HOURS = {"demand": Column("float64"), "tomorrow": text_column(*series.WEEKDAYS)}

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "digits": Source(digits.all_digits),
        "digits-0-to-4": Source(digits.lower_half),
        "digits-5-to-9": Source(digits.upper_half),
        "wine": Source(digits.wine),
        "fashion-mnist": Source(
            images.fashion_mnist, {"x": Column("uint8", (28, 28), 256), "y": Column("uint8", (), 10)}
        ),
        "default": Source(
            tables.default,
            {"student": YES_NO, "default": YES_NO, "balance": Column("float64"), "income": Column("float64")},
        ),
        "bikeshare": Source(
            tables.bikeshare,
            {
                **dict.fromkeys(tables.CATEGORIES, text_column("a", "b", "c")),
                **dict.fromkeys((*tables.FLAGS, *tables.WEATHER, "bikers"), Column("float64")),
            },
        ),
        "electricity": Source(series.electricity, HALF_HOURS, is_series=True),
        "electricity-last-weeks": Source(series.electricity_last_weeks, HALF_HOURS, is_series=True),
        "snippets": Source(
            text.snippets, {"snippet": text_column("a good film", "bad", "no!"), "mood": text_column(*text.MOODS)}
        ),
    }
)
"""By the name that job files call them."""
