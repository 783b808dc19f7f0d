"""Electricity demand of England and Wales, every half-hour from 5 June to 27 August 2000 (Taylor 2003)."""

import ast
from pathlib import Path

import numpy as np

from examples.data.archives import Archive, from_zip
from examples.data.columns import Array

PMDARIMA = Archive("pmdarima", "2.1.1", "e8148ff1f4cdb9a07164247eb3e6dddc1baef6e226d38528bd3fdf5d160f8dee")

DAY, WEEK = 48, 7 * 48  # half-hours
PAST = 2 * DAY
"""What a forecast looks back on."""
LAST_WEEKS = 2 * WEEK
"""Kept from training, to be forecast at the end."""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def electricity(store: Path) -> dict[str, Array]:
    """The half-hours before the last two weeks."""
    return half_hours(demand(store), 0, -LAST_WEEKS)


def electricity_last_weeks(store: Path) -> dict[str, Array]:
    """Those of the last two weeks, and before them what the first forecast looks back on."""
    return half_hours(demand(store), -LAST_WEEKS - PAST, None)


def demand(store: Path) -> Array:
    """The 4,032 numbers, in megawatts. They stand in the text of a module, which is read and not run."""
    text = from_zip(PMDARIMA.fetched(store), "pmdarima/datasets/taylor.py").decode("utf-8")
    lists = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.List)]
    return np.array(ast.literal_eval(max(lists, key=lambda node: len(node.elts))), np.float64)


def half_hours(series: Array, first: int, last: int | None) -> dict[str, Array]:
    """demand, in megawatts; tomorrow, on which day of the week the same half-hour a day later is."""
    days = (np.arange(len(series)) // DAY + 1) % len(WEEKDAYS)  # the first half-hour is on a Monday
    return {"demand": series[first:last], "tomorrow": np.array(WEEKDAYS)[days][first:last]}
