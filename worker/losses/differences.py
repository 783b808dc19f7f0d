"""How far numbers are from those wanted: the mean of a function of output - target over a row's elements."""

import math
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape, by_row
from worker.errors import InvalidValue, TargetMismatch
from worker.losses.loss import Judged, TargetColumn
from worker.scores import NONE, Scores, number_scores


@dataclass(frozen=True)
class MeanSquaredError:
    """The mean over a row's elements of (output - target)^2; gradient 2 (output - target) / elements."""

    def training_scores(self, output_shape: Shape) -> Scores:  # noqa: ARG002 - they are the same for all
        return NONE

    def scores(self, output_shape: Shape) -> Scores:
        return number_scores(output_shape)

    def check(self, output_shape: Shape, column: TargetColumn) -> None:
        check_same_shape("mean squared error", output_shape, column)

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> Judged:
        d = difference(outputs, targets)
        return mean_of_elements(np.square(d), d, weights, 2.0)


@dataclass(frozen=True)
class MeanAbsoluteError:
    """The mean over a row's elements of |output - target|; gradient sign(output - target) / elements.

    A row that is far off pulls no harder than any other, so that the median is learned where the squared error learns
    the mean.
    """

    def training_scores(self, output_shape: Shape) -> Scores:  # noqa: ARG002 - they are the same for all
        return NONE

    def scores(self, output_shape: Shape) -> Scores:
        return number_scores(output_shape)

    def check(self, output_shape: Shape, column: TargetColumn) -> None:
        check_same_shape("mean absolute error", output_shape, column)

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> Judged:
        d = difference(outputs, targets)
        return mean_of_elements(np.abs(d), np.sign(d), weights)


@dataclass(frozen=True)
class Huber:
    """The mean over a row's elements of d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2) (Huber 1964).

    d = output - target. The gradient is d, cut at delta on both sides, / elements.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        if not 1e-6 <= self.delta <= 1e6:
            raise InvalidValue("delta", f"is {self.delta:g}; must be 1e-6 to 1e6")

    def training_scores(self, output_shape: Shape) -> Scores:  # noqa: ARG002 - they are the same for all
        return NONE

    def scores(self, output_shape: Shape) -> Scores:
        return number_scores(output_shape)

    def check(self, output_shape: Shape, column: TargetColumn) -> None:
        check_same_shape("the Huber loss", output_shape, column)

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> Judged:
        d = difference(outputs, targets)
        slope = np.clip(d, -self.delta, self.delta)
        # With c = d cut at delta, both branches are c (d - c / 2).
        return mean_of_elements(slope * (d - slope / 2), slope, weights)


def check_same_shape(what: str, output_shape: Shape, column: TargetColumn) -> None:
    """Raises TargetMismatch unless a row's targets have the shape of its outputs."""
    # A column of single numbers is what a network with one output predicts.
    if output_shape not in (column.row_shape, (*column.row_shape, 1)):
        raise TargetMismatch(
            f"has rows of shape {column.row_shape}, but the network ends in {output_shape}; {what} needs the same shape"
        )


def difference(outputs: Array, targets: Array) -> Array:
    """Outputs less targets, (rows, ...)."""
    d: Array = outputs - targets.reshape(outputs.shape).astype(outputs.dtype, copy=False)
    return d


def mean_of_elements(values: Array, slopes: Array, weights: Array | None, factor: float = 1.0) -> Judged:
    """Sums over rows the mean of each row's elements. `slopes`, used up, times `factor` is each element's gradient."""
    rows = len(values)
    elements = math.prod(values.shape[1:])
    slopes *= factor / elements
    if weights is not None and weights.ndim == 2:
        weights, share = by_row(weights)
        share = share.reshape(*share.shape, *[1] * (values.ndim - 2))
        values = values * share
        slopes *= share
    if weights is None:
        return Judged(float(values.sum(dtype=np.float64)) / elements, slopes, rows)
    slopes *= weights.reshape(-1, *[1] * (slopes.ndim - 1))
    of_row = values.reshape(rows, elements).sum(axis=1)
    return Judged(float(np.dot(of_row, weights)) / elements, slopes, float(weights.sum(dtype=np.float64)))
