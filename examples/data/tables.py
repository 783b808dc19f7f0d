"""Two tables from the labs of "An Introduction to Statistical Learning" (James et al. 2023)."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from examples.data.archives import Archive, from_zip
from examples.data.columns import Array

ISLP = Archive("ISLP", "0.4.0", "1c1d628cf79a467bea2a2972dc78603c7a5a05580b9255f5dfa2109e1a713133")

CATEGORIES = ("mnth", "hr", "weekday", "weathersit")
FLAGS, WEATHER = ("holiday", "workingday"), ("temp", "atemp", "hum", "windspeed")


def default(store: Path) -> dict[str, Array]:
    """10,000 owners of credit cards: student (Yes or No), balance and income; default, Yes for the 3 % who did."""
    rows = _table(store, "Default")
    return {**_columns(rows, ("student", "default")), **_columns(rows, ("balance", "income"), float)}


def bikeshare(store: Path) -> dict[str, Array]:
    """8,645 hours of a bicycle rental: the calendar and the weather; bikers, how many bicycles were hired."""
    rows = _table(store, "Bikeshare")
    return {**_columns(rows, CATEGORIES), **_columns(rows, (*FLAGS, *WEATHER, "bikers"), float)}


def _table(store: Path, name: str) -> list[dict[str, str]]:
    content = from_zip(ISLP.fetched(store), f"ISLP/data/{name}.csv")
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"))))


def _columns(
    rows: list[dict[str, str]], names: Sequence[str], kind: Callable[[str], str | float] = str
) -> dict[str, Array]:
    return {name: np.array([kind(row[name]) for row in rows]) for name in names}
