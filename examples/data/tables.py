"""Two tables from the labs of "An Introduction to Statistical Learning" (James et al. 2023)."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from examples.data.archives import Archive, from_zip
from examples.data.columns import Array, one_hot, standardised

ISLP = Archive("ISLP", "0.4.0", "1c1d628cf79a467bea2a2972dc78603c7a5a05580b9255f5dfa2109e1a713133")

DEFAULT, BIKESHARE = 3, 12 + 24 + 7 + 4 + 2 + 4
"""How many numbers a row of x has."""


def default(store: Path) -> dict[str, Array]:
    """10,000 owners of credit cards: x, student, balance and income, standardised; y, 1 for the 3 % who defaulted."""
    rows = _table(store, "Default")
    numbers = [[row["student"] == "Yes", float(row["balance"]), float(row["income"])] for row in rows]
    y = np.array([[row["default"] == "Yes"] for row in rows], np.float32)
    return {"x": standardised(np.array(numbers, np.float64)), "y": y}


def bikeshare(store: Path) -> dict[str, Array]:
    """8,645 hours of a bicycle rental: x, the hour, the calendar and the weather; y, how many were hired, standardised.

    Of each category (month, hour, day of the week, weather) a column a value, 0 or 1; the others are standardised.
    """
    rows = _table(store, "Bikeshare")
    categories = [one_hot([row[name] for row in rows]) for name in ("mnth", "hr", "weekday", "weathersit")]
    flags = _numbers(rows, ("holiday", "workingday"))
    weather = standardised(_numbers(rows, ("temp", "atemp", "hum", "windspeed")))
    x = np.concatenate([*categories, flags, weather], axis=1).astype(np.float32)
    return {"x": x, "y": standardised(_numbers(rows, ("bikers",)))}


def _table(store: Path, name: str) -> list[dict[str, str]]:
    content = from_zip(ISLP.fetched(store), f"ISLP/data/{name}.csv")
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"))))


def _numbers(rows: list[dict[str, str]], names: Sequence[str]) -> Array:
    return np.array([[float(row[name]) for name in names] for row in rows], np.float64)
