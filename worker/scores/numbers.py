"""Scores of numbers: outputs (rows, ...), and targets in any shape of as many."""

import math
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array
from worker.scores.score import ratio


@dataclass(frozen=True)
class MeanAbsolute:
    """The mean of |output - target| over elements and rows."""

    size = 2

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        return _weighted(np.abs(_difference(outputs, targets)).mean(axis=1), weights)

    def value(self, total: Array) -> float | None:
        return ratio(total[0], total[1])


@dataclass(frozen=True)
class RootMeanSquared:
    """The root of the mean of (output - target)^2 over elements and rows."""

    size = 2

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        return _weighted(np.square(_difference(outputs, targets)).mean(axis=1), weights)

    def value(self, total: Array) -> float | None:
        square = ratio(total[0], total[1])
        return None if square is None else math.sqrt(square)


@dataclass(frozen=True)
class R2:
    """The share of the targets' variance that the outputs explain: 1 - sum (output - target)^2 / sum (target - mean)^2.

    The mean over elements, of those that vary. Sums: the weight of all rows, then of each element the squared error,
    the target and its square, each (elements,). Where targets lie a million times further from 0 than from each other,
    their squares leave few digits for it.
    """

    elements: int

    @property
    def size(self) -> int:
        return 1 + 3 * self.elements

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        d = _difference(outputs, targets)
        t = targets.reshape(d.shape).astype(np.float64)
        each = np.ones(len(d)) if weights is None else weights.astype(np.float64)
        return np.concatenate([[each.sum()], each @ np.square(d), each @ t, each @ np.square(t)])

    def value(self, total: Array) -> float | None:
        count = total[0]
        if not count:
            return None
        errors, of_target, of_square = total[1:].reshape(3, self.elements)
        variances = of_square - np.square(of_target) / count
        varies = variances > 1e-12 * of_square
        return float(np.mean(1 - errors[varies] / variances[varies])) if varies.any() else None


def _difference(outputs: Array, targets: Array) -> Array:
    """Output less target in float64, (rows, elements)."""
    rows = len(outputs)
    wide: Array = outputs.reshape(rows, math.prod(outputs.shape[1:])).astype(np.float64)
    wide -= targets.reshape(wide.shape)
    return wide


def _weighted(of_row: Array, weights: Array | None) -> Array:
    if weights is None:
        return np.array([of_row.sum(), len(of_row)], np.float64)
    return np.array([of_row @ weights, weights.sum(dtype=np.float64)], np.float64)
