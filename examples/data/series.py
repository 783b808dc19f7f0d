"""Electricity demand of England and Wales, every half-hour from 5 June to 27 August 2000 (Taylor 2003)."""

import ast
from pathlib import Path

import numpy as np

from examples.data.archives import Archive, from_zip
from examples.data.columns import Array

PMDARIMA = Archive("pmdarima", "2.1.1", "e8148ff1f4cdb9a07164247eb3e6dddc1baef6e226d38528bd3fdf5d160f8dee")

DAY, WEEK = 48, 7 * 48  # half-hours
PAST, FUTURE, FEATURES = 2 * DAY, DAY, 3
LAST_WEEKS = 2 * WEEK
"""Kept from training, to be forecast at the end."""


def electricity(store: Path) -> dict[str, Array]:
    """Windows that end before the last two weeks, one for every half-hour."""
    series = demand(store)
    return windows(series, PAST, len(series) - LAST_WEEKS - FUTURE)


def electricity_last_weeks(store: Path) -> dict[str, Array]:
    """Windows whose day to be forecast is within the last two weeks."""
    series = demand(store)
    return windows(series, len(series) - LAST_WEEKS, len(series) - FUTURE)


def demand(store: Path) -> Array:
    """The 4,032 numbers, in megawatts. They stand in the text of a module, which is read and not run."""
    text = from_zip(PMDARIMA.fetched(store), "pmdarima/datasets/taylor.py").decode("utf-8")
    lists = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.List)]
    return np.array(ast.literal_eval(max(lists, key=lambda node: len(node.elts))), np.float64)


def windows(series: Array, first: int, last: int) -> dict[str, Array]:
    """A window for each half-hour t from `first` to `last`.

    x (96, 3): of each half-hour of the two days before t the demand, standardised by what is known before the last two
    weeks; and whether the same half-hour a day later is on a Saturday, or on a Sunday. y (48): by how much the demand
    of each half-hour of the day from t on differs from that of the same half-hour a day before. So the naive forecast,
    "as yesterday", is 0.
    """
    known = series[:-LAST_WEEKS]
    standard = (series - known.mean()) / known.std()
    weekday = (np.arange(len(series)) + DAY) % WEEK // DAY  # the first half-hour is on a Monday
    features = np.stack([standard, weekday == 5, weekday == 6], axis=1)
    at = np.arange(first, last + 1)[:, np.newaxis]
    future = at + np.arange(FUTURE)
    x = features[at + np.arange(-PAST, 0)]
    return {"x": x.astype(np.float32), "y": (standard[future] - standard[future - DAY]).astype(np.float32)}
