"""Scores of numbers: outputs (rows, ...), and targets in any shape of as many."""

import math
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, by_row, of_elements
from worker.scores.score import ratio


@dataclass(frozen=True)
class MeanAbsolute:
    """The mean of |output - target| over elements and rows."""

    size = 2

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        return _mean(np.abs(_difference(outputs, targets)), weights)

    def value(self, total: Array) -> float | None:
        return ratio(total[0], total[1])


@dataclass(frozen=True)
class RootMeanSquared:
    """The root of the mean of (output - target)^2 over elements and rows."""

    size = 2

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        return _mean(np.square(_difference(outputs, targets)), weights)

    def value(self, total: Array) -> float | None:
        square = ratio(total[0], total[1])
        return None if square is None else math.sqrt(square)


@dataclass(frozen=True)
class R2:
    """The share of the targets' variance that the outputs explain: 1 - sum (output - target)^2 / sum (target - mean)^2.

    The mean over elements, of those that vary. Sums: of each element its weight in all rows, the squared error, the
    target and its square, each (elements,). Where targets lie a million times further from 0 than from each other,
    their squares leave few digits for it.
    """

    elements: int

    @property
    def size(self) -> int:
        return 4 * self.elements

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        d = _difference(outputs, targets)
        t = targets.reshape(d.shape).astype(np.float64)
        each = np.ones_like(d) if weights is None else of_elements(weights, d.shape[1]).astype(np.float64)
        return np.concatenate([(each * part).sum(axis=0) for part in (np.ones_like(d), np.square(d), t, np.square(t))])

    def value(self, total: Array) -> float | None:
        count, errors, of_target, of_square = total.reshape(4, self.elements)
        variances = of_square - np.square(of_target) / np.where(count > 0, count, 1)
        varies = variances > 1e-12 * of_square
        return float(np.mean(1 - errors[varies] / variances[varies])) if varies.any() else None


def _difference(outputs: Array, targets: Array) -> Array:
    """Output less target in float64, (rows, elements)."""
    rows = len(outputs)
    wide: Array = outputs.reshape(rows, math.prod(outputs.shape[1:])).astype(np.float64)
    wide -= targets.reshape(wide.shape)
    return wide


def _mean(errors: Array, weights: Array | None) -> Array:
    """The mean of each row's (rows, elements), summed over rows; and the rows' weights."""
    if weights is not None and weights.ndim == 2:
        weights, share = by_row(weights)
        errors = errors * of_elements(share, errors.shape[1])
    of_row = errors.mean(axis=1)
    if weights is None:
        return np.array([of_row.sum(), len(of_row)], np.float64)
    return np.array([of_row @ weights, weights.sum(dtype=np.float64)], np.float64)
