"""Scikit-learn's samples, as `chainrule.samples` has them, and two halves of the digits."""

import io
from pathlib import Path

import numpy as np

from chainrule.errors import SampleError
from chainrule.samples import make_sample
from examples.data.archives import Missing
from examples.data.columns import Array


def all_digits(_: Path) -> dict[str, Array]:
    """1,797 handwritten digits: x (64), pixels from 0 to 1; y, which digit."""
    return _sample("digits")


def lower_half(_: Path) -> dict[str, Array]:
    """The digits 0 to 4: x (64); y, 0 to 4."""
    digits = _sample("digits")
    rows = digits["y"] < 5
    return {name: column[rows] for name, column in digits.items()}


def upper_half(_: Path) -> dict[str, Array]:
    """The digits 5 to 9: x (64); y, 0 to 4 for them."""
    digits = _sample("digits")
    rows = digits["y"] >= 5
    return {"x": digits["x"][rows], "y": digits["y"][rows] - 5}


def wine(_: Path) -> dict[str, Array]:
    """178 wines: x (13), measurements, standardised; y, 0 to 2."""
    return _sample("wine")


def _sample(name: str) -> dict[str, Array]:
    try:
        with np.load(io.BytesIO(make_sample(name)), allow_pickle=False) as file:
            return dict(file)
    except SampleError as error:
        raise Missing(str(error)) from error
